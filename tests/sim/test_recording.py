"""A run that failed is a file, and the file is the run."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio
from click.testing import CliRunner

from gossipcache.errors import UsageError
from sim.__main__ import main
from sim.faults import Kill
from sim.recording import Recording, again, read_recording, record, replay
from sim.registry import WHOLE, Cut, Drive, Report, find, run
from sim.whole.scenario import Stage, play


@pytest.fixture(scope="module")
def report() -> Report:
    return run(find("owner-death"), seed=3)


def test_a_replayed_run_is_the_run(report: Report, tmp_path: Path) -> None:
    recording = read_recording(record(report, tmp_path))
    assert [type(fault) for fault in recording.faults or ()] == [Kill]
    assert replay(recording).digest == report.digest


def test_a_fault_can_be_left_out_moved_or_changed(report: Report) -> None:
    kill = msgspec.convert(report.schedule[0], Kill)
    quiet, later = (
        replay(Recording(scenario="owner-death", seed=3, nodes=5, faults=[fault]))
        for fault in (None, msgspec.structs.replace(kill, at_s=kill.at_s + 5.0))
    )
    assert quiet.faults == {}
    assert quiet.violations == later.violations == []
    assert later.schedule[0]["at_s"] == kill.at_s + 5.0
    assert len({report.digest, quiet.digest, later.digest}) == 3


def test_the_printed_line_replays_a_failing_run(tmp_path: Path) -> None:
    plans = [[Kill(node=f"n{number}")] for number in range(5)]
    # One of them is the only holder, without whom nobody can have the task.
    runs = (run(find("owner-death"), seed=3, plan=plan) for plan in plans)
    failing = next(each for each in runs if each.violations)
    path = record(failing, tmp_path)
    line = again(path)
    assert line.startswith("python -m sim ")
    result = CliRunner().invoke(main, line.removeprefix("python -m sim ").split())
    assert result.exit_code == 1
    assert failing.digest in result.output
    assert failing.violations[0] in result.output
    assert "the recorded run" in result.output


@pytest.mark.parametrize(
    "text", ["", "{}", '{"version": 2}', '{"scenario": "owner-death", "seed": 1, "nodes": 1}']
)
def test_what_is_no_recording_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="not a recorded run"):
        read_recording(path)
    result = CliRunner().invoke(main, ["replay", str(path)])
    assert result.exit_code == 2
    assert "TRY:" in result.output


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_recording(tmp_path / "none.json")


def test_an_unknown_scenario_in_a_file_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"scenario": "nope", "seed": 1, "nodes": 3}')
    assert CliRunner().invoke(main, ["replay", str(path)]).exit_code == 2


def test_what_a_plan_does_not_name_is_left_out(report: Report) -> None:
    assert run(find("owner-death"), seed=3, plan=[]).faults == {}
    assert replay(Recording(scenario="owner-death", seed=3, nodes=5)).digest == report.digest


def test_a_run_can_be_cut_short_at_a_violation_or_an_instant() -> None:
    async def body(stage: Stage) -> None:
        for second in range(10):
            await trio.sleep(1)
            stage.world.report(f"wrong {second}")

    def play_to(cut: Cut) -> list[str]:
        report = Report("test", seed=1, nodes=3)
        play(body, Drive(report, cut=cut))
        return report.violations

    assert len(play_to(WHOLE)) == 10
    assert play_to(Cut(at=lambda violation: violation == "wrong 1"))[1:] == ["2.000 s: wrong 1"]
    assert "time limit" in play_to(Cut(after_s=1.5))[-1]
