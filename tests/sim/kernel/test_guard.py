"""Project code in a simulated node that reaches past its seams is found out."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio

from gossipcache.node.node import Node
from sim.kernel import engine
from sim.kernel.clock import SimClock
from sim.kernel.entropy import Streams
from sim.kernel.guard import LeakedReality, LeakGuard
from sim.kernel.process import PROCESS, Process
from sim.registry import Drive, Report
from sim.whole.scenario import Stage, play

LEAKS = [
    "time.time()",
    "time.time_ns()",
    "time.monotonic()",
    "time.perf_counter()",
    "time.sleep(0)",
    "os.urandom(1)",
    "secrets.token_bytes(1)",
    "uuid.uuid4()",
    "random.random()",
    "random.choice([1])",
    "threading.Thread(target=len, args=('',)).start()",
    "socket.socket()",
    "open('/dev/null')",
    "os.open('/dev/null', 0)",
    "pathlib.Path('/dev/null').read_bytes()",
    "tempfile.mkstemp()",
    "await trio.to_thread.run_sync(len, '')",
    "await trio.open_file('/dev/null')",
    "trio.socket.socket()",
]


def planted(code: str, module: str = "gossipcache.planted") -> Callable[[], Awaitable[Any]]:
    """An async function that evaluates `code` as a line of `module`."""
    names: dict[str, Any] = {"__name__": module}
    imports = "import os, pathlib, random, secrets, socket, tempfile, threading, time, trio, uuid"
    exec(f"{imports}\nasync def work():\n    return {code}", names)
    work: Callable[[], Awaitable[Any]] = names["work"]
    return work


def leaks_of(work: Callable[[], Awaitable[Any]], process: Process | None) -> list[str]:
    """What the guard notes while `work` runs in `process`."""
    guard = LeakGuard()

    async def main(_clock: SimClock, _streams: Streams) -> None:
        PROCESS.set(process)
        with suppress(LeakedReality):
            await work()

    engine.run(main, seed=1, guard=guard)
    return guard.leaks


@pytest.mark.parametrize("code", LEAKS)
def test_a_leak_is_noted_even_if_its_error_is_swallowed(code: str) -> None:
    (leak,) = leaks_of(planted(code), Process("n7"))
    assert leak.startswith("gossipcache.planted:3 on n7 reached for ")


@pytest.mark.parametrize(
    "code", ["os.urandom(1)", "time.time()", "uuid.uuid4()", "time.monotonic()"]
)
def test_libraries_are_served(code: str) -> None:
    assert leaks_of(planted(code, "wsproto.planted"), Process("n7")) == []


@pytest.mark.parametrize("code", ["os.urandom(1)", "time.monotonic()", "open('/dev/null').close()"])
def test_what_is_not_in_a_node_is_left_alone(code: str) -> None:
    assert leaks_of(planted(code), None) == []


def test_project_code_may_log() -> None:
    async def work() -> None:
        logging.getLogger("gossipcache.planted").warning("at what time?")

    assert leaks_of(work, Process("n7")) == []


def test_a_leak_in_a_node_is_a_violation_of_the_run() -> None:
    leak = planted("time.monotonic()")

    async def careless(_node: Node) -> None:
        with suppress(Exception):
            await leak()

    async def body(stage: Stage) -> None:
        await stage.world.start(stage.world.add_machine().name)
        await stage.world.on("n0", careless)
        await trio.sleep(1.0)

    report = Report("test", seed=1, nodes=1)
    play(body, Drive(report))
    (violation,) = report.violations
    assert "gossipcache.planted:3 on n0 reached for time.monotonic" in violation
