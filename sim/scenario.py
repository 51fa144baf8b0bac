"""What a scenario is, how one is run, and what a run reports."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TextIO

import msgspec
import trio

from gossipcache.errors import GossipcacheError, UsageError
from sim import check, engine
from sim.clock import SimClock
from sim.entropy import Streams
from sim.faults import AnyFault
from sim.injection import Injector
from sim.machine import NodeKilled
from sim.trace import Trace
from sim.world import World, told

DEFAULT_LIMIT_S = 900.0


@dataclass(frozen=True, slots=True)
class Stage:
    """What a scenario plays on: the world, its faults, and the number of nodes asked for."""

    world: World
    faults: Injector
    nodes: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """A story with a name. Its body drives a world and reports what is wrong."""

    name: str
    summary: str
    nodes: int
    limit_s: float
    body: Callable[[Stage], Awaitable[None]]


@dataclass(slots=True)
class Report:
    """A run: the last line of `--json`. Fields are only ever added."""

    scenario: str
    seed: int
    nodes: int
    digest: str = ""
    events: int = 0
    virtual_s: float = 0.0
    wall_s: float = 0.0
    violations: list[str] = field(default_factory=list)
    faults: dict[str, dict[str, int]] = field(default_factory=dict)
    vacuous: bool = False
    metrics: dict[str, float] = field(default_factory=dict)
    schedule: list[Any] = field(default_factory=list)


_SCENARIOS: dict[str, Scenario] = {}


def scenario(
    name: str, *, nodes: int = 5, limit_s: float = DEFAULT_LIMIT_S
) -> Callable[[Callable[[Stage], Awaitable[None]]], Callable[[Stage], Awaitable[None]]]:
    """Registers the function below it; its docstring's first line is the summary."""

    def register(body: Callable[[Stage], Awaitable[None]]) -> Callable[[Stage], Awaitable[None]]:
        summary = (body.__doc__ or "").strip().splitlines()[0]
        _SCENARIOS[name] = Scenario(name, summary, nodes, limit_s, body)
        return body

    return register


def scenarios() -> dict[str, Scenario]:
    """All scenarios by name, sorted."""
    import sim.scenarios  # noqa: F401  (registers them; they import this module)

    return dict(sorted(_SCENARIOS.items()))


def find(name: str) -> Scenario:
    """The scenario `name`. Raises `UsageError`."""
    known = scenarios()
    if name not in known:
        raise UsageError(f"no scenario {name!r}", f"one of: {', '.join(known)}")
    return known[name]


def run(
    played: Scenario,
    seed: int,
    nodes: int | None = None,
    log: TextIO | None = None,
    plan: Sequence[AnyFault | None] = (),
) -> Report:
    """Runs a scenario from a seed; with a `plan` on its faults instead of the scenario's own."""
    report = Report(played.name, seed, nodes or played.nodes)
    started = time.perf_counter()

    async def main(clock: SimClock, streams: Streams) -> None:
        trace = Trace(clock, log)
        async with trio.open_nursery() as nursery:
            world = World(clock, streams, trace, nursery)
            injector = Injector(world, plan)
            try:
                await _play(played, Stage(world, injector, report.nodes))
            finally:
                _fill(report, world, injector, trace)

    try:
        engine.run(main, seed=seed, limit_s=played.limit_s)
    except engine.WorldStopped as stopped:
        report.violations.append(str(stopped))
    report.wall_s = round(time.perf_counter() - started, 3)
    return report


async def _play(played: Scenario, stage: Stage) -> None:
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(check.watch, stage.world)
            await played.body(stage)
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
