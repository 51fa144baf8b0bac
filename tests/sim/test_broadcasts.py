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


@pytest.mark.parametrize(
    ("name", "nodes", "seed"),
    [
        ("broadcast", 5, 1),
        ("broadcast", 9, 2),
        ("broadcast", 20, 3),
        ("broadcast-crashes", 20, 4),
        ("broadcast-slow", 20, 5),
    ],
)
def test_the_endgame_wastes_less_than_a_hundredth(name: str, nodes: int, seed: int) -> None:
    assert played(name, nodes, seed).metrics["wasted %"] <= 1.0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_swarm_outlives_its_owner_and_fetches_nothing_twice(seed: int) -> None:
    metrics = played("broadcast-owner-dies", 12, seed).metrics
    assert metrics["last heard of s"] <= 5.0
    assert metrics["fetched twice %"] <= 1.0


@pytest.mark.parametrize("name", ["broadcast-zones", "broadcast-zones-crashes"])
def test_a_file_crosses_into_a_zone_about_once_by_several_children(name: str) -> None:
    metrics = played(name, 30, 1).metrics
    assert metrics["copies into a zone at most"] <= 1.2
    assert metrics["ratio"] <= 1.5


def test_a_broadcast_takes_little_more_than_the_bound() -> None:
    assert played("broadcast", 60, 1).metrics["ratio"] <= 1.2
