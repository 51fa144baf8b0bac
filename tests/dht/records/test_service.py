"""The records of a cluster: quorum writes, agreeing reads, and keepers that come and go."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from gossipcache.config import RecordConfig
from gossipcache.errors import Conflict, NotPermitted, TimedOut
from gossipcache.link.interface import Peer
from gossipcache.manifest import SignedManifest
from gossipcache.messages.records import ReadRecord, RecordAnswer, RecordEntry
from tests.dht.records.harness import identity, manifest, record_cluster, task, tombstone

CID = "a task"


async def test_a_fresh_or_lone_cluster_answers_at_once(autojump_clock: MockClock) -> None:
    async with record_cluster(1) as cluster:
        (node,) = cluster.nodes
        assert node.service.synced.is_set()
        assert await node.service.read(task(CID), timeout_s=0.01) is None
        published = await node.publish(CID)
        assert (published.copies, published.adopted) == (1, False)


async def test_what_one_publishes_every_other_reads(autojump_clock: MockClock) -> None:
    async with record_cluster(5) as cluster:
        peer = await cluster.add(is_scheduler=False)
        published = await cluster.nodes[0].publish(CID)
        assert published.copies == 3
        for node in (*cluster.nodes[1:5], peer):
            record = await node.service.read(task(CID), timeout_s=1)
            assert record is not None
            assert record.manifest == published.manifest
            assert record.copies >= 2


async def test_the_same_content_is_adopted_other_content_is_refused(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(3) as cluster:
        first, second, third = cluster.nodes
        published = await first.publish(CID, "one")
        again = await second.publish(CID, "one")
        assert again.adopted
        assert again.manifest == published.manifest
        with pytest.raises(Conflict, match=first.node_id.hex()):
            await third.publish(CID, "two")


async def test_of_writers_at_the_same_time_one_wins(autojump_clock: MockClock) -> None:
    async with record_cluster(3) as cluster:
        outcomes: list[str] = []

        async def publish(number: int) -> None:
            try:
                await cluster.nodes[number].publish(CID, f"content {number}", timeout_s=30)
                outcomes.append("published")
            except Conflict:
                outcomes.append("refused")

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(publish, number)
        assert sorted(outcomes) == ["published", "refused", "refused"]


async def test_writers_through_different_coordinators_do_not_both_win(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(3) as cluster:
        owner, replica, last = cluster.keepers(CID)
        # The last one sees another owner, so both coordinate at the same time.
        replica.ring = last.ring = replica.ring.with_members([replica.node_id, last.node_id])
        outcomes: list[str] = []

        async def publish(number: int) -> None:
            node = (owner, replica)[number]
            try:
                await node.publish(CID, f"content {number}", timeout_s=30)
                outcomes.append("published")
            except Conflict:
                outcomes.append("refused")

        async with trio.open_nursery() as nursery:
            for number in range(2):
                nursery.start_soon(publish, number)
        assert sorted(outcomes) == ["published", "refused"]


async def test_a_deleted_task_can_be_imported_anew(autojump_clock: MockClock) -> None:
    async with record_cluster(3) as cluster:
        node = cluster.nodes[0]
        first = await node.publish(CID, "one")
        assert await cluster.nodes[1].service.bury(tombstone(first.manifest), timeout_s=5) == 3
        record = await cluster.nodes[2].service.read(task(CID), timeout_s=1)
        assert record is not None
        assert record.manifest is None
        assert record.tombstone is not None

        second = await node.publish(CID, "two")
        assert second.manifest.manifest.generation == 2
        with pytest.raises(Conflict, match="anew"):
            await node.service.bury(tombstone(first.manifest), timeout_s=5)


async def test_only_the_publisher_deletes_if_the_policy_says_so(autojump_clock: MockClock) -> None:
    async with record_cluster(3, "publisher") as cluster:
        published = (await cluster.nodes[0].publish(CID)).manifest
        with pytest.raises(NotPermitted):
            await cluster.nodes[0].service.bury(tombstone(published, identity(77)), timeout_s=5)
        forged = manifest(CID, publisher=identity(77))
        with pytest.raises(NotPermitted):
            await cluster.nodes[0].service.bury(tombstone(forged, identity(77)), timeout_s=5)
        mine = tombstone(published, cluster.nodes[0].identity)
        assert await cluster.nodes[1].service.bury(mine, timeout_s=5) == 3


async def test_an_expired_task_is_absent_and_may_be_imported_again(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(3) as cluster:
        node = cluster.nodes[0]
        await node.publish(CID, "one", expires_at=1_800_000_060)
        await trio.sleep(61)
        assert await node.service.read(task(CID), timeout_s=1) is None
        assert (await node.publish(CID, "two")).manifest.manifest.generation == 2
        await node.publish("another", expires_at=1_800_000_100)
        await trio.sleep(500)
        assert node.service.local(task("another")) is None


async def test_a_write_survives_a_dead_owner_and_its_hint_lands_later(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(3) as cluster:
        owner, replica, _ = cluster.keepers(CID)
        cluster.board.refuse(owner.node_id)
        assert (await replica.publish(CID)).copies == 2
        assert cluster.held(CID) == [False, True, True]
        cluster.board.revive(owner.node_id)
        await trio.sleep(3)
        assert cluster.held(CID) == [True, True, True]


async def test_a_write_without_quorum_is_withdrawn(autojump_clock: MockClock) -> None:
    async with record_cluster(3) as cluster:
        owner, replica, last = cluster.keepers(CID)
        cluster.board.refuse(replica.node_id)
        cluster.board.refuse(last.node_id)
        with pytest.raises(TimedOut):
            await owner.publish(CID, "one", timeout_s=5)
        cluster.board.revive(replica.node_id)
        cluster.board.revive(last.node_id)
        assert await replica.service.read(task(CID), timeout_s=5) is None
        assert (await replica.publish(CID, "two")).copies == 3


async def test_reads_go_on_after_the_owner_is_killed(autojump_clock: MockClock) -> None:
    async with record_cluster(4) as cluster:
        published = await cluster.nodes[0].publish(CID)
        owner, *others = cluster.keepers(CID)
        cluster.crash(owner)
        reader = others[-1]
        record = await reader.service.read(task(CID), timeout_s=0.5)
        assert record is not None
        assert record.manifest == published.manifest


async def test_reads_go_on_after_owner_and_replica_are_killed_at_once(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(5) as cluster:
        cids = [f"task {number}" for number in range(40)]
        for cid in cids:
            await cluster.nodes[0].publish(cid)
        owner, replica, *_ = cluster.keepers(cids[0])
        cluster.crash(owner)
        cluster.crash(replica)
        alive = [node for node in cluster.nodes if node not in (owner, replica)]

        async def notice() -> None:
            await trio.sleep(2)
            cluster.see(*alive)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(notice)
            for cid in cids:
                record = await alive[0].service.read(task(cid), timeout_s=10)
                assert record is not None
                assert record.manifest is not None
        assert await alive[0].service.read(task("none such"), timeout_s=10) is None
        await trio.sleep(5)
        for cid in cids:
            assert all(node.service.local(task(cid)) for node in alive)


async def test_a_frozen_owner_only_delays(autojump_clock: MockClock) -> None:
    async with record_cluster(3) as cluster:
        owner, replica, _ = cluster.keepers(CID)
        cluster.board.silence(owner.node_id)
        assert (await replica.publish(CID)).copies == 2
        assert await replica.service.read(task(CID), timeout_s=1) is not None


async def test_too_few_keepers_prove_neither_presence_nor_absence(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(3) as cluster:
        owner, replica, last = cluster.keepers(CID)
        await owner.publish(CID)
        cluster.board.refuse(owner.node_id)
        cluster.board.refuse(replica.node_id)
        for cid in (CID, "absent"):
            with pytest.raises(TimedOut):
                await last.service.read(task(cid), timeout_s=3)


async def test_one_keeper_is_enough_where_the_cid_or_the_caller_proves_the_bytes(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(3) as cluster:
        cid = "sha256:" + "ab" * 32
        for name in (cid, CID):
            await cluster.nodes[0].publish(name)
        for node in cluster.nodes[1:]:
            cluster.board.refuse(node.node_id)
        reader = cluster.nodes[0].service
        assert await reader.read(task(cid), timeout_s=1) is not None
        wanted = cluster.nodes[0].node_id
        assert await reader.read(task(CID), accept=lambda one: one.publisher == wanted, timeout_s=1)


async def test_a_lying_keeper_cannot_substitute_its_manifest(autojump_clock: MockClock) -> None:
    async with record_cluster(3) as cluster:
        liar, honest, _ = cluster.keepers(CID)
        published = await honest.publish(CID, "true")
        for generation in (1, 7):
            forged = manifest(CID, generation, "forged", liar.identity)

            async def lie(
                _peer: Peer, _message: ReadRecord, forged: SignedManifest = forged
            ) -> RecordAnswer:
                entry = RecordEntry(manifests=(forged.signed,))
                return RecordAnswer(state="held", entry=entry, settled=True)

            liar.links.replace(ReadRecord, lie)
            try:
                record = await honest.service.read(task(CID), timeout_s=20)
            except (TimedOut, Conflict):
                continue
            assert record is not None
            assert record.manifest == published.manifest


async def test_a_keeper_that_was_away_catches_up(autojump_clock: MockClock) -> None:
    async with record_cluster(4) as cluster:
        cids = [f"task {number}" for number in range(30)]
        first = await cluster.nodes[0].publish(cids[0], "one")
        away = next(node for node in cluster.keepers(cids[0]) if node is not cluster.nodes[0])
        others = [node for node in cluster.nodes if node is not away]
        cluster.crash(away)
        cluster.see(*others)
        await trio.sleep(1)
        await others[0].service.bury(tombstone(first.manifest), timeout_s=5)
        for cid in cids[1:]:
            await others[0].publish(cid)

        cluster.board.revive(away.node_id)
        away.remake()
        await cluster.start(away)
        await away.service.synced.wait()
        local = away.service.local(task(cids[0]))
        assert local is not None
        assert local.tombstone is not None
        cluster.see(*cluster.nodes)
        await trio.sleep(5)
        assert all(all(cluster.held(cid)) for cid in cids)
        for cid in cids:
            kept = sum(node.service.local(task(cid)) is not None for node in cluster.nodes)
            assert kept == 3


async def test_what_was_committed_survives_a_restart_of_all(autojump_clock: MockClock) -> None:
    async with record_cluster(3) as cluster:
        published = await cluster.nodes[0].publish(CID)
        for node in cluster.nodes:
            cluster.crash(node)
        await trio.sleep(1)
        for node in cluster.nodes:
            cluster.board.revive(node.node_id)
            node.remake()
            await cluster.start(node)
        record = await cluster.nodes[0].service.read(task(CID), timeout_s=5)
        assert record is not None
        assert record.manifest == published.manifest


async def test_holders_give_a_lost_record_back_but_not_a_deleted_one(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(3) as cluster:
        node = cluster.nodes[0]
        lost = manifest("lost", generation=5)
        assert await node.service.restore(lost)
        record = await cluster.nodes[1].service.read(task("lost"), timeout_s=1)
        assert record is not None
        assert record.manifest == lost

        published = (await node.publish(CID)).manifest
        await node.service.bury(tombstone(published), timeout_s=5)
        assert not await node.service.restore(published)


async def test_a_publication_through_a_node_with_an_old_ring_is_redirected(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(6) as cluster:
        strangers = [node for node in cluster.nodes if node not in cluster.keepers(CID)]
        reader = strangers[0]
        reader.ring = reader.ring.with_members([node.node_id for node in strangers])
        assert (await reader.publish(CID)).copies == 3
        record = await reader.service.read(task(CID), timeout_s=5)
        assert record is not None


async def test_who_is_redirected_is_introduced_to_the_keepers(autojump_clock: MockClock) -> None:
    async with record_cluster(6) as cluster:
        await cluster.nodes[0].publish(CID)
        keepers = {node.node_id for node in cluster.keepers(CID)}
        strangers = [node for node in cluster.nodes if node.node_id not in keepers]
        reader, writer, _ = strangers
        for one in (reader, writer):
            one.ring = one.ring.with_members([strangers[2].node_id])
        assert await reader.service.read(task(CID), timeout_s=5)
        assert set(reader.met) == keepers
        await writer.publish(CID)
        assert set(writer.met) == keepers


async def test_who_asks_a_keeper_by_another_ring_is_introduced_to_the_others(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(6) as cluster:
        await cluster.nodes[0].publish(CID)
        keeper, *others = cluster.keepers(CID)
        reader = next(node for node in cluster.nodes if node not in (keeper, *others))
        assert await reader.service.read(task(CID), timeout_s=5)
        assert not reader.met
        reader.ring = reader.ring.with_members([keeper.node_id])
        found = await reader.service.read(task(CID), timeout_s=5)
        assert found is not None
        assert {node.node_id for node in others} <= set(reader.met)


async def test_no_keeper_can_send_on_to_accomplices_that_are_no_schedulers(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(5) as cluster:
        liar, *_ = cluster.keepers(CID)
        accomplices = [await cluster.add(is_scheduler=False) for _ in range(2)]
        cluster.bystanders = [node.node_id for node in accomplices]
        reader = next(node for node in cluster.nodes if node not in cluster.keepers(CID))
        await reader.publish(CID)
        false = RecordEntry(manifests=(manifest(CID, 1, "false").signed,))

        async def send_on(_peer: Peer, _message: ReadRecord) -> RecordAnswer:
            return RecordAnswer(
                state="not_keeper", keepers=tuple(node.node_id for node in accomplices)
            )

        async def lie(_peer: Peer, _message: ReadRecord) -> RecordAnswer:
            return RecordAnswer(state="held", entry=false, settled=True)

        liar.links.replace(ReadRecord, send_on)
        for node in accomplices:
            node.links.replace(ReadRecord, lie)
        reader.ring = reader.ring.with_members([liar.node_id])
        with pytest.raises(TimedOut):
            await reader.service.read(task(CID), timeout_s=2)


async def test_a_write_does_not_wait_for_an_owner_that_hangs(autojump_clock: MockClock) -> None:
    async with record_cluster(4) as cluster:
        owner, *_ = cluster.keepers(CID)
        writer = next(node for node in cluster.nodes if node not in cluster.keepers(CID))
        cluster.board.silence(owner.node_id)
        started = trio.current_time()
        assert (await writer.publish(CID)).copies == 2
        assert trio.current_time() - started < 0.7


async def test_a_keeper_whose_own_disk_fails_writes_through_the_others(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(4) as cluster:
        owner, *_ = cluster.keepers(CID)
        owner.disk.fail_next("sync")
        assert (await owner.publish(CID)).copies == 2


async def test_two_coordinators_of_one_write_make_one_record(autojump_clock: MockClock) -> None:
    """The owner is slow, not dead: the writer asks the next keeper, then both go on."""
    async with record_cluster(4, config=RecordConfig(write_budget_s=0.0005)) as cluster:
        writer = next(node for node in cluster.nodes if node not in cluster.keepers(CID))
        first = await writer.publish(CID, "one")
        assert not first.adopted
        deletion = tombstone(first.manifest)
        await writer.service.bury(deletion, timeout_s=5)
        second = await writer.publish(CID, "two")
        await trio.sleep(12)  # provisional entries that nobody commits expire
        for keeper in cluster.keepers(CID):
            record = keeper.service.local(task(CID))
            assert record is not None
            assert record.manifest == second.manifest


async def test_a_keeper_that_missed_a_deletion_is_not_believed_alone(
    autojump_clock: MockClock,
) -> None:
    proven = "sha256:" + "ab" * 32
    async with record_cluster(4) as cluster:
        owner = cluster.keepers(proven)[0]
        reader = next(node for node in cluster.nodes if node not in cluster.keepers(proven))
        published = await reader.publish(proven)
        cluster.board.silence(owner.node_id)
        assert await reader.service.bury(tombstone(published.manifest), timeout_s=5) == 2
        cluster.board.revive(owner.node_id)
        record = await reader.service.read(task(proven), timeout_s=1)
        assert record is not None
        assert record.manifest is None


async def test_a_keeper_vouches_for_nothing_to_one_that_it_believes_dead(
    autojump_clock: MockClock,
) -> None:
    async with record_cluster(3) as cluster:
        await cluster.nodes[0].publish(CID)
        owner, asker, _ = cluster.keepers(CID)

        async def is_settled() -> bool:
            question = ReadRecord(task_id=task(CID))
            answer = await asker.links.request(owner.node_id, question, RecordAnswer, 1)
            return answer.settled

        assert await is_settled()
        cluster.dead.add(asker.node_id)
        assert not await is_settled()
