"""The processes of simulated nodes, as Trio's scheduler sees them: stopped, killed, slow."""

from __future__ import annotations

import random
from collections import deque
from contextvars import ContextVar
from typing import Any

import trio

# Trio has no public handle on its run loop; `sim.kernel.engine` asserts that it is as expected.
from trio._core import _run as trio_run

from sim.kernel.clock import SimClock
from sim.kernel.heap import Timer


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
        queue = current_runner().runq
        self._held = [*(self._held or []), *self._take_waiting()]
        for task in [task for task in queue if task.context.get(PROCESS) is self]:
            queue.remove(task)
            self._held.append(task)

    def release(self) -> None:
        """SIGCONT: all that has piled up runs."""
        held, self._held = self._held or [], None
        for task in held:
            current_runner().runq.append(task)

    def slow_down(self, clock: SimClock, step_s: float) -> None:
        """From now on each step of a task occupies the process's one core for `step_s` virtual
        seconds; tasks that could run meanwhile wait their turn. 0 ends it."""
        self._clock, self._step_s = clock, step_s
        if not step_s:
            for task in self._take_waiting():
                current_runner().runq.append(task)

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
        current_runner().runq.take(task)

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


def current_runner() -> Any:
    """Trio's run loop."""
    return trio_run.GLOBAL_RUN_CONTEXT.runner
