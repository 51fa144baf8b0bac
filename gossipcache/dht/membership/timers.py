"""Named deadlines of a sans-IO core."""

from __future__ import annotations

import heapq

TimerKey = tuple[str, bytes | int]
_MIN_HEAP = 64


class Timers:
    """At most one deadline a key; setting and moving cost O(log n), the rest next to nothing."""

    __slots__ = ("_heap", "_order", "_orders")

    def __init__(self) -> None:
        self._orders: dict[TimerKey, int] = {}
        # A key that was cancelled or moved stays on the heap, under an order that counts no more,
        # until it comes first.
        self._heap: list[tuple[float, int, TimerKey]] = []
        self._order = 0

    def __contains__(self, key: TimerKey) -> bool:
        return key in self._orders

    def set(self, key: TimerKey, deadline: float) -> None:
        """Sets or moves the deadline of `key`; equal deadlines come due in the order set."""
        self._order = order = self._order + 1
        self._orders[key] = order
        heap = self._heap
        heapq.heappush(heap, (deadline, order, key))
        if len(heap) > _MIN_HEAP and len(heap) > 4 * len(self._orders):
            self._rebuild()
        elif heap[0][1] != order:
            self._settle()

    def cancel(self, key: TimerKey) -> None:
        """Removes the deadline of `key`, if it has one."""
        if self._orders.pop(key, None) is not None:
            self._settle()

    def next(self) -> float | None:
        """The earliest deadline."""
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> TimerKey | None:
        """Removes and returns the earliest key that is due."""
        heap = self._heap
        if not heap or heap[0][0] > now:
            return None
        key = heapq.heappop(heap)[2]
        del self._orders[key]
        self._settle()
        return key

    def delay(self, delay_s: float) -> None:
        """Moves every deadline later, for time in which this process did not run."""
        self._heap = [(at + delay_s, order, key) for at, order, key in self._heap]
        self._rebuild()

    def _settle(self) -> None:
        heap, orders = self._heap, self._orders
        while heap and orders.get(heap[0][2]) != heap[0][1]:
            heapq.heappop(heap)

    def _rebuild(self) -> None:
        self._heap = [each for each in self._heap if self._orders.get(each[2]) == each[1]]
        heapq.heapify(self._heap)
