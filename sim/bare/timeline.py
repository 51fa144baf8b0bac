"""Virtual time without Trio: the heap of events, and the hand that moves along it."""

from __future__ import annotations

import heapq

from sim.heap import EventHeap


class Timeline(EventHeap):
    """Seconds of virtual time from 0."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.steps = 0
        """How many events have happened."""

    def run_to(self, end: float) -> None:
        """Lets everything up to `end` happen; it is then `end`."""
        events, pop = self.events, heapq.heappop
        while events and events[0][0] <= end:
            self.now, _, work, args = pop(events)
            self.steps += 1
            work(*args)
        self.now = max(self.now, end)
