"""Every scenario holds its invariants, takes effect, and is its seed's."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from sim.__main__ import main
from sim.registry import find, run, scenarios

NAMED_IN_THE_CONTRACT = {
    "owner-death",
    "parent-death",
    "partition-heal",
    "mass-restart",
    "delete-partition",
    "broadcast",
    "one-to-many",
}

SMALLER = {
    "broadcast": 10,
    "broadcast-crashes": 10,
    "broadcast-one-slot": 30,
    "broadcast-owner-dies": 20,
    "broadcast-slow": 10,
    "broadcast-zones": 15,
    "broadcast-zones-crashes": 20,
    "one-to-many": 5,
    "memberlist-243-cost-at-scale": 60,
    "tasks-one-slot": 20,
    "lookups-under-differing-views": 60,
    "thousand-churn": 60,
    "thousand-idle": 60,
    "crash-noticed": 8,
    "flip-flop": 12,
    "heavy-loss": 4,
    "idle-traffic": 20,
    "join-storm": 40,
    "long-partition": 8,
    "silence-noticed": 8,
    "stale-rumours": 20,
    "stalled-nodes": 16,
}
WITHOUT_FAULTS = {
    "broadcast",
    "broadcast-crowd",
    "broadcast-one-slot",
    "broadcast-slow",
    "broadcast-zones",
    "foca-25-tireless-accuser",
    "olric-253-common-seed-late",
    "one-to-many",
    "delete-last-copies",
    "idle-traffic",
    "import-again",
    "join-storm",
    "scheduler-join",
    "tasks-one-slot",
    "thousand-idle",
    "two-parents",
}


def test_the_contracts_scenarios_are_there() -> None:
    assert set(scenarios()) >= NAMED_IN_THE_CONTRACT


STORMS = [name for name in scenarios() if name.partition("-")[0] == "chaos"]


@pytest.mark.parametrize("name", [name for name in scenarios() if name not in STORMS])
def test_scenario(name: str) -> None:
    report = run(find(name), seed=1, nodes=SMALLER.get(name))
    assert report.violations == []
    assert not report.vacuous
    assert report.faults or name in WITHOUT_FAULTS


@pytest.mark.parametrize("name", STORMS)
def test_storm(name: str) -> None:
    report = run(find(name), seed=1, nodes=4)
    assert report.violations == []
    armed = sum(count["armed"] for count in report.faults.values())
    bit = sum(count["bit"] for count in report.faults.values())
    assert bit >= armed / 2, "what is drawn by chance may meet nobody, but not most of it"


def test_an_unknown_scenario_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["run", "--scenario", "nope"])
    assert result.exit_code == 2
    assert "TRY:" in result.output


def test_the_list_tells_each_story() -> None:
    result = CliRunner().invoke(main, ["list"])
    assert result.exit_code == 0
    for name, each in scenarios().items():
        assert len(each.summary) > 30
        assert f"{name} " in result.output
        assert each.summary in result.output
