"""Scenarios of bare nodes: cores as callbacks, for clusters of thousands."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

import msgspec

from gossipcache.config import SwimConfig
from gossipcache.errors import GossipcacheError
from sim.bare.injection import BareInjector
from sim.bare.stage import BareStage
from sim.bare.timeline import TimeLimit
from sim.bare.world import BareWorld
from sim.registry import DEFAULT_LIMIT_S, Drive, register

Body = Callable[[BareStage], None]


class _CutShort(Exception):
    """What the run is played for has been seen."""


def bare_scenario(
    name: str,
    *,
    nodes: int,
    limit_s: float = DEFAULT_LIMIT_S,
    swim: SwimConfig | None = None,
    real_wire: bool = False,
) -> Callable[[Body], Body]:
    """Registers the function below it; its docstring's first line is the summary. A run is cut
    off after `limit_s` virtual seconds. `swim` is what all nodes are tuned to; with `real_wire`
    they encode, seal and sign in earnest."""

    def wrapped(body: Body) -> Body:
        def drive(asked: Drive) -> None:
            world = BareWorld(
                asked.report.seed,
                swim=swim,
                real_wire=real_wire,
                log=asked.log,
                chronicle=asked.chronicle,
            )
            play(body, world, asked, limit_s)

        register(name, nodes, body.__doc__, drive)
        return body

    return wrapped


def play(body: Body, world: BareWorld, drive: Drive, limit_s: float = DEFAULT_LIMIT_S) -> None:
    """Plays `body` in a new world and fills in the report."""
    report, cut = drive.report, drive.cut

    def look(violation: str) -> None:
        if cut.at(violation):
            raise _CutShort

    world.on_wrong = look
    world.timeline.limit_s = min(limit_s, cut.after_s)
    injector = BareInjector(world, drive.plan)
    stage = BareStage(world, injector, report.nodes)
    with _without_collector(), suppress(_CutShort):
        try:
            body(stage)
            world.witness.at_the_end()
        except TimeLimit as stopped:
            report.violations.append(str(stopped))
        except (AssertionError, GossipcacheError) as stopped:
            world.report(f"the scenario stopped: {stopped}")
    counts = injector.counts()
    report.virtual_s = round(world.timeline.now, 6)
    report.digest = world.trace.close()
    report.events = world.trace.events
    report.violations += [str(each) for each in world.wrong]
    report.faults = {kind: asdict(count) for kind, count in counts.items()}
    report.vacuous = any(count.bit < count.armed for count in counts.values())
    report.metrics = dict(sorted(stage.metrics.items()))
    schedule: list[Any] = msgspec.to_builtins(injector.schedule())
    report.schedule = schedule


@contextmanager
def _without_collector() -> Iterator[None]:
    """Millions of objects, and hardly a cycle: to look for garbage only takes time."""
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_collecting:
            gc.enable()
