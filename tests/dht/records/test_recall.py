"""Deletions that the keepers lost are learnt again from those who remember them."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from gossipcache.messages.graves import GravesHere
from tests.dht.records.harness import Node, RecordCluster, record_cluster, task, tombstone

CID = "a task"


async def deleted_and_forgotten(cluster: RecordCluster) -> Node:
    """A task is deleted, all its keepers die; the former holder, who alone remembers it."""
    keepers = cluster.keepers(CID)
    former = next(node for node in cluster.nodes if node not in keepers)
    published = await former.publish(CID)
    proof = tombstone(published.manifest)
    await former.service.bury(proof, timeout_s=5)
    former.memory.remember(proof)
    for keeper in keepers:
        cluster.crash(keeper)
    return former


async def test_new_keepers_ask_former_holders_before_they_answer(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(7) as cluster:
        lost = cluster.keepers(CID)
        former = await deleted_and_forgotten(cluster)
        cluster.see(*(node for node in cluster.nodes if node not in lost))
        for keeper in cluster.keepers(CID):
            await former.links.notify(keeper.node_id, GravesHere())
        record = await former.service.read(task(CID), timeout_s=20)
        assert record is not None
        assert record.tombstone is not None
        for keeper in cluster.keepers(CID):
            held = keeper.service.local(task(CID))
            assert held is not None
            assert held.tombstone is not None


async def test_a_keeper_that_joins_hears_of_deletions_from_whoever_remembers(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(3) as cluster:
        peer = await cluster.add(is_scheduler=False)
        cids = [f"task {number}" for number in range(8)]
        for cid in cids:
            published = await cluster.nodes[0].publish(cid)
            peer.memory.remember(tombstone(published.manifest))
        cluster.bystanders = [peer.node_id]
        newcomer = await cluster.add()
        cluster.see(*cluster.nodes[:3], newcomer)
        await trio.sleep(2)
        kept = [cid for cid in cids if newcomer in cluster.keepers(cid)]
        assert kept
        for cid in kept:
            held = newcomer.service.local(task(cid))
            assert held is not None
            assert held.tombstone is not None


async def test_a_restored_copy_does_not_outlive_the_memory_of_its_deletion(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(7) as cluster:
        lost = cluster.keepers(CID)
        former = await deleted_and_forgotten(cluster)
        cluster.see(*(node for node in cluster.nodes if node not in lost))
        proof = former.memory.proofs[task(CID)]
        assert await former.service.restore(proof.manifest)  # by a holder that was away
        for keeper in cluster.keepers(CID):
            await former.links.notify(keeper.node_id, GravesHere())
        await trio.sleep(1)
        record = await former.service.read(task(CID), timeout_s=20)
        assert record is not None
        assert record.manifest is None
        assert not await former.service.restore(proof.manifest)
