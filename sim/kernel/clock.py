"""Virtual time: a Trio clock that carries the event heap.

Trio asks a clock how long to sleep only when no task can run. `SimClock` answers by taking
the next step of the simulated world instead: it runs the earliest event, or jumps to the
earliest deadline, and says "do not sleep". No pump task is needed, one pass of Trio's loop
is one step, and only the `Clock` interface is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import trio

from sim.kernel.heap import EventHeap, Timer


class Runner(Protocol):
    """What the clock looks at in Trio's run loop; `sim.kernel.engine` asserts that it is there."""

    runq: Any
    entry_queue: Any
    waiting_for_idle: Any


class SimClock(trio.abc.Clock):
    """Seconds of virtual time from 0."""

    def __init__(self, limit_s: float = math.inf) -> None:
        self._limit_s = limit_s
        self._now = 0.0
        self._heap = EventHeap()
        self._runner: Runner | None = None
        self._root: trio.CancelScope | None = None
        self._on_stop: Callable[[], None] = lambda: None
        self.stopped_by: str | None = None
        """Why the run was cut short: "deadlock" or "time limit"; None if it was not."""

    def attach(self, runner: Runner, root: trio.CancelScope, on_stop: Callable[[], None]) -> None:
        """Begins to step the world. At a deadlock or the time limit `on_stop` is called and
        `root` cancelled."""
        self._on_stop = on_stop
        self._runner = runner
        self._root = root

    def detach(self) -> None:
        """The main task has returned: events happen no more, deadlines are still met."""
        self._heap.clear()
        self._runner = None

    def call_at(self, when: float, work: Callable[..., None], *args: Any) -> Timer:
        """Calls `work` at virtual time `when`, outside any task; events of one instant in the
        order in which they were made."""
        return self._heap.timer(max(when, self._now), work, *args)

    def call_later(self, delay_s: float, work: Callable[..., None], *args: Any) -> Timer:
        """Calls `work` in `delay_s` seconds."""
        return self.call_at(self._now + delay_s, work, *args)

    @property
    def now(self) -> float:
        """Virtual seconds since the start."""
        return self._now

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        """`trio.current_time()`."""
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Takes one step of the world. Called by Trio when no task can run."""
        runner = self._runner
        if runner is None:
            self._now = max(self._now, deadline) if deadline < math.inf else self._now
            return 0.0 if deadline < math.inf else math.inf
        # The shutdown of a run and async generators come through the entry queue by a real
        # wake-up: a world that always has another event would starve them.
        if runner.entry_queue.size():
            return 0.0
        while self._heap.has_event(deadline):
            when, work, args = self._heap.pop()
            if self._passes_limit(when):
                return 0.0
            self._now = when
            work(*args)
            if runner.runq:
                return 0.0
        if deadline < math.inf:
            if not self._passes_limit(deadline):
                self._now = max(self._now, deadline)
            return 0.0
        if runner.waiting_for_idle:
            return math.inf
        self._stop("deadlock")
        return 0.0

    def _passes_limit(self, when: float) -> bool:
        if when <= self._limit_s:
            return False
        self._limit_s = math.inf
        self._stop("time limit")
        return True

    def _stop(self, reason: str) -> None:
        if self._root is None or self._root.cancel_called:
            raise RuntimeError(f"the simulated world does not end ({self.stopped_by or reason})")
        self.stopped_by = reason
        self._on_stop()
        self._root.cancel()
