"""The child's end of a session, as a transcript: whom it asks, when, and what it says."""

from __future__ import annotations

import random

import pytest

from gossipcache.ids import NodeId
from gossipcache.messages.sessions import (
    AssignParents,
    PieceRun,
    RegisterPeer,
    ReportPieces,
    SessionReply,
)
from gossipcache.schedule.conversation import FIRST_TIMEOUT_S, Ask, Conversation
from gossipcache.swarm import PieceReport
from tests.schedule.fixtures import CONFIG, identity, manifest_of

TASK = manifest_of("a")
OWNER, SECOND, THIRD, SEED, OTHER = (identity(n).node_id for n in (101, 102, 103, 2, 4))


class Talk:
    """A conversation about TASK, whose child has piece 0, with three keepers on the ring."""

    def __init__(self) -> None:
        self.keepers = (OWNER, SECOND, THIRD)
        self.dead: set[NodeId] = set()
        self.core = Conversation(
            CONFIG,
            TASK,
            (0,),
            number=7,
            keepers_of=lambda task_id: self.keepers,
            is_alive=lambda node_id: node_id not in self.dead,
            rng=random.Random(1),
        )

    def ask(self, now: float) -> Ask:
        asked = self.core.next_ask(now)
        assert asked is not None
        return asked

    def registered(self) -> Conversation:
        assert self.ask(0.0).keeper == OWNER
        self.core.answered(SessionReply(status="assigned", version=1, parents=(SEED,)), 0.0)
        return self.core


def test_it_registers_with_the_owner_and_learns_its_parents() -> None:
    talk = Talk()
    asked = talk.ask(0.0)
    assert (asked.keeper, asked.timeout_s) == (OWNER, FIRST_TIMEOUT_S)
    assert isinstance(asked.message, RegisterPeer)
    assert asked.message.have == (PieceRun(0, 1),)
    assert talk.core.next_ask(0.0) is None, "one request at a time"
    talk.core.answered(SessionReply(status="assigned", version=1, parents=(SEED,)), 0.1)
    assert talk.core.parents == (SEED,)


def test_what_came_in_is_reported_together() -> None:
    core = Talk().registered()
    assert core.next_timeout() == CONFIG.lease_interval_s, "nothing to tell but that it lives"
    for piece in (1, 2, 4):
        core.report((piece,), (PieceReport(SEED, (piece,), 1024, 0.25, 0),))
    assert core.next_timeout() == CONFIG.report_interval_s
    asked = core.next_ask(CONFIG.report_interval_s)
    assert asked is not None
    assert isinstance(asked.message, ReportPieces)
    assert asked.message.have == (PieceRun(1, 2), PieceRun(4, 1))
    assert [(each.size_bytes, each.elapsed_ms) for each in asked.message.reports] == [(3072, 750)]


def test_a_failed_parent_is_told_at_once() -> None:
    core = Talk().registered()
    core.failed(SEED, "it lied")
    asked = core.next_ask(0.01)
    assert asked is not None
    assert isinstance(asked.message, ReportPieces)
    assert [each.parent for each in asked.message.failed] == [SEED]


def test_pieces_of_a_report_that_was_lost_go_to_the_next_keeper() -> None:
    talk = Talk()
    core = talk.registered()
    core.report((1,), ())
    assert talk.ask(0.25).keeper == OWNER
    core.unanswered(2.25)
    asked = talk.ask(2.25)
    assert asked.keeper == SECOND
    assert isinstance(asked.message, RegisterPeer)
    assert (asked.message.have, asked.message.parents) == ((PieceRun(0, 2),), (SEED,))


def test_keepers_that_all_fail_are_tried_again_after_a_rest() -> None:
    talk = Talk()
    for keeper in talk.keepers:
        assert talk.ask(0.0).keeper == keeper
        talk.core.unanswered(0.0)
    assert talk.core.next_ask(0.0) is None
    again = talk.core.next_timeout()
    assert again is not None
    assert 0.0 < again < 1.0
    assert talk.ask(again).keeper in talk.keepers


def test_a_change_of_the_ring_is_news_only_where_it_concerns_the_owner() -> None:
    talk = Talk()
    core = talk.registered()
    talk.keepers = (OWNER, THIRD, SECOND)
    core.ring_changed()
    assert core.next_ask(1.0) is None
    talk.keepers = (THIRD, OWNER, SECOND)
    core.ring_changed()
    assert talk.ask(1.0).keeper == THIRD


@pytest.mark.parametrize("sender", [OWNER, SECOND])
def test_only_the_present_keeper_pushes_parents(sender: NodeId) -> None:
    core = Talk().registered()
    pushed = AssignParents(task_id=TASK.task_id, session=7, version=2, parents=(OTHER,))
    core.assigned(pushed, sender)
    assert core.parents == ((OTHER,) if sender == OWNER else (SEED,))


def test_a_keeper_that_forgot_the_session_gets_it_anew() -> None:
    talk = Talk()
    core = talk.registered()
    assert isinstance(talk.ask(CONFIG.lease_interval_s).message, ReportPieces)
    core.answered(SessionReply(status="unregistered"), 5.0)
    asked = talk.ask(5.0)
    assert asked.keeper == OWNER
    assert isinstance(asked.message, RegisterPeer)


def test_who_leaves_says_whether_it_has_all() -> None:
    core = Talk().registered()
    for is_complete in (False, True):
        farewell = core.leave()
        assert farewell is not None
        assert (farewell[0], farewell[1].complete) == (OWNER, is_complete)
        core.report(range(8), ())
