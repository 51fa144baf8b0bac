"""Many records at once: what they come to is what each would have come to alone."""

from __future__ import annotations

import random

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from trio.testing import MockClock

from gossipcache.errors import GossipcacheError
from gossipcache.link.interface import Peer
from gossipcache.messages.batches import (
    CommitRecords,
    PrepareRecords,
    ReadRecords,
    RecordsJudged,
    RecordsRead,
    RecordsWritten,
    WriteRecords,
)
from gossipcache.messages.records import PrepareRecord, RecordEntry, WriteRecord
from tests.dht.records.harness import (
    EPOCH_S,
    Node,
    RecordCluster,
    manifest,
    record_cluster,
    task,
    tombstone,
)

CIDS = [f"task {number}" for number in range(40)]


async def publish_all(node: Node, content_of: dict[str, str]) -> dict[str, object]:
    """Publishes by one batch, then singly what it left out; the copies, or the error, of each."""
    manifests = [manifest(cid, 1, text, node.identity) for cid, text in content_of.items()]
    at_once = await node.service.publish_many(manifests)
    found: dict[str, object] = {}
    for cid, text in content_of.items():
        if (published := at_once.get(task(cid))) is not None:
            found[cid] = published.copies
        else:
            found[cid] = await published_alone(node, cid, text)
    return found


async def published_alone(node: Node, cid: str, text: str) -> object:
    try:
        return (await node.publish(cid, text)).copies
    except GossipcacheError as error:
        return error.code


async def read_all(node: Node) -> dict[str, tuple[int, str | None] | None]:
    """Generation and content digest of each task as the cluster has it."""
    found: dict[str, tuple[int, str | None] | None] = {}
    for cid in CIDS:
        record = await node.service.read(task(cid), timeout_s=5)
        standing = None if record is None or record.manifest is None else record.manifest
        digest = None if standing is None else standing.manifest.digest
        found[cid] = None if record is None else (record.generation, digest)
    return found


async def test_a_batch_of_records_is_read_by_every_other(autojump_clock: MockClock) -> None:
    async with record_cluster(5) as cluster:
        peer = await cluster.add(is_scheduler=False)
        copies = await publish_all(cluster.nodes[0], dict.fromkeys(CIDS, "content"))
        assert copies == dict.fromkeys(CIDS, 3)
        assert not [message for *_, message in cluster.board.sent if _is_single(message)]
        for node in (cluster.nodes[3], peer):
            read = await node.service.read_many([task(cid) for cid in CIDS])
            assert [one.manifest is not None for one in read.values() if one] == [True] * len(CIDS)


def _is_single(message: object) -> bool:
    return isinstance(message, WriteRecord | PrepareRecord)


async def test_what_is_absent_is_told_for_all_at_once(autojump_clock: MockClock) -> None:
    async with record_cluster(3) as cluster:
        assert await cluster.nodes[0].service.read_many([task(cid) for cid in CIDS]) == {
            task(cid): None for cid in CIDS
        }


async def test_a_lone_keeper_writes_each_entry_once(autojump_clock: MockClock) -> None:
    async with record_cluster(1) as cluster:
        (node,) = cluster.nodes
        assert await publish_all(node, dict.fromkeys(CIDS, "content")) == dict.fromkeys(CIDS, 1)
        assert cluster.held(CIDS[0]) == [True]


BEFORE = st.sampled_from(["nothing", "the same", "other content", "deleted", "expired"])


@settings(max_examples=20)
@given(st.lists(BEFORE, min_size=1, max_size=8), st.integers(1, 4), st.integers(0, 2**16))
def test_a_batch_is_its_records_one_by_one(before: list[str], size: int, seed: int) -> None:
    """Whatever stood before, also with a keeper that is gone."""
    outcomes = [_outcome(before, size, seed, batched=batched) for batched in (True, False)]
    assert outcomes[0] == outcomes[1]


def _outcome(before: list[str], size: int, seed: int, *, batched: bool) -> object:
    async def main() -> object:
        async with record_cluster(size) as cluster:
            names = CIDS[: len(before)]
            for cid, what in zip(names, before, strict=True):
                await _prepare(cluster, cid, what)
            writer = cluster.nodes[0]
            if size > 3 and seed % 2:
                cluster.crash(cluster.nodes[-1])
            wanted = dict.fromkeys(names, "content")
            if batched:
                ended = await publish_all(writer, wanted)
            else:
                ended = {cid: await published_alone(writer, cid, "content") for cid in names}
            return ended, await read_all(writer)

    return trio.run(main, clock=MockClock(autojump_threshold=0))


async def _prepare(cluster: RecordCluster, cid: str, what: str) -> None:
    other = cluster.nodes[-1]
    match what:
        case "the same":
            await other.publish(cid)
        case "other content":
            await other.publish(cid, "other")
        case "expired":
            elapsed_s = trio.current_time() - cluster.started_at
            await other.publish(cid, expires_at=int(EPOCH_S + elapsed_s) + 2)
            await trio.sleep(2)
        case "deleted":
            dead = (await other.publish(cid)).manifest
            await other.service.bury(tombstone(dead, other.identity), timeout_s=5)


async def test_a_keeper_that_dies_within_a_batch_costs_no_record(
    autojump_clock: MockClock,
) -> None:
    """Whenever in the batch it is: every record stands on the two that are left."""
    for kind in (PrepareRecords, CommitRecords, WriteRecords):
        async with record_cluster(3) as cluster:
            writer, dying = cluster.nodes[0], cluster.nodes[1]

            async def die(
                _peer: Peer,
                _message: object,
                cluster: RecordCluster = cluster,
                dying: Node = dying,
            ) -> None:
                cluster.crash(dying)
                await trio.sleep_forever()

            dying.links.replace(kind, die)
            copies = await publish_all(writer, dict.fromkeys(CIDS, "content"))
            assert set(copies.values()) == {2}
            for cid in CIDS:
                record = await writer.service.read(task(cid), timeout_s=5)
                assert record is not None
                assert record.manifest is not None


async def test_a_keeper_that_lies_about_a_batch_does_not_make_it_durable(
    autojump_clock: MockClock,
) -> None:
    """One that refuses all leaves two; a coordinator that refuses leaves it to the next."""
    async with record_cluster(3) as cluster:
        writer, liar = cluster.nodes[0], cluster.nodes[1]

        async def refuse(_peer: Peer, message: PrepareRecords) -> RecordsJudged:
            return RecordsJudged(done=(False,) * len(message.entries))

        async def claim_nothing(_peer: Peer, _message: WriteRecords) -> RecordsWritten:
            return RecordsWritten(copies=())

        async def tell_nothing(_peer: Peer, _message: ReadRecords) -> RecordsRead:
            return RecordsRead(records=())

        liar.links.replace(PrepareRecords, refuse)
        liar.links.replace(WriteRecords, claim_nothing)
        liar.links.replace(ReadRecords, tell_nothing)
        copies = await publish_all(writer, dict.fromkeys(CIDS, "content"))
        assert set(copies.values()) <= {2, 3}
        read = await writer.service.read_many([task(cid) for cid in CIDS])
        assert len(read) <= len(CIDS)
        assert all((await read_all(writer)).values())


async def test_a_void_entry_is_left_out_and_the_others_are_written(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(3) as cluster:
        stranger, keeper = cluster.nodes[0], cluster.nodes[1]
        good = [manifest(cid).signed for cid in CIDS[:3]]
        altered = replace(good[1], signature=bytes(64))
        buried = tombstone(manifest(CIDS[2]))
        entries = (
            RecordEntry(manifests=(good[0],)),
            RecordEntry(manifests=(altered,)),
            RecordEntry(manifests=(good[2],), tombstone=buried.signed),
            RecordEntry(manifests=(good[0],)),
        )
        answer = await stranger.links.request(
            keeper.node_id, WriteRecords(entries=entries), RecordsWritten, 5.0
        )
        # The first came twice: one of them is written.
        assert sorted(answer.copies) == [0, 0, 0, 3]
        assert keeper.metrics.value("record_entries_invalid") == 1


async def test_two_batches_with_the_same_names_never_both_win(autojump_clock: MockClock) -> None:
    rng = random.Random(7)
    async with record_cluster(4) as cluster:
        outcomes: list[dict[str, object]] = []

        async def publish(node: Node, text: str) -> None:
            names = rng.sample(CIDS, len(CIDS))
            outcomes.append(await publish_all(node, dict.fromkeys(names, text)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish, cluster.nodes[0], "one")
            nursery.start_soon(publish, cluster.nodes[1], "two")
        for cid in CIDS:
            ended = [isinstance(outcome[cid], int) for outcome in outcomes]
            assert sorted(ended) == [False, True]
