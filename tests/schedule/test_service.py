"""Whole nodes over a small network: announcing, finding holders, sessions that move."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from gossipcache.errors import NodeUnreachable, TaskNotFound, TimedOut
from gossipcache.ids import NodeId
from gossipcache.messages.announcements import Announce, AnnounceReply
from gossipcache.messages.sessions import AssignParents, RegisterPeer, ReportPieces
from gossipcache.schedule.announcement import sign_batch
from gossipcache.schedule.service import AnnounceService, HolderInfo
from gossipcache.swarm import PieceReport
from tests.schedule.fixtures import (
    WALL,
    Cast,
    Record,
    batch_of,
    held_of,
    identity,
    manifest_of,
    tombstone_of,
)

TASK = manifest_of("a")
ONE, TWO, THREE, SEED, CHILD = (identity(number).node_id for number in (101, 102, 103, 2, 3))


class Stage:
    """Three keepers; a seed that has announced TASK; a child."""

    def __init__(self, cast: Cast, seed: AnnounceService, child: AnnounceService) -> None:
        self.cast, self.seed, self.child = cast, seed, child

    def requests(self, kind: type, keeper: NodeId) -> int:
        return sum(
            target == keeper and isinstance(message, kind)
            for _, target, message in self.cast.fabric.sent
        )


async def set_stage(nursery: trio.Nursery) -> Stage:
    cast = Cast()
    for number in (101, 102, 103):
        await cast.add(nursery, number, keeper=True)
    seed = await cast.add(nursery, 2)
    child = await cast.add(nursery, 3)
    cast.publish(TASK)
    seed.set(TASK.task_id, TASK.name, 8, 8)
    await seed.flush(TASK.task_id, 5.0)
    return Stage(cast, seed, child)


async def test_what_is_flushed_is_found_by_anyone(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    expected = (HolderInfo(SEED, 8, complete=True),)
    assert (await stage.child.holders(TASK.task_id, 5.0)).known == expected
    assert (await stage.seed.holders(TASK.task_id, 5.0)).known == expected


async def test_a_dropped_task_is_not_found(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    stage.seed.drop(TASK.task_id)
    await trio.sleep(1.0)
    assert (await stage.child.holders(TASK.task_id, 5.0)).known == ()


async def test_an_unreachable_keeper_delays_neither_flush_nor_lookup_for_long(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    stage.cast.kill(101)
    stage.cast.fabric.silent.add(TWO)
    other = manifest_of("b")
    stage.seed.set(other.task_id, other.name, 8, 8)
    await stage.seed.flush(other.task_id, 6.0)
    started_at = trio.current_time()
    assert (await stage.child.holders(other.task_id, 5.0)).known == (
        HolderInfo(SEED, 8, complete=True),
    )
    assert trio.current_time() - started_at < 1.0


async def test_without_any_keeper_flush_and_lookup_say_so(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    for number in (101, 102, 103):
        stage.cast.kill(number)
    with pytest.raises(NodeUnreachable):
        await stage.child.holders(TASK.task_id, 5.0)
    stage.seed.set(manifest_of("b").task_id, bytes(32), 8, 8)
    with pytest.raises(TimedOut):
        await stage.seed.flush(manifest_of("b").task_id, 5.0)


async def test_a_keeper_that_hangs_does_not_hold_up_an_announcement(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    stage.cast.fabric.silent.add(TWO)
    other = manifest_of("b")
    stage.cast.publish(other)
    stage.seed.set(other.task_id, other.name, 8, 8)
    with trio.fail_after(0.5):
        await stage.seed.flush(other.task_id, 5.0)
    assert stage.seed.is_taken(other.task_id)


async def test_holders_of_a_generation_that_is_over_announce_themselves_anew(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    stage.cast.publish(manifest_of("a", generation=2))
    for scheduler in stage.cast.schedulers.values():
        scheduler.generation_over(TASK.task_id)
    await trio.sleep(10)
    assert not stage.seed.is_taken(TASK.task_id)
    assert (SEED, TASK.task_id) in stage.cast.restored


async def test_a_holder_stays_known_by_heartbeats_and_a_silent_one_does_not(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    await trio.sleep(300)
    assert (await stage.child.holders(TASK.task_id, 5.0)).known
    stage.cast.kill(2)
    await trio.sleep(31)
    assert (await stage.child.holders(TASK.task_id, 5.0)).known == ()


async def test_a_new_keeper_learns_the_holders_within_two_seconds(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    await stage.cast.add(nursery, 104, keeper=True)
    new = identity(104).node_id
    stage.cast.publish(TASK)
    stage.cast.set_ring(new, ONE, TWO)
    await trio.sleep(2.0)
    for number in (101, 102):
        stage.cast.kill(number)
    assert (await stage.child.holders(TASK.task_id, 5.0)).known == (
        HolderInfo(SEED, 8, complete=True),
    )


async def test_a_returning_holder_of_a_deleted_task_drops_it(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    stage.cast.kill(2)
    for keeper, scheduler in stage.cast.schedulers.items():
        stage.cast.records[keeper][TASK.task_id] = Record(tombstone=tombstone_of(TASK))
        scheduler.generation_over(TASK.task_id)
    await trio.sleep(60)
    stage.cast.fabric.down.clear()
    await trio.sleep(60)
    assert (SEED, TASK.task_id) in stage.cast.dropped
    assert (await stage.child.holders(TASK.task_id, 5.0)).known == ()


async def test_who_drops_a_task_can_wait_until_the_keepers_know(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    stage.seed.drop(TASK.task_id)
    await stage.seed.flush(TASK.task_id, 5.0)
    assert (await stage.child.holders(TASK.task_id, 5.0)).known == ()


async def test_a_keeper_without_the_record_has_it_restored(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    lost = manifest_of("lost")
    stage.seed.set(lost.task_id, lost.name, 8, 8)
    await stage.seed.flush(lost.task_id, 5.0)
    await trio.sleep(0.1)
    assert (SEED, lost.task_id) in stage.cast.restored


async def test_bad_announcements_are_dropped_and_counted(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    liar, sequence = identity(66), int(WALL * 1e6)
    links = stage.cast.fabric.links_of(liar)
    good = sign_batch(batch_of(held_of(TASK), sequence=sequence), liar)
    bad = {
        "forged": sign_batch(batch_of(held_of(TASK), sequence=2**60), identity(2)),
        "altered": liar.sign(b"another domain", good.payload),
        "replayed": good,
        "foreign": sign_batch(
            batch_of(held_of(TASK), sequence=sequence + 1, cluster_id=b"cluster2"), liar
        ),
        "expired": sign_batch(
            batch_of(held_of(TASK), sequence=sequence + 1, issued_at=0, expires_at=1), liar
        ),
    }
    taken = await links.request(ONE, Announce(batch=good), AnnounceReply, 5.0)
    assert taken.dropped is None
    stage.cast.dead.add(liar.node_id)
    for reason, signed in bad.items():
        reply = await links.request(ONE, Announce(batch=signed), AnnounceReply, 5.0)
        assert reply.dropped == reason
        assert stage.cast.metrics[ONE].value(f"announcements_dropped_{reason}") == 1
    assert (await stage.child.holders(TASK.task_id, 5.0)).known == (
        HolderInfo(SEED, 8, complete=True),
    )


async def test_a_session_is_told_its_parents(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    async with stage.child.session(TASK, ()) as swarm:
        assert await swarm.parents() == (SEED,)


async def test_a_better_parent_is_pushed(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    stage = await set_stage(nursery)
    second = await stage.cast.add(nursery, 4)
    async with stage.child.session(TASK, ()) as swarm:
        await swarm.parents()
        second.set(TASK.task_id, TASK.name, 8, 8)
        with trio.fail_after(1.0):
            assert set(await swarm.parents()) == {SEED, identity(4).node_id}


async def test_pieces_are_reported_in_batches_and_make_the_child_a_holder(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    async with stage.child.session(TASK, (0,)) as swarm:
        await swarm.parents()
        for piece in range(1, 6):
            report = PieceReport(SEED, (piece,), 1024, 0.01, 0)
            swarm.report((piece,), (report,))
            await trio.sleep(0.01)
        await trio.sleep(1.0)
        assert stage.requests(ReportPieces, ONE) <= 2
        found = (await stage.child.holders(TASK.task_id, 5.0)).known
        assert HolderInfo(CHILD, 6, complete=False) in found
    await trio.sleep(0.1)
    assert len((await stage.child.holders(TASK.task_id, 5.0)).known) == 1


async def test_when_the_owner_dies_the_session_moves_with_its_pieces(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    async with stage.child.session(TASK, (0, 1)) as swarm:
        assert await swarm.parents() == (SEED,)
        stage.cast.kill(101)
        swarm.report((2,), ())
        await trio.sleep(3.0)
        (moved,) = [
            message
            for _, target, message in stage.cast.fabric.sent
            if target == TWO and isinstance(message, RegisterPeer)
        ]
        assert sum(run.count for run in moved.have) == 3
        assert moved.parents == (SEED,)
        stage.cast.notice_death(101)
        swarm.report((3,), ())
        await trio.sleep(3.0)
        assert (
            HolderInfo(CHILD, 4, complete=False)
            in (await stage.child.holders(TASK.task_id, 5.0)).known
        )
        with trio.move_on_after(5.0):
            assert await swarm.parents() == (SEED,), "the parents never were in doubt"


async def test_a_silent_owner_is_left_too(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    stage = await set_stage(nursery)
    stage.cast.fabric.silent.add(ONE)
    async with stage.child.session(TASK, ()) as swarm:
        with trio.fail_after(3.0):
            assert await swarm.parents() == (SEED,)


async def test_two_keepers_may_die_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    stage.cast.kill(101)
    stage.cast.kill(102)
    async with stage.child.session(TASK, ()) as swarm:
        with trio.fail_after(3.0):
            assert await swarm.parents() == (SEED,)


async def test_while_no_scheduler_answers_it_keeps_trying(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    for number in (101, 102, 103):
        stage.cast.kill(number)
    async with stage.child.session(TASK, ()) as swarm:
        with trio.move_on_after(60.0) as waited:
            await swarm.parents()
        assert waited.cancelled_caught
        stage.cast.fabric.down.clear()
        with trio.fail_after(30.0):
            while SEED not in await swarm.parents():
                pass


async def test_when_the_owner_changes_the_session_follows(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    async with stage.child.session(TASK, ()) as swarm:
        await swarm.parents()
        stage.cast.set_ring(TWO, THREE, ONE)
        await trio.sleep(1.0)
        assert stage.requests(RegisterPeer, TWO) == 1


async def test_a_node_that_is_not_a_keeper_redirects(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    stranger = await stage.cast.add(nursery, 104, keeper=True)
    del stranger
    stage.cast.set_ring(ONE, TWO, THREE)
    lost = stage.child

    class StaleRing:
        epoch = b"stale"

        def keepers(self, task_id: object, count: int) -> tuple[NodeId, ...]:
            return (identity(104).node_id,)

    lost._ring = StaleRing
    assert (await lost.holders(TASK.task_id, 5.0)).known == (HolderInfo(SEED, 8, complete=True),)
    async with lost.session(TASK, ()) as swarm:
        with trio.fail_after(5.0):
            assert await swarm.parents() == (SEED,)


async def test_a_deleted_task_ends_the_session(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    async with stage.child.session(TASK, ()) as swarm:
        await swarm.parents()
        for keeper, scheduler in stage.cast.schedulers.items():
            stage.cast.records[keeper][TASK.task_id] = Record(tombstone=tombstone_of(TASK))
            scheduler.generation_over(TASK.task_id)
        with trio.fail_after(1.0), pytest.raises(TaskNotFound, match="was deleted"):
            await swarm.parents()
    assert (CHILD, TASK.task_id) in stage.cast.dropped, "what it had of it is gone"


async def test_a_deletion_of_an_older_generation_does_not_end_it(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    newer = manifest_of("a", generation=2)
    stage.cast.publish(newer)
    stage.seed.set(newer.task_id, newer.name, 8, 8)
    await stage.seed.flush(newer.task_id, 5.0)
    stage.cast.records[ONE][TASK.task_id] = Record(tombstone=tombstone_of(TASK))
    async with stage.child.session(newer, ()) as swarm:
        with trio.fail_after(5.0):
            assert await swarm.parents() == (SEED,)


async def test_only_the_present_keeper_assigns(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    async with stage.child.session(TASK, ()) as swarm:
        assert await swarm.parents() == (SEED,)
        (number,) = stage.child._sessions
        links = stage.cast.fabric.links_of(identity(66))
        await links.notify(
            CHILD,
            AssignParents(
                task_id=TASK.task_id,
                session=number,
                version=2**40,
                parents=(identity(66).node_id,),
            ),
        )
        with trio.move_on_after(5.0):
            assert await swarm.parents() == (), "a stranger's assignment was taken"


async def test_a_failed_parent_is_replaced_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    second = await stage.cast.add(nursery, 4)
    second.set(TASK.task_id, TASK.name, 8, 8)
    await second.flush(TASK.task_id, 5.0)
    async with stage.child.session(TASK, ()) as swarm:
        assert set(await swarm.parents()) == {SEED, identity(4).node_id}
        swarm.failed(SEED, "a piece did not match its digest")
        with trio.fail_after(0.1):
            assert await swarm.parents() == (identity(4).node_id,)


async def test_the_last_complete_copy_may_not_be_dropped(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    assert not await stage.seed.release(TASK.task_id, 5.0)
    stage.child.set(TASK.task_id, TASK.name, 7, 8)
    await stage.child.flush(TASK.task_id, 5.0)
    assert not await stage.seed.release(TASK.task_id, 5.0)


async def test_of_two_copies_only_one_may_be_dropped(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    stage.child.set(TASK.task_id, TASK.name, 8, 8)
    await stage.child.flush(TASK.task_id, 5.0)
    assert await stage.seed.release(TASK.task_id, 5.0)
    assert not await stage.child.release(TASK.task_id, 5.0)
    stage.seed.drop(TASK.task_id)
    await trio.sleep(60)
    assert not await stage.child.release(TASK.task_id, 5.0)


async def test_of_three_copies_one_goes_where_two_are_to_stay(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    third = await stage.cast.add(nursery, 4)
    for holder in (stage.child, third):
        holder.set(TASK.task_id, TASK.name, 8, 8)
        await holder.flush(TASK.task_id, 5.0)
    assert not await stage.seed.release(TASK.task_id, 5.0, others=3)
    assert await stage.seed.release(TASK.task_id, 5.0, others=2)
    assert not await stage.child.release(TASK.task_id, 5.0, others=2)


async def test_leave_to_drop_takes_most_of_the_keepers(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    stage = await set_stage(nursery)
    stage.child.set(TASK.task_id, TASK.name, 8, 8)
    await stage.child.flush(TASK.task_id, 5.0)
    stage.cast.kill(101)
    stage.cast.kill(102)
    assert not await stage.seed.release(TASK.task_id, 5.0)
    stage.cast.fabric.down.discard(TWO)
    await trio.sleep(31)
    assert await stage.seed.release(TASK.task_id, 5.0)
