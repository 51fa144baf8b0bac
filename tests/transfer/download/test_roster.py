"""Which parents a download opens, and which it closes to make room."""

from __future__ import annotations

from gossipcache.config import TransferConfig
from gossipcache.ids import NodeId
from gossipcache.transfer.download.roster import Roster

FIRST, SECOND = NodeId(bytes([1]) * 32), NodeId(bytes([2]) * 32)


def test_a_roster_is_settled_while_exactly_the_assigned_parents_are_open() -> None:
    roster = Roster(TransferConfig())
    assert roster.is_settled

    roster.assign((FIRST, SECOND))
    assert not roster.is_settled
    list(roster.open(missing=100, now=0.0))
    assert roster.is_settled

    roster.assign((FIRST,))
    assert not roster.is_settled
    del roster.parents[SECOND]
    assert roster.is_settled


def test_a_parent_that_is_assigned_again_is_not_drained_any_more() -> None:
    roster = Roster(TransferConfig(max_active_parents=1))
    roster.assign((FIRST,))
    list(roster.open(missing=100, now=0.0))

    roster.assign((SECOND,))
    assert [parent.node for parent in roster.replaceable(now=0.0)] == [FIRST]
    assert roster.parents[FIRST].draining

    roster.assign((FIRST,))
    assert roster.is_settled
    assert not roster.parents[FIRST].draining
