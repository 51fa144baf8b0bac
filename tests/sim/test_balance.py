"""The ring spreads tasks evenly, and a change of members moves no more than it must."""

from __future__ import annotations

import pytest

from sim.balance import PEAK_BOUNDS, measure


@pytest.mark.parametrize(("schedulers", "rings"), [(10, 200), (100, 10)])
def test_shares_are_even_and_a_change_moves_only_those_of_its_node(
    schedulers: int, rings: int
) -> None:
    balance = measure(schedulers, rings, seed=1)
    assert balance.peak_over_mean <= PEAK_BOUNDS[schedulers]
    assert balance.strayed == 0
