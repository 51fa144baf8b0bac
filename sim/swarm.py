"""Many runs in several processes, and what they come to."""

from __future__ import annotations

import logging
import multiprocessing
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from sim.registry import Report, find, run

RUNS_PER_PROCESS = 50
"""A process is replaced after as many runs: each leaves the litter of a torn-down world."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run to be made."""

    scenario: str
    seed: int
    nodes: int | None = None


@dataclass(slots=True)
class Summary:
    """What the runs of one scenario came to."""

    scenario: str
    runs: int = 0
    failed: list[int] = field(default_factory=list)
    """The seeds whose run violated an invariant."""
    vacuous: list[int] = field(default_factory=list)
    """The seeds in whose run a fault never took effect."""
    virtual_s: float = 0.0
    wall_s: float = 0.0
    metrics: dict[str, list[float]] = field(default_factory=dict)
    """All values of each metric."""

    def add(self, report: Report) -> None:
        """Counts a run in."""
        self.runs += 1
        if report.violations:
            self.failed.append(report.seed)
        if report.vacuous:
            self.vacuous.append(report.seed)
        self.virtual_s += report.virtual_s
        self.wall_s += report.wall_s
        for name, value in report.metrics.items():
            self.metrics.setdefault(name, []).append(value)

    def spread(self) -> dict[str, dict[str, float]]:
        """Median and maximum of each metric."""
        return {
            name: {"median": statistics.median(values), "max": max(values)}
            for name, values in sorted(self.metrics.items())
        }


def play_all(runs: Iterable[Run], jobs: int) -> Iterator[Report]:
    """The reports of `runs`, in their order, from `jobs` processes."""
    # Spawned, not forked: each process begins like `python -m sim run`.
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, initializer=_hush, maxtasksperchild=RUNS_PER_PROCESS) as pool:
        yield from pool.imap(_play, runs)


def _hush() -> None:
    logging.basicConfig(level=logging.CRITICAL)


def _play(each: Run) -> Report:
    return run(find(each.scenario), each.seed, each.nodes)
