"""How fast the simulator is: virtual seconds for a second of processor time, on one core.

Each case runs in a process of its own, so that its memory is its own too. A case is measured in
stretches; beside all of them together the best one is told, since a machine that does other
things at the same time makes any of them slower (processor time counts waiting for memory).
"""

from __future__ import annotations

import gc
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import trio

from sim.bare.injection import BareInjector
from sim.bare.stage import BareStage
from sim.bare.world import BareWorld
from sim.faults import Kill, Loss, Restart
from sim.kernel import engine
from sim.kernel.clock import SimClock
from sim.kernel.entropy import Streams
from sim.trace import Trace
from sim.whole.world import PIECE_BYTES, World

SEED = 1
_STRETCHES = 8
_SETTLING_S = 5.0
_CHURN_LOSS = 0.015
_DOWN_S = 20.0
_DEATH_INTERVAL_S = 5.0
_PIECES = 512


@dataclass(frozen=True, slots=True)
class Speed:
    """What one case came to."""

    case: str
    nodes: int
    virtual_s: float
    times_real: float
    """Virtual seconds a second of processor time, over all stretches."""
    best_times_real: float
    """The same in the fastest stretch."""
    steps_per_s: float
    """Of the event heap, a second of processor time."""
    start_s: float
    """Processor time until the case began."""
    memory_mib: float
    """The most that the process had in memory."""
    pieces_per_s: float = 0.0
    """Pieces of 64 KiB that went over websockets, verified and stored, a second of processor
    time."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """One measured part of a run."""

    virtual_s: float
    cpu_s: float
    steps: int
    pieces: int = 0


def quiet(nodes: int) -> Iterator[Stretch]:
    """Callback nodes that know each other, and nothing happens."""
    stage = _grown(nodes)
    for _ in range(_STRETCHES):
        yield _measured(stage, lambda: stage.run(1.0))


def churn(nodes: int) -> Iterator[Stretch]:
    """Callback nodes, of which one dies every five seconds and comes back 20 s later, while
    1.5 % of all packets are lost."""
    stage = _grown(nodes)
    rng = stage.world.streams.named("scenario")
    stage.inject(Loss(probability=_CHURN_LOSS, for_s=1e6))
    dead: list[tuple[float, str]] = []

    def live() -> None:
        name = rng.choice(stage.world.up())
        stage.inject(Kill(node=name))
        dead.append((stage.now, name))
        if stage.now - dead[0][0] >= _DOWN_S:
            stage.inject(Restart(node=dead.pop(0)[1]))
        stage.run(_DEATH_INTERVAL_S)

    for _ in range(int(_DOWN_S / _DEATH_INTERVAL_S)):
        live()
    for _ in range(_STRETCHES):
        yield _measured(stage, live)


def full(nodes: int) -> Iterator[Stretch]:
    """Whole nodes on Trio that know each other, and nothing happens."""
    stretches: list[Stretch] = []

    async def main(clock: SimClock, streams: Streams) -> None:
        async with trio.open_nursery() as nursery:
            world = World(clock, streams, Trace(clock), nursery)
            await world.start_cluster(nodes)
            await trio.sleep(_SETTLING_S)
            for _ in range(_STRETCHES):
                started, cpu_s = clock.now, time.process_time()
                await trio.sleep(2.0)
                stretches.append(Stretch(clock.now - started, time.process_time() - cpu_s, 0))
            world.end()

    engine.run(main, seed=SEED)
    yield from stretches


def pieces(nodes: int) -> Iterator[Stretch]:
    """Whole nodes export what one has: pieces of 64 KiB over websockets."""
    stretches: list[Stretch] = []

    async def main(clock: SimClock, streams: Streams) -> None:
        async with trio.open_nursery() as nursery:
            world = World(clock, streams, Trace(clock), nursery)
            await world.start_cluster(nodes)
            await world.import_content("n0", "content", _PIECES * PIECE_BYTES)
            for number in range(1, nodes):
                started, cpu_s = clock.now, time.process_time()
                await world.export(f"n{number}", "content")
                used_s = time.process_time() - cpu_s
                stretches.append(Stretch(clock.now - started, used_s, 0, _PIECES))
            world.end()

    engine.run(main, seed=SEED)
    yield from stretches


CASES: tuple[tuple[str, int, Callable[[int], Iterator[Stretch]]], ...] = (
    ("callback nodes, quiet", 1000, quiet),
    ("callback nodes, churn", 1000, churn),
    ("whole nodes, quiet", 100, full),
    ("whole nodes, pieces", 5, pieces),
)
LARGE: tuple[tuple[str, int, Callable[[int], Iterator[Stretch]]], ...] = (
    ("callback nodes, quiet", 5000, quiet),
)


def measure(case: str, nodes: int, stretches: Callable[[int], Iterator[Stretch]]) -> Speed:
    """One case, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (case, nodes, stretches))


def _measure(case: str, nodes: int, stretches: Callable[[int], Iterator[Stretch]]) -> Speed:
    gc.disable()
    started_s = time.process_time()
    found = list(stretches(nodes))
    cpu_s = sum(each.cpu_s for each in found)
    virtual_s = sum(each.virtual_s for each in found)
    return Speed(
        case=case,
        nodes=nodes,
        virtual_s=round(virtual_s, 3),
        times_real=round(virtual_s / cpu_s, 1),
        best_times_real=round(max(each.virtual_s / each.cpu_s for each in found), 1),
        steps_per_s=round(sum(each.steps for each in found) / cpu_s),
        start_s=round(time.process_time() - started_s - cpu_s, 1),
        memory_mib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        pieces_per_s=round(statistics.median(each.pieces / each.cpu_s for each in found)),
    )


def _grown(nodes: int) -> BareStage:
    world = BareWorld(SEED)
    stage = BareStage(world, BareInjector(world), nodes)
    world.grow(nodes)
    stage.run(_SETTLING_S)
    return stage


def _measured(stage: BareStage, work: Callable[[], None]) -> Stretch:
    timeline = stage.world.timeline
    virtual_s, steps, cpu_s = timeline.now, timeline.steps, time.process_time()
    work()
    used_s = time.process_time() - cpu_s
    return Stretch(timeline.now - virtual_s, used_s, timeline.steps - steps)
