"""Named deadlines of a sans-IO core."""

from __future__ import annotations

import heapq

TimerKey = tuple[str, bytes | int]


class Timers:
    """At most one deadline a key; setting, moving and cancelling cost O(log n)."""

    def __init__(self) -> None:
        self._deadlines: dict[TimerKey, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, TimerKey]] = []
        self._order = 0

    def __contains__(self, key: TimerKey) -> bool:
        return key in self._deadlines

    def set(self, key: TimerKey, deadline: float) -> None:
        """Sets or moves the deadline of `key`; equal deadlines come due in the order set."""
        self._order += 1
        self._deadlines[key] = (deadline, self._order)
        heapq.heappush(self._heap, (deadline, self._order, key))
        if len(self._heap) > 64 + 4 * len(self._deadlines):
            self._rebuild()

    def cancel(self, key: TimerKey) -> None:
        """Removes the deadline of `key`, if it has one."""
        self._deadlines.pop(key, None)

    def next(self) -> float | None:
        """The earliest deadline."""
        while self._heap:
            deadline, order, key = self._heap[0]
            if self._deadlines.get(key) == (deadline, order):
                return deadline
            heapq.heappop(self._heap)
        return None

    def pop_due(self, now: float) -> TimerKey | None:
        """Removes and returns the earliest key that is due."""
        deadline = self.next()
        if deadline is None or deadline > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._deadlines[key]
        return key

    def delay(self, delay_s: float) -> None:
        """Moves every deadline later, for time in which this process did not run."""
        self._deadlines = {
            key: (deadline + delay_s, order) for key, (deadline, order) in self._deadlines.items()
        }
        self._rebuild()

    def _rebuild(self) -> None:
        self._heap = [(at, order, key) for key, (at, order) in self._deadlines.items()]
        heapq.heapify(self._heap)
