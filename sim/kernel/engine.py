"""Runs an async function in a world of its own, repeatably.

A few private names of Trio are used (`TRIO_NAMES`): the switch and the generator of the
scheduling order, and the run queue, which `ProcessQueue` replaces to stop and kill simulated
processes. Each run asserts that they are there, so that another version of Trio fails loudly.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from unittest import mock

import trio

# Trio has no public handle on its run loop.
from trio._core import _run as trio_run

from sim.kernel.clock import SimClock
from sim.kernel.entropy import Streams, controlled
from sim.kernel.guard import LeakGuard, NoSockets
from sim.kernel.process import PROCESS, ProcessQueue, current_runner

R = TypeVar("R")

TRIO_NAMES: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (trio_run, ("_ALLOW_DETERMINISTIC_SCHEDULING", "_r", "GLOBAL_RUN_CONTEXT")),
    (trio_run.Runner, ("runq", "entry_queue", "waiting_for_idle", "main_task")),
    (trio_run.Task, ("_counter", "context")),
)
"""What the simulator uses of Trio beyond its public interface."""


class UnknownTrio(AssertionError):
    """This version of Trio is not the one that the simulator was made for."""


def check_trio() -> None:
    """Raises `UnknownTrio` if a private name of Trio is gone."""
    missing = [
        f"{getattr(owner, '__qualname__', owner.__name__)}.{name}"
        for owner, names in TRIO_NAMES
        for name in names
        if not hasattr(owner, name)
    ]
    if missing:
        raise UnknownTrio(
            f"Trio {trio.__version__} has no {', '.join(missing)}, on which the simulator's "
            "scheduling stands: install the Trio that pyproject.toml names, or adapt "
            "sim/kernel/engine.py"
        )


class WorldStopped(Exception):
    """The run was cut short: a deadlock, or the limit of virtual time."""


def run(
    main: Callable[[SimClock, Streams], Awaitable[R]],
    *,
    seed: int,
    limit_s: float = math.inf,
    guard: LeakGuard | None = None,
) -> R:
    """Runs `main(clock, streams)` on virtual time. The same seed gives the same run; `guard`
    hears of what project code in simulated nodes reaches for past its seams.

    Raises `WorldStopped` at a deadlock or after `limit_s` virtual seconds.
    """
    check_trio()
    clock, streams, guard = SimClock(limit_s), Streams(seed), guard or LeakGuard()
    waiting: list[str] = []

    async def world() -> R:
        runner = current_runner()
        assert isinstance(runner.runq, deque)
        runner.runq = ProcessQueue(runner.runq)
        trio.socket.set_custom_socket_factory(NoSockets(guard))
        with trio.CancelScope() as root:
            clock.attach(runner, root, lambda: waiting.extend(_waiting_tasks()))
            try:
                return await main(clock, streams)
            finally:
                clock.detach()
        raise WorldStopped(
            f"{clock.stopped_by} at {clock.now:.3f} virtual seconds; waiting: " + "; ".join(waiting)
        )

    order = trio_run._r.getstate()
    with (
        controlled(streams, clock, guard),
        mock.patch.object(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
    ):
        trio_run._r.seed(streams.named("world/order").getrandbits(64))
        try:
            return trio.run(world, clock=clock)
        finally:
            trio_run._r.setstate(order)


def _waiting_tasks() -> list[str]:
    """Each task and the innermost lines of the project's that it waits in."""
    found: list[str] = []
    nurseries = [current_runner().main_task] if current_runner().main_task else []
    for task in nurseries:  # grows while it is walked
        frames = [f"{f.f_code.co_name}:{n}" for f, n in task.iter_await_frames()]
        process = task.context.get(PROCESS)
        found.append(f"{process.name if process else '-'} {'>'.join(frames[-9:])}")
        for nursery in task.child_nurseries:
            nurseries.extend(sorted(nursery.child_tasks, key=lambda child: child._counter))
    return found
