"""Scenarios of whole nodes: the production code on Trio and virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import trio

from gossipcache.errors import GossipcacheError
from sim.errors import errors_reported, told
from sim.faults import AnyFault
from sim.injection import Injector
from sim.kernel import engine
from sim.kernel.clock import SimClock
from sim.kernel.entropy import Streams
from sim.kernel.guard import LeakGuard
from sim.registry import DEFAULT_LIMIT_S, Cut, Drive, Report, register
from sim.trace import Trace
from sim.whole import check
from sim.whole.machine import NodeKilled
from sim.whole.watch import watch
from sim.whole.world import World


@dataclass(frozen=True, slots=True)
class Stage:
    """What a scenario plays on: the world, its faults, and the number of nodes asked for."""

    world: World
    faults: Injector
    nodes: int


Body = Callable[[Stage], Awaitable[None]]


def scenario(
    name: str, *, nodes: int = 5, limit_s: float = DEFAULT_LIMIT_S
) -> Callable[[Body], Body]:
    """Registers the function below it; its docstring's first line is the summary. A run is cut
    off after `limit_s` virtual seconds."""

    def wrapped(body: Body) -> Body:
        register(name, nodes, body.__doc__, lambda drive: play(body, drive, limit_s))
        return body

    return wrapped


def play(body: Body, drive: Drive, limit_s: float = DEFAULT_LIMIT_S) -> None:
    """Plays `body` in a world of its own and fills in the report."""
    report, guard = drive.report, LeakGuard()

    async def main(clock: SimClock, streams: Streams) -> None:
        trace = Trace(clock, drive.log)
        async with trio.open_nursery() as nursery:
            world = World(clock, streams, trace, nursery, chronicle=drive.chronicle)
            injector = Injector(world, drive.plan)
            guard.on_leak = world.report
            try:
                with errors_reported(world.report):
                    await _play(body, Stage(world, injector, report.nodes), drive.cut)
            finally:
                _fill(report, world, injector, trace)

    try:
        engine.run(main, seed=report.seed, limit_s=min(limit_s, drive.cut.after_s), guard=guard)
    except engine.WorldStopped as stopped:
        report.violations.append(str(stopped))


async def _play(body: Body, stage: Stage, cut: Cut) -> None:
    try:
        async with trio.open_nursery() as nursery:

            def look(violation: str) -> None:
                if cut.at(violation):
                    nursery.cancel_scope.cancel()

            stage.world.on_wrong = look
            nursery.start_soon(watch, stage.world)
            await body(stage)
            await check.at_the_end(stage.world)
            nursery.cancel_scope.cancel()
    except* (AssertionError, GossipcacheError, NodeKilled) as stopped:
        stage.world.report(f"the scenario stopped: {told(stopped)}")


def _fill(report: Report, world: World, injector: Injector, trace: Trace) -> None:
    counts = injector.counts()
    report.virtual_s = round(world.clock.now, 6)
    report.events = trace.events
    report.digest = world.end()
    report.violations += [str(each) for each in world.wrong]
    report.faults = {kind: asdict(count) for kind, count in counts.items()}
    report.vacuous = any(count.bit < count.armed for count in counts.values())
    report.metrics = dict(sorted(world.metrics.items()))
    report.schedule = _plain(injector.schedule())


def _plain(schedule: list[AnyFault | None]) -> list[Any]:
    plain: list[Any] = msgspec.to_builtins(schedule)
    return plain
