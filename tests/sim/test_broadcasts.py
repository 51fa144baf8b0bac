"""The broadcasts, at sizes that take seconds."""

from __future__ import annotations

import pytest

from sim.registry import Report, find, run


def played(name: str, nodes: int, seed: int) -> Report:
    report = run(find(name), seed, nodes)
    assert report.violations == []
    return report


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_seed_sends_little_more_than_a_copy_to_eight_that_start_one_by_one(seed: int) -> None:
    report = played("broadcast-crowd", 9, seed)
    assert report.metrics["copies sent by the seed"] <= 1.5
    assert report.metrics["wasted %"] <= 1.0
