"""The heap of events: what happens next in a simulated world, and when."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

Work = Callable[..., None]


class Timer:
    """An event that can be called off."""

    __slots__ = ("_args", "_work", "when")

    def __init__(self, when: float, work: Work, args: tuple[Any, ...]) -> None:
        self.when = when
        self._work: Work | None = work
        self._args = args

    @property
    def is_pending(self) -> bool:
        """Whether the event is still to happen."""
        return self._work is not None

    def cancel(self) -> None:
        """The event will not happen."""
        self._work = None

    def fire(self) -> None:
        """Lets the event happen, unless it was cancelled."""
        work, self._work = self._work, None
        if work is not None:
            work(*self._args)


class EventHeap:
    """Events by their instant; those of one instant in the order in which they were made."""

    def __init__(self) -> None:
        self.events: list[tuple[float, int, Work, tuple[Any, ...]]] = []
        """A heap by (instant, order); only looked at, to save a call where each one counts."""
        self._made = 0

    def push(self, when: float, work: Work, *args: Any) -> None:
        """`work(*args)` happens at `when`."""
        self._made = made = self._made + 1
        heapq.heappush(self.events, (when, made, work, args))

    def timer(self, when: float, work: Work, *args: Any) -> Timer:
        """The same, but it can be cancelled."""
        timer = Timer(when, work, args)
        self.push(when, timer.fire)
        return timer

    def pop(self) -> tuple[float, Work, tuple[Any, ...]]:
        """Takes the next event off: its instant, the work and its arguments."""
        when, _, work, args = heapq.heappop(self.events)
        return when, work, args

    def clear(self) -> None:
        """Nothing happens any more."""
        self.events.clear()
