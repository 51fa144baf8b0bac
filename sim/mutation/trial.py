"""Runs of the simulator in a process of their own, in which one mutant is planted, or none.

Such a process reads its work as JSON from stdin and writes each run's outcome as a line of
JSON: `python -m sim.mutation.trial`.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from sim.mutation.catalogue import MUTANTS
from sim.mutation.mutant import plant

LIMIT_S = 300.0
"""Of processor time for one mutant: its bug may be a loop without an end."""
Played = tuple[str, int]
"""A scenario and a seed."""


@dataclass(frozen=True, slots=True)
class Shrinkage:
    """How much smaller the schedule of a failing run became."""

    before: int
    """Faults until the violation."""
    after: int
    runs: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run went."""

    scenario: str
    seed: int
    violation: str | None
    """The first that was reported, after its instant."""
    cpu_s: float
    shrinkage: Shrinkage | None = None


def play_apart(mutant: str, runs: Sequence[Played], shrink_s: float = 0.0) -> list[Outcome]:
    """Plays `runs` with a mutant in another process, up to the first violation, and makes what
    failed smaller for `shrink_s` of processor time."""
    limit_s = LIMIT_S + shrink_s
    return _play_apart({"mutant": mutant, "runs": runs, "limit_s": limit_s, "shrink_s": shrink_s})


def play_without(runs: Sequence[Played]) -> list[Outcome]:
    """Plays all of `runs` in another process without any mutant."""
    return _play_apart(
        {"mutant": None, "runs": runs, "limit_s": len(runs) * LIMIT_S, "shrink_s": 0}
    )


def _play_apart(work: dict[str, Any]) -> list[Outcome]:
    command = [sys.executable, "-m", "sim.mutation.trial"]
    done = subprocess.run(
        command, input=json.dumps(work), capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, -signal.SIGXCPU):
        raise RuntimeError(f"the runs with {work['mutant']} ended: {done.stderr[-2000:]}")
    return [msgspec.json.decode(line, type=Outcome) for line in done.stdout.splitlines()]


def main() -> None:
    """The other process."""
    work: dict[str, Any] = json.load(sys.stdin)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(work["limit_s"]), most))
    if work["mutant"] is not None:
        plant(MUTANTS[work["mutant"]])
    for scenario, seed in work["runs"]:
        outcome = _play(scenario, seed, work["shrink_s"])
        print(json.dumps(asdict(outcome)), flush=True)
        if outcome.violation is not None and work["mutant"]:
            return


def _play(scenario: str, seed: int, shrink_s: float) -> Outcome:
    from sim.registry import Cut, find, run  # with them comes the code with the bug

    started = time.process_time()
    try:
        wrong = run(find(scenario), seed, cut=Cut(at=lambda _: True)).violations
    except Exception as error:
        wrong = [f"{type(error).__name__}: {error}"]
    violation = wrong[0].split(" s: ", 1)[-1] if wrong else None
    cpu_s = round(time.process_time() - started, 3)
    shrinkage = _shrink(scenario, seed, shrink_s) if violation and shrink_s else None
    return Outcome(scenario, seed, violation, cpu_s, shrinkage)


def _shrink(scenario: str, seed: int, seconds: float) -> Shrinkage | None:
    from sim.recording import Recording
    from sim.registry import find
    from sim.shrinking.trial import Budget, shrink

    given = Recording(scenario=scenario, seed=seed, nodes=find(scenario).nodes)
    # Processor time, which does not hang on what else the machine does.
    found = shrink(given, Budget(seconds), clock=time.process_time)
    if found is None:
        return None
    return Shrinkage(found.before, found.after, found.runs, found.seconds)


if __name__ == "__main__":
    main()
