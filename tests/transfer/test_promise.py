"""When a child that waits is told how long."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gossipcache.transfer.promise import LOOK_INTERVAL_S, REPEAT_S, TOLD_AFTER_S, Promise


def told(estimates: dict[float, float]) -> list[float]:
    """At which of the times the child is told, if it is likely to wait for so long from then on."""
    promise = Promise(0.0)
    return [now for now, wait_s in estimates.items() if promise.look(wait_s, now)]


def test_a_long_wait_is_told_at_once_and_a_short_one_never() -> None:
    assert told({0.0: 40.0}) == [0.0]
    assert told({0.0: 0.3, 0.9: 0.1}) == []


def test_who_waits_longer_than_was_thought_is_told_then() -> None:
    assert told({0.0: 0.3, 1.0: 0.3, TOLD_AFTER_S: 0.3}) == [TOLD_AFTER_S]


def test_what_comes_true_is_not_said_again_before_it_is_time_to() -> None:
    assert told({0.0: 40.0, 5.0: 35.0, REPEAT_S: 30.0, 15.0: 25.0}) == [0.0, REPEAT_S]


def test_what_proves_wrong_is_corrected() -> None:
    assert told({0.0: 8.0, 2.0: 20.0, 4.0: 3.0}) == [0.0, 2.0, 4.0]
    assert told({0.0: 8.0, 2.0: 7.0}) == [0.0], "by more than a quarter"


@given(st.lists(st.floats(0.0, 1000.0), max_size=60))
def test_whoever_looks_when_it_is_time_tells_at_a_bounded_rate(waits: list[float]) -> None:
    promise, now, told_at = Promise(0.0), 0.0, []
    for wait_s in waits:
        if promise.look(wait_s, now):
            told_at.append(now)
        assert now < promise.look_at
        now = promise.look_at
    gaps = [later - sooner for sooner, later in pairwise(told_at)]
    assert all(gap > LOOK_INTERVAL_S - 1e-9 for gap in gaps)
    assert all(gap < REPEAT_S + 1e-9 for gap in gaps)
