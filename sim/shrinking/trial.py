"""Plays the cases of a search for a smaller failing run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from sim.faults import AnyFault
from sim.faults import kind_of as kind_of_fault
from sim.recording import Recording
from sim.registry import Cut, Report, find, run
from sim.shrinking.shrink import Case, Shrinker
from sim.shrinking.violation import kind_of

_PATIENCE = 1.5
_PATIENCE_S = 10.0
"""A case that has not failed after this many times the virtual time that the failure took, and
as many seconds more, passes."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a search may cost. Only a number of runs gives the same result everywhere."""

    seconds: float = 60.0
    runs: int = 10_000


@dataclass(frozen=True, slots=True)
class Shrunk:
    """What a search came to."""

    recording: Recording
    invariant: str
    """The kind of the violation that was kept."""
    before: int
    """Faults in the run that was given; those after the violation not counted."""
    after: int
    runs: int
    seconds: float
    is_finished: bool
    """Whether nothing smaller was left to try when the search ended."""


class Trial:
    """Whether a scenario, played with other faults and nodes, breaks the same invariant."""

    def __init__(self, recording: Recording, any_of: int = 1) -> None:
        self.seed = recording.seed
        """That of the last run that failed."""
        self.runs = 0
        self.invariant = ""
        """The kind of the violation that is looked for; known once `start` has found it."""
        self._scenario = find(recording.scenario)
        self._seeds = range(recording.seed, recording.seed + any_of)
        self._recording = recording
        self._cut = Cut(lambda violation: True)

    def start(self) -> Case | None:
        """Plays the recorded run up to its first violation, which is the one to be kept, and
        gives what was asked for until then. None if it does not fail."""
        given = self._recording
        self.runs += 1
        report = run(self._scenario, given.seed, given.nodes, plan=given.faults, cut=self._cut)
        if not report.violations:
            return None
        self.invariant = invariant = kind_of(report.violations[0])
        self._cut = Cut(lambda violation: kind_of(violation) == invariant)
        self._allow(report.virtual_s)
        faults = msgspec.convert(report.schedule, list[AnyFault | None])
        return Case(given.nodes, tuple(faults))

    def play(self, case: Case) -> int | None:
        """How many faults were asked for until the invariant broke; None if it held, with each
        of the seeds."""
        for seed in sorted(self._seeds, key=lambda seed: seed != self.seed):
            report = self._run(case, seed)
            if report is not None and any(self._cut.at(each) for each in report.violations):
                self.seed = seed
                self._allow(report.virtual_s)
                return len(report.schedule)
        return None

    def record(self, case: Case) -> Recording:
        """The whole run of a case that fails."""
        self.runs += 1
        report = run(self._scenario, self.seed, case.nodes, plan=case.faults)
        return Recording(
            scenario=self._scenario.name,
            seed=self.seed,
            nodes=case.nodes,
            digest=report.digest,
            violations=report.violations,
            faults=list(case.faults),
        )

    def _run(self, case: Case, seed: int) -> Report | None:
        self.runs += 1
        try:
            return run(self._scenario, seed, case.nodes, plan=case.faults, cut=self._cut)
        except Exception:
            # The scenario cannot be played so: a node that it needs is gone, say.
            return None

    def _allow(self, virtual_s: float) -> None:
        """A run that takes much longer than one that failed passes; unless what is looked for
        is a run that does not end."""
        if not self.invariant.startswith("time limit"):
            self._cut = Cut(self._cut.at, virtual_s * _PATIENCE + _PATIENCE_S)


def shrink(
    recording: Recording,
    budget: Budget,
    any_of: int = 1,
    tell: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.monotonic,
) -> Shrunk | None:
    """The smallest run found that breaks the invariant which the recorded one breaks first;
    None if it breaks none. `tell` is told of progress; `clock` measures the budget's seconds."""
    started = clock()
    trial = Trial(recording, any_of)
    case = trial.start()
    if case is None:
        return None
    tell(f"violated: {trial.invariant}")
    search = Shrinker(case)
    before = len(search.best.places)
    while (proposed := search.propose()) is not None:
        if trial.runs >= budget.runs or clock() - started >= budget.seconds:
            break
        smallest = search.best
        search.judge(trial.play(proposed))
        if search.best != smallest:
            tell(_progress(search.best, trial.runs, clock() - started))
    return Shrunk(
        trial.record(search.best),
        trial.invariant,
        before,
        len(search.best.places),
        trial.runs,
        round(clock() - started, 3),
        search.propose() is None,
    )


def _progress(case: Case, runs: int, elapsed_s: float) -> str:
    kinds = [kind_of_fault(fault) for fault in case.faults if fault is not None]
    return f"run {runs:3}, {elapsed_s:5.1f} s: {case.nodes} nodes, {', '.join(kinds) or 'no fault'}"
