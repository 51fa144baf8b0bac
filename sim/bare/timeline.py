"""Virtual time without Trio: the heap of events, and the hand that moves along it."""

from __future__ import annotations

import heapq
import math

from sim.kernel.heap import EventHeap


class TimeLimit(Exception):
    """The run takes longer than it may."""


class Timeline(EventHeap):
    """Seconds of virtual time from 0."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.limit_s = math.inf
        self.steps = 0
        """How many events have happened."""

    def run_to(self, end: float) -> None:
        """Lets everything up to `end` happen; it is then `end`. Raises `TimeLimit`."""
        events, pop = self.events, heapq.heappop
        until = min(end, self.limit_s)
        while self.has_event(until):
            while events and events[0][0] <= until:
                self.now, _, work, args = pop(events)
                self.steps += 1
                work(*args)
        self.now = max(self.now, until)
        if until < end:
            self.limit_s = math.inf
            raise TimeLimit(f"time limit at {self.now:.3f} virtual seconds")
