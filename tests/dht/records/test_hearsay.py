"""A lying keeper beside one that holds nothing yet: what the empty one hears is hearsay."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from gossipcache.dht.records.standing import Standing, standing_manifest, standing_tombstone
from gossipcache.dht.records.verdicts import Contested
from gossipcache.errors import GossipcacheError, TimedOut
from gossipcache.messages.records import (
    PushRecords,
    RecordsTaken,
    RecordWritten,
    WriteRecord,
)
from tests.dht.records.harness import (
    EPOCH_S,
    Node,
    RecordCluster,
    identity,
    manifest,
    record_cluster,
    task,
    tombstone,
)

CID = "a task"


async def with_an_empty_keeper(cluster: RecordCluster) -> tuple[Node, Node, Node]:
    """A liar and an honest keeper that hold a task, and one that took the place of the third."""
    liar, honest, gone = cluster.nodes
    await honest.publish(CID, "true")
    cluster.crash(gone)
    empty = await cluster.add()
    return liar, honest, empty


def lies(liar: Node) -> list[Standing]:
    """A later generation, and its deletion, all signed by the liar."""
    false = manifest(CID, 5, "false", liar.identity)
    return [standing_manifest(false), standing_tombstone(tombstone(false, liar.identity))]


def holds(node: Node, standing: Standing) -> None:
    keeper = node.service._keeper
    assert keeper is not None
    keeper._core.absorb(standing, EPOCH_S, vouched=True)


def is_true(node: Node) -> bool:
    record = node.service.local(task(CID))
    return record is not None and record.manifest is not None and record.generation == 1


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("restarts", [False, True])
async def test_a_liar_that_is_heard_first_gets_no_second_voice(
    autojump_clock: MockClock, kind: int, restarts: bool
) -> None:
    async with record_cluster(3, "publisher") as cluster:
        liar, honest, empty = await with_an_empty_keeper(cluster)
        lie = lies(liar)[kind]
        holds(liar, lie)
        push = PushRecords(entries=(lie.entry,))
        await liar.links.request(empty.node_id, push, RecordsTaken, 2.0)
        if restarts:
            assert empty.scope is not None
            empty.scope.cancel()
            await trio.sleep(0.1)
            empty.remake()
            await cluster.start(empty)
        cluster.see(liar, honest, empty)
        await trio.sleep(60.0)
        assert is_true(honest)
        for node in (honest, empty):
            try:
                found = await node.service.read(task(CID), timeout_s=10.0)
            except TimedOut:
                continue
            assert found is not None
            assert found.generation == 1


async def test_a_liar_cannot_restore_at_a_keeper_that_holds_nothing(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(3, "publisher") as cluster:
        liar, honest, empty = await with_an_empty_keeper(cluster)
        first, _ = lies(liar)
        holds(liar, first)
        cluster.see(liar, honest, empty)
        for coordinator in (empty, liar):
            write = WriteRecord(entry=first.entry, restore=True)
            try:
                await liar.links.request(coordinator.node_id, write, RecordWritten, 2.0)
            except GossipcacheError:
                pass
        await trio.sleep(60.0)
        assert is_true(honest)


async def test_two_that_say_the_same_outweigh_one_that_was_heard_first(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(3) as cluster:
        core = cluster.nodes[0].service._keeper._core  # type: ignore[union-attr]
        liar, honest, other = (identity(number).node_id for number in (7, 8, 9))
        false, true = (standing_manifest(manifest(CID, number)) for number in (5, 1))
        core.absorb(false, EPOCH_S, teller=liar)
        assert core.is_hearsay(task(CID))
        assert isinstance(core.absorb(true, EPOCH_S, teller=honest), Contested)
        assert not core.knows_absence(task(CID), trio.current_time() + 60)
        core.absorb(true, EPOCH_S, teller=other)
        assert core.standing(task(CID)) == true
        assert not core.is_hearsay(task(CID))
        assert core.knows_absence(task(CID), trio.current_time() + 60)


async def test_what_all_keepers_lost_is_restored_and_proven(autojump_clock: MockClock) -> None:
    async with record_cluster(3) as cluster:
        signed = manifest(CID)
        assert await cluster.nodes[0].service.restore(signed)
        await trio.sleep(60.0)
        for node in cluster.nodes:
            assert is_true(node)
            found = await node.service.read(task(CID), timeout_s=1.0)
            assert found is not None


async def test_a_task_outlives_all_its_keepers_but_one(autojump_clock: MockClock) -> None:
    async with record_cluster(3) as cluster:
        last, *gone = cluster.nodes
        await last.publish(CID, "true")
        for node in gone:
            cluster.crash(node)
        empty = [await cluster.add(), await cluster.add()]
        cluster.see(last, *empty)
        await trio.sleep(20.0)
        cluster.crash(last)
        cluster.see(*empty)
        await trio.sleep(12.0)
        found = await empty[0].service.read(task(CID), timeout_s=5.0)
        assert found is not None
        assert found.generation == 1
