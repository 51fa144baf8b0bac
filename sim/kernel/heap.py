"""The heap of events: what happens next in a simulated world, and when."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

Work = Callable[..., None]
_SLOTS_PER_S = 128.0
"""A power of two, so that slots begin at exact instants."""


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
    """Events by their instant; those of one instant in the order in which they were made.

    A calendar queue (Brown, 1988) of two levels: what happens within the present slot of time is
    on a heap, what comes later lies unsorted in the list of its slot. The heap stays small, and
    most events are made for later.
    """

    def __init__(self) -> None:
        self.events: list[tuple[float, int, Work, tuple[Any, ...]]] = []
        """The heap of the present slot, by (instant, order)."""
        self._made = 0
        self._until = 0.0
        self._later: dict[int, list[tuple[float, int, Work, tuple[Any, ...]]]] = {}
        self._slots: list[int] = []

    def push(self, when: float, work: Work, *args: Any) -> None:
        """`work(*args)` happens at `when`."""
        self._made = made = self._made + 1
        if when < self._until:
            heapq.heappush(self.events, (when, made, work, args))
            return
        slot = int(when * _SLOTS_PER_S)
        later = self._later.get(slot)
        if later is None:
            later = self._later[slot] = []
            heapq.heappush(self._slots, slot)
        later.append((when, made, work, args))

    def timer(self, when: float, work: Work, *args: Any) -> Timer:
        """The same, but it can be cancelled."""
        timer = Timer(when, work, args)
        self.push(when, timer.fire)
        return timer

    def has_event(self, until: float) -> bool:
        """Whether something happens up to `until`; if so, it is first on `events`."""
        while not self.events:
            if not self._slots or self._slots[0] > until * _SLOTS_PER_S:
                return False
            slot = heapq.heappop(self._slots)
            # In place, so that whoever looks at the list sees the next slot in it.
            self.events.extend(self._later.pop(slot))
            heapq.heapify(self.events)
            self._until = (slot + 1) / _SLOTS_PER_S
        return self.events[0][0] <= until

    def pop(self) -> tuple[float, Work, tuple[Any, ...]]:
        """Takes the next event off: its instant, the work and its arguments."""
        when, _, work, args = heapq.heappop(self.events)
        return when, work, args

    def clear(self) -> None:
        """Nothing happens any more."""
        self.events.clear()
        self._later.clear()
        self._slots.clear()
