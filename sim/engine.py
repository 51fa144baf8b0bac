"""Runs an async function in a world of its own, repeatably.

A few private names of Trio are used (`TRIO_NAMES`): the switch and the generator of the
scheduling order, and the run queue, which `ProcessQueue` replaces to stop and kill simulated
processes. Each run asserts that they are there, so that another version of Trio fails loudly.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, TypeVar
from unittest import mock

import trio

# Trio has no public handle on its run loop.
from trio._core import _run as trio_run

from sim.clock import SimClock
from sim.entropy import NoSockets, Streams, controlled
from sim.heap import Timer

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
            "scheduling stands: install the Trio that pyproject.toml names, or adapt sim/engine.py"
        )


class Process:
    """The tasks of one incarnation of a simulated node, as the scheduler sees them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.entropy: random.Random | None = None
        """What `os.urandom` draws from in its tasks."""
        self.held_wakeups = 0
        """How many wake-ups were ever kept back."""
        self.late_steps = 0
        """How many steps ever waited for a slow processor."""
        self._held: list[trio.lowlevel.Task] | None = None
        self._clock: SimClock | None = None
        self._step_s = 0.0
        self._free_at = 0.0
        self._waiting: deque[trio.lowlevel.Task] = deque()
        self._turn: Timer | None = None

    @property
    def is_held(self) -> bool:
        """Whether its tasks are kept from running."""
        return self._held is not None

    def hold(self) -> None:
        """SIGSTOP: none of its tasks runs from now on, wake-ups and timers pile up.

        Held for ever it is SIGKILL: not even a `finally` block runs.
        """
        queue = _runner().runq
        self._held = [*(self._held or []), *self._take_waiting()]
        for task in [task for task in queue if task.context.get(PROCESS) is self]:
            queue.remove(task)
            self._held.append(task)

    def release(self) -> None:
        """SIGCONT: all that has piled up runs."""
        held, self._held = self._held or [], None
        for task in held:
            _runner().runq.append(task)

    def slow_down(self, clock: SimClock, step_s: float) -> None:
        """From now on each step of a task occupies the process's one core for `step_s` virtual
        seconds; tasks that could run meanwhile wait their turn. 0 ends it."""
        self._clock, self._step_s = clock, step_s
        if not step_s:
            for task in self._take_waiting():
                _runner().runq.append(task)

    def keeps(self, task: trio.lowlevel.Task) -> bool:
        """Whether `task`, now runnable, is kept back."""
        if self._held is not None:
            self.held_wakeups += 1
            self._held.append(task)
            return True
        return self._clock is not None and self._step_s > 0.0 and self._waits(self._clock, task)

    def _waits(self, clock: SimClock, task: trio.lowlevel.Task) -> bool:
        """Books the core for one step of `task`, or queues it while the core is occupied."""
        if not self._waiting and clock.now >= self._free_at:
            self._free_at = clock.now + self._step_s
            return False
        self.late_steps += 1
        self._waiting.append(task)
        if self._turn is None:
            self._turn = clock.call_at(self._free_at, self._next_step, clock)
        return True

    def _next_step(self, clock: SimClock) -> None:
        task = self._waiting.popleft()
        self._free_at = clock.now + self._step_s
        self._turn = clock.call_at(self._free_at, self._next_step, clock) if self._waiting else None
        _runner().runq.take(task)

    def _take_waiting(self) -> list[trio.lowlevel.Task]:
        waiting, self._waiting = list(self._waiting), deque()
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        return waiting


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)
"""The process a task belongs to; its children inherit it."""


class ProcessQueue(deque[trio.lowlevel.Task]):
    """Trio's run queue, which leaves out the tasks of held processes."""

    def append(self, task: trio.lowlevel.Task) -> None:
        """Called by Trio when `task` becomes runnable."""
        process = task.context.get(PROCESS)
        if process is None or not process.keeps(task):
            self.take(task)

    def take(self, task: trio.lowlevel.Task) -> None:
        """Lets `task` run in the next pass of the loop."""
        super().append(task)


class WorldStopped(Exception):
    """The run was cut short: a deadlock, or the limit of virtual time."""


def run(
    main: Callable[[SimClock, Streams], Awaitable[R]], *, seed: int, limit_s: float = math.inf
) -> R:
    """Runs `main(clock, streams)` on virtual time. The same seed gives the same run.

    Raises `WorldStopped` at a deadlock or after `limit_s` virtual seconds.
    """
    check_trio()
    clock, streams = SimClock(limit_s), Streams(seed)
    waiting: list[str] = []

    async def world() -> R:
        runner = _runner()
        assert isinstance(runner.runq, deque)
        runner.runq = ProcessQueue(runner.runq)
        trio.socket.set_custom_socket_factory(NoSockets())
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
        controlled(streams, clock),
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
    nurseries = [_runner().main_task] if _runner().main_task else []
    for task in nurseries:  # grows while it is walked
        frames = [f"{f.f_code.co_name}:{n}" for f, n in task.iter_await_frames()]
        process = task.context.get(PROCESS)
        found.append(f"{process.name if process else '-'} {'>'.join(frames[-9:])}")
        for nursery in task.child_nurseries:
            nurseries.extend(sorted(nursery.child_tasks, key=lambda child: child._counter))
    return found


def _runner() -> Any:
    return trio_run.GLOBAL_RUN_CONTEXT.runner
