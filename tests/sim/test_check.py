"""The harness finds what is wrong: planted failures are reported, idle faults told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from sim.faults import DiskFull, Kill
from sim.scenario import Report, Scenario, Stage, run
from sim.world import HOME


def play(body: Callable[[Stage], Awaitable[None]]) -> Report:
    return run(Scenario("test", "", 3, 300.0, body), seed=1)


def test_a_lost_task_is_a_violation() -> None:
    async def body(stage: Stage) -> None:
        await stage.world.start_cluster(stage.nodes)
        await stage.world.import_content("n0", "only copy", 1000)
        await stage.faults.inject(Kill(node="n0"))
        await stage.world.export("n1", "only copy", timeout_s=20)

    report = play(body)
    assert len(report.violations) == 1
    assert "the scenario stopped" in report.violations[0]


def test_a_node_that_ends_by_itself_is_a_violation() -> None:
    async def body(stage: Stage) -> None:
        machine = stage.world.add_machine()
        file = machine.disk.open(HOME / "store", "create")
        file.write_at(0, b"not a folder")
        await stage.world.start(machine.name)

    report = play(body)
    assert any("n0 failed" in violation for violation in report.violations)


def test_wrong_bytes_are_a_violation() -> None:
    async def body(stage: Stage) -> None:
        await stage.world.start_cluster(stage.nodes)
        await stage.world.import_content("n0", "a", 1000)
        stage.world.contents["a", ""] = bytes(1000)
        await stage.world.export("n1", "a")

    report = play(body)
    assert any("wrong bytes" in violation for violation in report.violations)


def test_a_scenario_that_does_not_end_is_a_violation() -> None:
    async def body(stage: Stage) -> None:
        await trio.Event().wait()

    report = play(body)
    assert any("time limit" in violation for violation in report.violations)


def test_a_fault_that_nobody_met_makes_a_run_vacuous() -> None:
    async def body(stage: Stage) -> None:
        await stage.world.start_cluster(stage.nodes)
        await stage.faults.inject(DiskFull(node="n0", free_bytes=1 << 30, for_s=1.0))

    report = play(body)
    assert report.vacuous
    assert report.faults == {"disk-full": {"armed": 1, "bit": 0}}
    assert report.violations == []
