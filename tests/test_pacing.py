"""Token buckets: no more than rate and burst, in turn, and changed while they are in use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipcache.ids import TaskId
from gossipcache.pacing import BURST_S, SLICE_BYTES, Direction, Pace, TokenBucket

MIB = 2**20
ONE, OTHER = TaskId(b"1" * 16), TaskId(b"2" * 16)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 50)), max_size=30))
def test_a_bucket_gives_no_more_than_burst_and_rate(
    takes: list[tuple[float, float]],
) -> None:
    bucket, now, taken = TokenBucket(rate=10, burst=20), 0.0, 0.0
    for wait, amount in takes:
        now += wait
        taken += amount
        now += bucket.take(amount, now)
        assert taken <= 20 + 10 * now + 1e-6


def send(pace: Pace, size_bytes: int, now: float) -> float:
    """Sends so much in slices, and returns when the last of them went."""
    for _ in range(size_bytes // SLICE_BYTES):
        pace.take(SLICE_BYTES, now)
        now = max(now, pace.paid_at())
    return now


def test_a_direction_holds_its_rate() -> None:
    pace = Direction(rate=MIB).pace(ONE)
    assert send(pace, 100 * MIB, now=0.0) == pytest.approx(100 - BURST_S)


def test_without_a_limit_nothing_waits() -> None:
    pace = Direction().pace(ONE)
    assert not pace.is_limited
    assert send(pace, 100 * MIB, now=5.0) == 5.0


def test_debts_are_paid_in_the_order_they_were_made() -> None:
    direction = Direction(rate=MIB)
    first, second = direction.pace(ONE), direction.pace(OTHER)
    first.take(MIB, 0.0)
    second.take(2 * MIB, 0.0)
    first_at = first.paid_at()
    assert [first_at, second.paid_at()] == pytest.approx([1 - BURST_S, 3 - BURST_S])
    first.take(MIB, first_at)
    assert first.paid_at() == pytest.approx(4 - BURST_S), "behind the other one"


def test_a_task_has_a_rate_of_its_own_within_that_of_the_node() -> None:
    direction = Direction(rate=10 * MIB, task_rate=2 * MIB)
    assert send(direction.pace(ONE), 20 * MIB, now=0.0) == pytest.approx(10 - BURST_S)
    direction.set_task_rate(OTHER, None, now=10.0)
    assert send(direction.pace(OTHER), 20 * MIB, now=10.0) == pytest.approx(12 - BURST_S)


def test_two_transfers_of_a_task_share_its_rate() -> None:
    direction = Direction(task_rate=MIB)
    paces = direction.pace(ONE), direction.pace(ONE)
    for pace in paces:
        pace.take(MIB, 0.0)
    assert [pace.paid_at() for pace in paces] == pytest.approx([1 - BURST_S, 2 - BURST_S])


def test_what_is_owed_follows_a_change_of_the_rate() -> None:
    direction = Direction(rate=MIB)
    pace = direction.pace(ONE)
    pace.take(10 * MIB, 0.0)
    assert pace.paid_at() == pytest.approx(10 - BURST_S)
    direction.set_rate(9 * MIB, now=1 - BURST_S)
    assert pace.paid_at() == pytest.approx(2 - BURST_S), "nine tenths are left"
    direction.set_rate(None, now=1.0)
    assert pace.paid_at() < 1.0
    direction.set_rate(MIB, now=50.0)
    assert send(pace, 10 * MIB, now=50.0) == pytest.approx(60), "nothing was saved up"


def test_a_task_goes_back_to_what_holds_for_every_task() -> None:
    direction = Direction(task_rate=2 * MIB)
    pace = direction.pace(ONE)
    direction.set_task_rate(ONE, MIB, now=0.0)
    assert (direction.rate_of(ONE), direction.rate_of(OTHER)) == (MIB, 2 * MIB)
    direction.forget_task_rate(ONE, now=0.0)
    direction.set_default(4 * MIB, now=0.0)
    assert direction.rate_of(ONE) == 4 * MIB
    assert send(pace, 40 * MIB, now=0.0) == pytest.approx(10, rel=0.05)
