"""Which parents are slow, by what the others give."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gossipcache.deviation import MIN_SAMPLES, behind_below, slow_below

RATES = st.lists(st.floats(0.0, 1e9), max_size=64)


def slow(rates: list[float]) -> list[float]:
    return [rate for rate in rates if rate < slow_below(rates)]


def test_one_in_ten_that_are_ten_times_slower_fall_out_of_line() -> None:
    quick = [90.0 + step for step in range(18)]
    assert slow([*quick, 9.0, 10.0]) == [9.0, 10.0]


def test_where_rates_scatter_widely_none_is_slow() -> None:
    assert slow([10.0, 30.0, 60.0, 100.0, 150.0, 200.0]) == []


def test_where_all_are_nearly_alike_a_slightly_slower_one_is_good_enough() -> None:
    assert slow([100.0] * 9 + [50.0]) == []


def test_of_a_few_none_is_called_slow() -> None:
    assert slow([100.0] * (MIN_SAMPLES - 2) + [1.0]) == []


def test_three_are_enough_for_who_has_no_more() -> None:
    assert slow_below([100.0, 90.0, 1.0], least=3) > 1.0
    assert slow_below([100.0, 1.0], least=3) == 0.0


@given(RATES)
def test_less_than_half_are_slow_and_never_one_above_the_median(rates: list[float]) -> None:
    found = slow(rates)
    assert 2 * len(found) < max(1, len(rates))
    assert all(rate < sorted(rates)[len(rates) // 2] for rate in found)


@given(RATES, st.floats(0.001, 1000.0))
def test_the_unit_of_the_rates_does_not_matter(rates: list[float], unit: float) -> None:
    scaled = slow_below([unit * rate for rate in rates])
    assert abs(scaled - unit * slow_below(rates)) <= 1e-6 * unit * max(rates, default=0.0)


@given(RATES)
def test_their_order_does_not_matter(rates: list[float]) -> None:
    assert slow_below(rates[::-1]) == slow_below(rates)


def test_who_is_behind_is_told_by_how_far_the_others_are_apart() -> None:
    together, scattered = [200, 201, 203, 204, 206], [150, 180, 200, 220, 250]
    assert behind_below(together) > 190
    assert behind_below(scattered) < 190
