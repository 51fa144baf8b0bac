"""A real failing run is made smaller: a task's only holder dies among harmless faults."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from sim import registry
from sim.__main__ import main
from sim.faults import AnyFault, Delay, Duplication, Kill, Loss, Partition
from sim.recording import Recording, read_recording, record, replay
from sim.registry import Scenario, run
from sim.shrinking.trial import Budget, shrink
from sim.whole.scenario import Stage, play

HARMLESS: list[AnyFault] = [
    Delay(node="n1", seconds=0.001, for_s=5.0),
    Duplication(probability=0.2, for_s=5.0),
    Loss(probability=0.01, for_s=5.0),
]
AFTERWARDS = Partition(island=("n1",), for_s=1.0)


async def lost_holder(stage: Stage) -> None:
    """The only holder of a task dies in the midst of other faults."""
    await stage.world.start_cluster(stage.nodes)
    await stage.world.import_content("n0", "a", 1000)
    for fault in [*HARMLESS, Kill(node="n0"), *HARMLESS]:
        await stage.faults.inject(fault)
    await stage.world.export("n1", "a", timeout_s=3.0)
    await stage.faults.inject(AFTERWARDS)


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> Scenario:
    scenario = Scenario("lost-holder", "Planted.", 4, partial(play, lost_holder))
    monkeypatch.setitem(registry._SCENARIOS, scenario.name, scenario)
    return scenario


def test_of_seven_faults_the_guilty_one_is_left(planted: Scenario, tmp_path: Path) -> None:
    path = record(run(planted, seed=1), tmp_path)
    result = CliRunner().invoke(main, ["shrink", str(path), "--json"])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["before"], found["after"], found["is_finished"]) == (7, 1, True)
    shrunk = read_recording(Path(found["file"]))
    assert shrunk.faults == [None, None, None, Kill(node="n0")]
    assert shrunk.nodes == 3
    again = replay(shrunk)
    assert again.digest == shrunk.digest
    assert again.violations == shrunk.violations


def test_the_search_ends_with_its_budget(planted: Scenario) -> None:
    given = Recording(scenario=planted.name, seed=1, nodes=3)
    lines: list[str] = []
    found = shrink(given, Budget(runs=2), tell=lines.append)
    assert found is not None
    assert (found.before, found.after, found.is_finished) == (7, 7, False)
    assert lines[0].startswith("violated: the scenario stopped: TimedOut: the export of …")


def test_a_schedule_may_fail_with_another_seed(planted: Scenario) -> None:
    given = Recording(scenario=planted.name, seed=1, nodes=3, faults=[Kill(node="n0")])
    found = shrink(given, Budget(), any_of=2)
    assert found is not None
    assert found.after == 1
    assert found.recording.seed in (1, 2)


def test_a_run_that_does_not_fail_any_more_is_told(planted: Scenario, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"scenario": "lost-holder", "seed": 1, "nodes": 3, "faults": []}')
    result = CliRunner().invoke(main, ["shrink", str(path)])
    assert result.exit_code == 1
    assert "does not fail any more" in result.output
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    assert CliRunner().invoke(main, ["shrink", str(tmp_path / "none.json")]).exit_code == 2
