"""Keepers that come, go, split and lie, while the records are in use."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from gossipcache.errors import Conflict, NotPermitted
from gossipcache.messages.records import PushRecords, RecordEntry, RecordsTaken
from tests.dht.records.harness import JOURNAL, identity, manifest, record_cluster, task, tombstone

CID = "a task"


async def test_a_pushed_forgery_replaces_nothing(autojump_clock: MockClock) -> None:
    async with record_cluster(3) as cluster:
        liar, honest, other = cluster.keepers(CID)
        published = await honest.publish(CID, "true")
        forged = [
            RecordEntry(manifests=(manifest(CID, generation, "forged").signed,))
            for generation in (1, 2, 50)
        ]
        for node in (honest, other):
            taken = await liar.links.request(
                node.node_id, PushRecords(entries=tuple(forged)), RecordsTaken, 5
            )
            assert taken.count == 0
            record = await node.service.read(task(CID), timeout_s=5)
            assert record is not None
            assert record.manifest == published.manifest


async def test_a_push_with_a_broken_signature_is_dropped_and_counted(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(2) as cluster:
        one, other = cluster.nodes
        signed = manifest(CID).signed
        altered = type(signed)(signed.payload, signed.key, bytes(64))
        entries = (RecordEntry(manifests=(altered,)),)
        await one.links.request(other.node_id, PushRecords(entries=entries), RecordsTaken, 5)
        assert other.service.local(task(CID)) is None
        assert other.metrics.value("record_entries_invalid") == 1


async def test_who_is_no_scheduler_pushes_nothing(autojump_clock: MockClock) -> None:
    async with record_cluster(2) as cluster:
        peer = await cluster.add(is_scheduler=False)
        entries = (RecordEntry(manifests=(manifest(CID).signed,)),)
        with pytest.raises(NotPermitted):
            await peer.links.request(
                cluster.nodes[0].node_id, PushRecords(entries=entries), RecordsTaken, 5
            )


async def test_a_scheduler_that_joins_disturbs_neither_reads_nor_writes(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(3) as cluster:
        cids = [f"task {number}" for number in range(60)]
        for cid in cids[:30]:
            await cluster.nodes[0].publish(cid)

        async def use() -> None:
            for cid in cids[30:]:
                assert (await cluster.nodes[1].publish(cid, timeout_s=5)).copies >= 2
                assert await cluster.nodes[2].service.read(task(cid), timeout_s=5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            newcomer = await cluster.add()
            await newcomer.service.synced.wait()
            cluster.see(*cluster.nodes)
        await trio.sleep(5)
        for cid in cids:
            assert all(cluster.held(cid))
            kept = [node.service.local(task(cid)) is not None for node in cluster.nodes]
            assert sum(kept) == 3


async def test_a_fork_after_a_partition_fails_closed_until_one_is_named(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(4) as cluster:
        left, right = cluster.nodes[:2], cluster.nodes[2:]
        for half in (left, right):
            for node in half:
                node.ring = node.ring.with_members([one.node_id for one in half])
                node.service.on_ring_change()
        await left[0].publish(CID, "one")
        await right[0].publish(CID, "two")

        cluster.see(*cluster.nodes)
        await trio.sleep(30)
        with pytest.raises(Conflict, match="different content"):
            await left[1].service.read(task(CID), timeout_s=5)
        named = await left[1].service.read(
            task(CID), accept=lambda one: one.publisher == right[0].node_id, timeout_s=5
        )
        assert named is not None
        assert named.manifest is not None
        await left[1].service.bury(tombstone(named.manifest, identity(5)), timeout_s=5)
        assert (await left[0].publish(CID, "three")).manifest.manifest.generation == 2


async def test_a_damaged_journal_is_filled_again_by_the_others(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(3) as cluster:
        cids = [f"task {number}" for number in range(5)]
        for cid in cids:
            await cluster.nodes[0].publish(cid)
        broken = cluster.nodes[1]
        cluster.crash(broken)
        await trio.sleep(1)
        broken.disk.overwrite(JOURNAL, b"garbage")
        cluster.board.revive(broken.node_id)
        broken.remake()
        await cluster.start(broken)
        await broken.service.synced.wait()
        assert broken.metrics.value("record_journals_damaged") == 1
        assert all(broken.service.local(task(cid)) is not None for cid in cids)


async def test_differences_are_found_and_mended_in_the_background(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(3) as cluster:
        owner, replica, last = cluster.keepers(CID)
        published = await owner.publish(CID)
        cluster.board.refuse(last.node_id)
        await owner.service.bury(tombstone(published.manifest), timeout_s=5)
        # The coordinator forgets its hint with its life.
        cluster.crash(owner)
        cluster.board.revive(last.node_id)
        await trio.sleep(60)
        local = last.service.local(task(CID))
        assert local is not None
        assert local.tombstone is not None
        assert replica.service.local(task(CID)) == local


async def test_who_hangs_and_is_missed_is_not_waited_for_any_more(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(3) as cluster:
        hung = await cluster.add()
        cluster.board.silence(hung.node_id)
        cluster.see(*cluster.nodes)
        await trio.sleep(1.0)  # all three wait for its answer
        cid = next(
            f"task {number}" for number in range(100) if hung in cluster.keepers(f"task {number}")
        )
        cluster.see(*cluster.nodes[:3])
        missed_at = trio.current_time()
        assert (await cluster.nodes[0].publish(cid)).copies >= 2
        assert trio.current_time() - missed_at < 1.0


async def test_many_records_move_in_bounded_messages(autojump_clock: MockClock) -> None:
    async with record_cluster(1) as cluster:
        for number in range(700):
            await cluster.nodes[0].publish(f"task {number}")
        newcomer = await cluster.add()
        await newcomer.service.synced.wait()
        assert newcomer.service.record_count == 700


async def test_what_is_written_while_a_node_joins_is_hinted_to_it(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(2) as cluster:
        joining = await cluster.add()
        await joining.service.synced.wait()
        cids = [f"shard {number}" for number in range(8)]
        for cid in cids:
            await cluster.nodes[0].publish(cid)
        cluster.see(*cluster.nodes)
        await trio.sleep(2.0)
        kept = [cid for cid in cids if joining in cluster.keepers(cid)]
        assert kept
        assert all(joining.service.local(task(cid)) is not None for cid in kept)
