"""Bare scenarios are run, recorded, replayed and cut short as those of whole nodes."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import msgspec
import pytest

from sim.bare.scenario import play
from sim.bare.stage import BareStage
from sim.bare.world import BareWorld
from sim.faults import AnyFault, Kill, Loss
from sim.recording import read_recording, record, replay
from sim.registry import Cut, Drive, Plan, Report, find, run

NODES = 30


def churn(seed: int, plan: Plan | None = None) -> Report:
    return run(find("thousand-churn"), seed, NODES, plan=plan)


def test_a_seed_is_one_run_and_another_seed_another() -> None:
    assert churn(1).digest == churn(1).digest != churn(2).digest


def test_a_recorded_run_replays(tmp_path: Path) -> None:
    report = churn(3)
    assert replay(read_recording(record(report, tmp_path))).digest == report.digest


def test_what_is_left_out_of_the_plan_does_not_strike() -> None:
    faults = msgspec.convert(churn(3).schedule, list[AnyFault | None])
    kills = [n for n, fault in enumerate(faults) if isinstance(fault, Kill)]
    report = churn(3, [None if n in kills else fault for n, fault in enumerate(faults)])
    assert "kill" not in report.faults
    assert report.schedule[kills[0]] is None


def test_a_planned_fault_waits_for_its_instant() -> None:
    report = churn(3, [Loss(at_s=4.0, probability=0.5, for_s=1.0)])
    assert report.schedule[0]["at_s"] == 4.0


def test_events_are_logged() -> None:
    log = StringIO()
    run(find("thousand-churn"), 1, 10, log)
    kinds = {json.loads(line)["kind"] for line in log.getvalue().splitlines()}
    assert {"datagram", "view", "kill"} <= kinds


def played(drive: Drive, limit_s: float = 100.0) -> Report:
    def body(stage: BareStage) -> None:
        stage.world.grow(3)
        stage.run(5)
        stage.report("first")
        stage.run(5)
        stage.report("second")
        stage.metrics["end"] = stage.now

    play(body, BareWorld(1), drive, limit_s)
    return drive.report


def test_violations_are_reported_with_their_instant() -> None:
    report = played(Drive(Report("here", 1, 3)))
    assert report.violations == ["5.000 s: first", "10.000 s: second"]
    assert report.metrics == {"end": 10.0}


def test_a_run_ends_at_the_violation_it_is_played_for() -> None:
    report = played(Drive(Report("here", 1, 3), cut=Cut(lambda what: what == "first")))
    assert report.violations == ["5.000 s: first"]
    assert report.virtual_s == pytest.approx(5.0)


def test_a_run_ends_at_its_limit() -> None:
    report = played(Drive(Report("here", 1, 3)), limit_s=7.0)
    assert report.violations[0].startswith("time limit at 7.000")
    assert report.virtual_s == 7.0
