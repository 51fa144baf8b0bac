"""The hunt: mutant by mutant, seed by seed, until a scenario reports a violation; then the tree
without mutants plays the same runs, so that no mutant counts as found by a broken scenario."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sim.mutation.mutant import Mutant
from sim.mutation.trial import Outcome, Played, play_apart, play_without


@dataclass(frozen=True, slots=True)
class Hunt:
    """What was played to find one mutant."""

    mutant: Mutant
    played: tuple[Outcome, ...]

    @property
    def found(self) -> Outcome | None:
        """The run that found it."""
        last = self.played[-1] if self.played else None
        return last if last is not None and last.violation is not None else None

    @property
    def seeds(self) -> int:
        """How many seeds were tried."""
        return len({outcome.seed for outcome in self.played})

    @property
    def cpu_s(self) -> float:
        """Processor time of all its runs."""
        return round(sum(outcome.cpu_s for outcome in self.played), 1)


def hunt_all(
    mutants: Iterable[Mutant],
    seeds: Sequence[int],
    jobs: int,
    *,
    scenarios: Sequence[str] = (),
    shrink_s: float = 0.0,
) -> Iterator[Hunt]:
    """Hunts each, `jobs` at a time, in the order given; in `scenarios` instead of its own, if
    there are any. What finds it is made smaller for `shrink_s` of processor time."""

    def hunt(mutant: Mutant) -> Hunt:
        names = scenarios or mutant.scenarios
        runs = [(scenario, seed) for seed in seeds for scenario in names]
        return Hunt(mutant, tuple(play_apart(mutant.name, runs, shrink_s)))

    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(hunt, mutants)


def innocent(hunts: Iterable[Hunt], jobs: int) -> list[Outcome]:
    """The runs of `hunts` once more, without any mutant."""
    runs: set[Played] = {(one.scenario, one.seed) for hunt in hunts for one in hunt.played}
    ordered = sorted(runs)
    parts = [part for start in range(jobs) if (part := ordered[start::jobs])]
    with ThreadPoolExecutor(jobs) as pool:
        return [outcome for played in pool.map(play_without, parts) for outcome in played]
