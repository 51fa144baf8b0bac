"""What children's measurements come to."""

from __future__ import annotations

from gossipcache.ids import NodeId
from gossipcache.schedule.standing import RATE_GAIN, Standings

ANNE, BERT, QUICK, SLOW = (NodeId(name * 16) for name in (b"a", b"b", b"q", b"s"))


def test_the_rate_is_a_moving_average() -> None:
    standings = Standings()
    assert standings.rate_bytes_s(ANNE) is None
    standings.measured(ANNE, QUICK, 1000, 1.0)
    standings.measured(ANNE, QUICK, 2000, 1.0)
    assert standings.rate_bytes_s(ANNE) == 1000 + RATE_GAIN * 1000


def test_a_child_that_gets_little_of_everybody_says_nothing_against_its_parents() -> None:
    standings = Standings()
    for parent in (ANNE, BERT):
        standings.measured(parent, QUICK, 1000, 1.0)
    standings.measured(ANNE, SLOW, 10, 1.0)
    for _ in range(9):
        standings.measured(BERT, SLOW, 10, 1.0)
    assert standings.rate_bytes_s(BERT) == 1000


def test_a_parent_that_gives_less_than_a_child_gets_of_others_falls() -> None:
    standings = Standings()
    for parent in (ANNE, BERT):
        standings.measured(parent, QUICK, 1000, 1.0)
    standings.measured(BERT, QUICK, 100, 1.0)
    assert standings.rate_bytes_s(ANNE) == 1000
    assert standings.rate_bytes_s(BERT) == 1000 - RATE_GAIN * 900


def test_a_parent_that_gives_somewhat_less_than_it_did_falls() -> None:
    standings = Standings()
    standings.measured(ANNE, QUICK, 1000, 1.0)
    standings.measured(ANNE, QUICK, 600, 1.0)
    assert standings.rate_bytes_s(ANNE) == 1000 - RATE_GAIN * 400


def test_a_parent_that_was_measured_by_a_slow_child_first_rises() -> None:
    standings = Standings()
    standings.measured(ANNE, SLOW, 10, 1.0)
    for _ in range(20):
        standings.measured(ANNE, QUICK, 1000, 1.0)
    rate = standings.rate_bytes_s(ANNE)
    assert rate is not None
    assert rate > 900
