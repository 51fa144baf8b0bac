"""`python -m sim bench` measures what it says."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from sim import speed
from sim.__main__ import main


def test_a_case_runs_in_a_process_of_its_own() -> None:
    found = speed.measure("quiet", 10, speed.quiet)
    assert found.nodes == 10
    assert found.virtual_s == pytest.approx(8.0)
    assert found.best_times_real >= found.times_real > 0
    assert found.steps_per_s > 0
    assert found.memory_mib > 10


def test_churn_is_measured_while_nodes_die_and_come_back() -> None:
    stretches = list(speed.churn(10))
    assert sum(each.virtual_s for each in stretches) == pytest.approx(40.0)
    assert all(each.steps > 0 for each in stretches)


def test_the_command_tells_each_case(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(case: str, nodes: int, _stretches: object) -> speed.Speed:
        return speed.Speed(case, nodes, 8.0, 50.0, 60.0, 1e5, 1.0, 200.0)

    monkeypatch.setattr("sim.commands.bench.measure", measured)
    result = CliRunner().invoke(main, ["bench", "--json"])
    told = json.loads(result.output)["speeds"]
    assert [each["nodes"] for each in told] == [1000, 1000, 100, 5]
    result = CliRunner().invoke(main, ["bench", "--case", "quiet", "--large"])
    assert [line.split()[0] for line in result.output.splitlines()] == ["1000", "100", "5000"]
