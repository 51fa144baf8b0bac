"""The peer's core: what is told to whom, and when."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from gossipcache.identity import Signed
from gossipcache.ids import NodeId, TaskId
from gossipcache.messages.announcements import AnnounceReply, DeletedTask, HeartbeatReply
from gossipcache.schedule.announcement import AnnouncementBatch, LeaseHeartbeat
from gossipcache.schedule.announcer import (
    SWEEP_TASKS,
    Announcer,
    DropDeleted,
    Effect,
    RestoreRecord,
    SendBatch,
    SendHeartbeat,
)
from gossipcache.wire import decode
from tests.schedule.fixtures import (
    CLUSTER,
    CONFIG,
    WALL,
    held_of,
    identity,
    manifest_of,
    tombstone_of,
)

ONE, TWO, THREE = (identity(number).node_id for number in (101, 102, 103))
TASK = manifest_of("a")
OTHER = manifest_of("b")


class Holder:
    """An announcer, and what its keepers would answer."""

    def __init__(self) -> None:
        self.keepers: dict[TaskId, tuple[NodeId, ...]] = {}
        self.default: tuple[NodeId, ...] = (ONE, TWO)
        self.dead: set[NodeId] = set()
        self.now = 0.0
        self.core = Announcer(
            CONFIG,
            identity(2),
            CLUSTER.cluster_id,
            lambda task_id: self.keepers.get(task_id, self.default),
            lambda node_id: node_id not in self.dead,
            random.Random(1),
        )

    def due(self) -> list[Effect]:
        """What is sent now."""
        return self.core.handle_timeout(self.now, WALL + self.now)

    def batches(self) -> dict[NodeId, AnnouncementBatch]:
        """The batches sent now."""
        return {sent.keeper: opened(sent) for sent in self.due() if isinstance(sent, SendBatch)}

    def run(self, seconds: float, answer: bool = True) -> list[SendBatch | SendHeartbeat]:
        """Lets time pass, with every statement taken as it is; what was sent."""
        sent: list[SendBatch | SendHeartbeat] = []
        end = self.now + seconds
        while (due := self.core.next_timeout()) is not None and due <= end:
            self.now = max(self.now, due)
            for effect in self.due():
                assert isinstance(effect, SendBatch | SendHeartbeat)
                sent.append(effect)
                if answer:
                    self.take(effect)
        self.now = end
        return sent

    def take(self, sent: SendBatch | SendHeartbeat) -> None:
        """The keeper takes all of it."""
        if isinstance(sent, SendBatch):
            reply = AnnounceReply(sequence_seen=sent.sequence)
            assert self.core.batch_answered(sent.keeper, sent.sequence, reply, self.now) == []
        else:
            beat = HeartbeatReply(sequence_seen=sent.sequence)
            assert self.core.heartbeat_answered(sent.keeper, sent.sequence, beat, self.now) == []

    def answer(self, sent: SendBatch, reply: AnnounceReply) -> list[Effect]:
        return self.core.batch_answered(sent.keeper, sent.sequence, reply, self.now)


def opened(sent: SendBatch) -> AnnouncementBatch:
    return decode(sent.message.batch.payload, AnnouncementBatch)


def the_batch(effects: list[Effect], keeper: NodeId = ONE) -> SendBatch:
    (sent,) = [
        effect for effect in effects if isinstance(effect, SendBatch) and effect.keeper == keeper
    ]
    return sent


@pytest.fixture
def holder() -> Holder:
    """Holds TASK and has told its two keepers."""
    holder = Holder()
    holder.core.hold(held_of(TASK), 0.0)
    holder.run(0.0)
    return holder


def test_a_new_task_goes_to_all_its_keepers_at_once() -> None:
    holder = Holder()
    holder.core.hold(held_of(TASK), 0.0)
    batches = holder.batches()
    assert {keeper: batch.held for keeper, batch in batches.items()} == {
        ONE: (held_of(TASK),),
        TWO: (held_of(TASK),),
    }
    assert all(batch.fresh for batch in batches.values())


def test_nothing_is_sent_twice(holder: Holder) -> None:
    holder.core.hold(held_of(TASK), 0.0)
    assert holder.due() == []


def test_many_tasks_go_in_batches_one_after_the_other() -> None:
    holder = Holder()
    holder.default = (ONE,)
    for number in range(2000):
        holder.core.hold(held_of(manifest_of(f"task {number}", pieces=1)), 0.0)
    first = holder.due()
    assert len(first) == 1
    holder.take(the_batch(first))
    rest = [opened(sent) for sent in holder.run(0.0) if isinstance(sent, SendBatch)]
    assert [len(batch.held) for batch in rest] == [800, 400]
    assert not any(batch.fresh for batch in rest)


def test_progress_is_told_once_a_second_and_completion_at_once(holder: Holder) -> None:
    partial = manifest_of("partial")
    holder.core.hold(held_of(partial, 0), holder.now)
    holder.run(0.0)
    for pieces in range(1, 6):
        holder.core.hold(held_of(partial, pieces), holder.now)
    assert holder.due() == []
    told = [opened(sent).held for sent in holder.run(1.0) if isinstance(sent, SendBatch)]
    assert told == [(held_of(partial, 5),)] * 2
    holder.core.hold(held_of(partial), holder.now)
    assert set(holder.batches()) == {ONE, TWO}


def test_a_dropped_task_is_withdrawn(holder: Holder) -> None:
    holder.core.drop(TASK.task_id)
    batches = holder.batches()
    assert {batch.withdrawn for batch in batches.values()} == {(TASK.task_id,)}
    assert set(batches) == {ONE, TWO}


def test_what_was_never_told_is_not_withdrawn() -> None:
    holder = Holder()
    holder.core.hold(held_of(TASK), 0.0)
    holder.core.drop(TASK.task_id)
    assert holder.due() == []
    assert holder.core.next_timeout() is None


def test_each_keeper_gets_heartbeats_over_what_it_was_told(holder: Holder) -> None:
    holder.keepers[OTHER.task_id] = (ONE,)
    holder.core.hold(held_of(OTHER), 0.0)
    holder.run(0.0)
    beats = [sent for sent in holder.run(30.0) if isinstance(sent, SendHeartbeat)]
    statements = {
        sent.keeper: decode(sent.message.statement.payload, LeaseHeartbeat).entries
        for sent in beats
    }
    assert statements == {ONE: 2, TWO: 1}
    assert 8 <= len(beats) <= 16


def test_a_keeper_that_lost_track_is_told_everything_anew(holder: Holder) -> None:
    holder.now = 10.0
    (beat, _) = [sent for sent in holder.due() if isinstance(sent, SendHeartbeat)]
    reply = HeartbeatReply(resync=True, sequence_seen=beat.sequence)
    assert holder.core.heartbeat_answered(beat.keeper, beat.sequence, reply, holder.now) == []
    (batch,) = holder.batches().values()
    assert (batch.fresh, batch.held) == (True, (held_of(TASK),))


def test_on_a_ring_change_new_keepers_are_told_and_old_ones_left(holder: Holder) -> None:
    holder.default = (TWO, THREE)
    holder.core.ring_changed(holder.now)
    assert holder.due() == []
    sent = holder.run(2.0)
    batches = {one.keeper: opened(one) for one in sent if isinstance(one, SendBatch)}
    assert batches[ONE].withdrawn == (TASK.task_id,)
    assert batches[THREE].held == (held_of(TASK),)
    assert TWO not in batches


def test_a_ring_change_is_worked_off_in_slices() -> None:
    holder = Holder()
    holder.default = (ONE,)
    names = [held_of(manifest_of(f"task {number}", pieces=1)) for number in range(SWEEP_TASKS + 1)]
    for held in names:
        holder.core.hold(held, 0.0)
    holder.run(0.0)
    holder.default = (TWO,)
    holder.core.ring_changed(holder.now)
    sent = holder.run(2.0)
    told = [
        held
        for one in sent
        if isinstance(one, SendBatch) and one.keeper == TWO
        for held in opened(one).held
    ]
    assert sorted(told, key=lambda held: held.task_id) == sorted(
        names, key=lambda held: held.task_id
    )


def test_a_dead_keeper_is_forgotten_and_told_all_when_it_is_back(holder: Holder) -> None:
    holder.dead.add(ONE)
    holder.default = (TWO,)
    holder.core.ring_changed(holder.now)
    assert not [sent for sent in holder.run(60.0) if sent.keeper == ONE]
    holder.dead.clear()
    holder.default = (ONE, TWO)
    holder.core.ring_changed(holder.now)
    (batch,) = [opened(sent) for sent in holder.run(2.0) if isinstance(sent, SendBatch)]
    assert (batch.fresh, batch.held) == (True, (held_of(TASK),))


def test_an_unanswered_batch_is_sent_again_with_growing_pauses() -> None:
    holder = Holder()
    holder.default = (ONE,)
    holder.core.hold(held_of(TASK), 0.0)
    times: list[float] = []
    for _ in range(5):
        due = holder.core.next_timeout()
        assert due is not None
        holder.now = max(holder.now, due)
        times.append(holder.now)
        sent = the_batch(holder.due())
        assert (opened(sent).fresh, opened(sent).held) == (True, (held_of(TASK),))
        holder.core.failed(ONE, sent.sequence, holder.now)
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses == sorted(pauses)
    assert pauses[-1] > 1.0


def test_a_late_answer_to_a_batch_given_up_is_ignored(holder: Holder) -> None:
    holder.core.hold(held_of(OTHER), holder.now)
    sent = the_batch(holder.due())
    holder.dead.add(ONE)
    holder.core.ring_changed(holder.now)
    assert holder.answer(sent, AnnounceReply(unknown=(OTHER.task_id,))) == []


def test_a_missing_record_is_restored_and_the_entry_repeated(holder: Holder) -> None:
    holder.core.hold(held_of(OTHER), holder.now)
    sent = the_batch(holder.due())
    assert holder.answer(sent, AnnounceReply(unknown=(OTHER.task_id,))) == [
        RestoreRecord(OTHER.task_id)
    ]
    again = [one for one in holder.run(2.0) if one.keeper == ONE]
    assert [opened(one).held for one in again if isinstance(one, SendBatch)] == [(held_of(OTHER),)]
    assert not [one for one in holder.run(60.0) if isinstance(one, SendBatch)]


def test_a_deletion_is_handed_on_and_the_entry_not_counted_as_told(holder: Holder) -> None:
    holder.core.hold(held_of(OTHER), holder.now)
    sent = the_batch(holder.due())
    tombstone = tombstone_of(OTHER)
    proof = DeletedTask(task_id=OTHER.task_id, tombstone=tombstone.signed, manifest=OTHER.signed)
    assert holder.answer(sent, AnnounceReply(deleted=(proof,))) == [DropDeleted(proof)]
    holder.core.drop(OTHER.task_id)
    assert not [one for one in holder.run(4.0) if one.keeper == ONE]


def test_a_keeper_cannot_have_a_task_dropped_that_it_was_not_told_of(holder: Holder) -> None:
    holder.keepers[OTHER.task_id] = (TWO,)
    holder.core.hold(held_of(OTHER), holder.now)
    third = manifest_of("c")
    holder.core.hold(held_of(third), holder.now)
    sent = the_batch(holder.due())
    empty = Signed(b"", bytes(32), bytes(64))
    proof = DeletedTask(task_id=OTHER.task_id, tombstone=empty, manifest=empty)
    assert holder.answer(sent, AnnounceReply(deleted=(proof,))) == []


def test_after_its_clock_went_back_it_goes_on_above_what_was_seen(holder: Holder) -> None:
    holder.core.hold(held_of(OTHER), holder.now)
    sent = the_batch(holder.due())
    seen = sent.sequence + 10**12
    holder.answer(sent, AnnounceReply(dropped="replayed", sequence_seen=seen))
    (again,) = [one for one in holder.run(1.0) if one.keeper == ONE]
    assert again.sequence == seen + 1


def test_settled_means_told_where_it_can_be(holder: Holder) -> None:
    holder.core.hold(held_of(OTHER), holder.now)
    assert not holder.core.is_settled(OTHER.task_id)
    effects = holder.due()
    first, second = the_batch(effects, ONE), the_batch(effects, TWO)
    holder.take(first)
    assert not holder.core.is_settled(OTHER.task_id)
    holder.core.failed(TWO, second.sequence, holder.now)
    assert holder.core.is_settled(OTHER.task_id)


def test_with_no_keeper_nothing_is_settled() -> None:
    holder = Holder()
    holder.default = ()
    holder.core.hold(held_of(TASK), 0.0)
    assert not holder.core.is_settled(TASK.task_id)
