"""Runs of the simulator in a process of their own, in which one mutant is planted, or none.

Such a process reads its work as JSON from stdin and writes each run's outcome as a line of
JSON: `python -m sim.mutation.trial`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sim.mutation.catalogue import MUTANTS
from sim.mutation.mutant import plant

Played = tuple[str, int]
"""A scenario and a seed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run went."""

    scenario: str
    seed: int
    violation: str | None
    """The first that was reported, after its instant."""
    cpu_s: float


def play_apart(
    mutant: str | None, runs: Sequence[Played], *, stop: bool, limit_s: float | None = None
) -> list[Outcome]:
    """Plays `runs` in another process, with `stop` only up to the first violation. After
    `limit_s` of real time the process is stopped, and what it did until then counts."""
    work = json.dumps({"mutant": mutant, "runs": runs, "stop": stop})
    command = [sys.executable, "-m", "sim.mutation.trial"]
    try:
        done = subprocess.run(
            command, input=work, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired as cut:
        return _outcomes(cut.stdout.decode() if isinstance(cut.stdout, bytes) else "")
    if done.returncode:
        raise RuntimeError(f"the runs with {mutant} ended: {done.stderr[-2000:]}")
    return _outcomes(done.stdout)


def _outcomes(lines: str) -> list[Outcome]:
    return [Outcome(**json.loads(line)) for line in lines.splitlines() if line.endswith("}")]


def main() -> None:
    """The other process."""
    work: dict[str, Any] = json.load(sys.stdin)
    if work["mutant"] is not None:
        plant(MUTANTS[work["mutant"]])
    for scenario, seed in work["runs"]:
        outcome = _play(scenario, seed)
        print(json.dumps(asdict(outcome)), flush=True)
        if outcome.violation is not None and work["stop"]:
            return


def _play(scenario: str, seed: int) -> Outcome:
    from sim.registry import Cut, find, run  # with them comes the code with the bug

    started = time.process_time()
    try:
        wrong = run(find(scenario), seed, cut=Cut(at=lambda _: True)).violations
    except Exception as error:
        wrong = [f"{type(error).__name__}: {error}"]
    violation = wrong[0].split(" s: ", 1)[-1] if wrong else None
    return Outcome(scenario, seed, violation, round(time.process_time() - started, 3))


if __name__ == "__main__":
    main()
