"""Every scenario holds its invariants, takes effect, and is its seed's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from sim.scenario import find, run, scenarios

NAMED_IN_THE_CONTRACT = {
    "owner-death",
    "parent-death",
    "partition-heal",
    "mass-restart",
    "delete-partition",
    "broadcast",
}

WITHOUT_FAULTS = {"broadcast", "delete-last-copies", "scheduler-join"}


def test_the_contracts_scenarios_are_there() -> None:
    assert set(scenarios()) >= NAMED_IN_THE_CONTRACT


@pytest.mark.parametrize("name", list(scenarios()))
def test_scenario(name: str) -> None:
    report = run(find(name), seed=1)
    assert report.violations == []
    assert not report.vacuous
    assert report.faults or name in WITHOUT_FAULTS


def _run_elsewhere(hash_seed: str, *options: str) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-m", "sim", "run", "--scenario", "owner-death", "--json", *options],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
    )
    report: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    assert ended.returncode == (1 if report["violations"] else 0)
    return report


def test_one_seed_has_one_digest_in_every_process() -> None:
    one, other = (_run_elsewhere(hash_seed, "--seed", "5") for hash_seed in ("0", "99"))
    assert one["digest"] == other["digest"]
    assert one["events"] == other["events"] > 0
    assert _run_elsewhere("0", "--seed", "6")["digest"] != one["digest"]


def test_an_unknown_scenario_is_a_usage_error() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "sim", "run", "--scenario", "nope"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "TRY:" in ended.stderr
