"""Many runs: each is the run that it is alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from sim.registry import Report, find, run
from sim.swarm import Summary


def test_one_seed_is_one_run_alone_among_many_and_whatever_the_hash_seed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sim", "swarm", "--seeds", "1..2", "--json", "--jobs", "1"]
    command += ["--scenario", "owner-death", "--failures", str(tmp_path)]
    ended = subprocess.run(
        command, env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True, text=True
    )
    assert ended.returncode == 0
    found = json.loads(ended.stdout.splitlines()[-1])
    assert (found["runs"], found["failed"]) == (2, 0)
    (_, _, first), (name, seed, second) = found["digests"]
    assert (name, seed) == ("owner-death", 2)
    assert first != second
    assert second == run(find("owner-death"), seed=2).digest
    assert list(tmp_path.iterdir()) == []


def test_a_summary_names_the_seeds_that_failed() -> None:
    summary = Summary("x")
    summary.add(Report("x", 1, 3, violations=["wrong"], metrics={"s": 1.0}))
    summary.add(Report("x", 2, 3, vacuous=True, metrics={"s": 3.0}))
    assert (summary.runs, summary.failed, summary.vacuous) == (2, [1], [2])
    assert summary.spread() == {"s": {"median": 2.0, "max": 3.0}}
