"""Wakes what a core is driven by when the core says so."""

from __future__ import annotations

from collections.abc import Callable

from sim.bare.process import Process
from sim.bare.timeline import Timeline


class Alarm:
    """Calls `mind` as a step of the process once `due` (monotonic s; None: never) has come."""

    def __init__(
        self,
        timeline: Timeline,
        process: Process,
        due: Callable[[], float | None],
        mind: Callable[[], None],
    ) -> None:
        self._timeline = timeline
        self._process = process
        self._due = due
        self._mind = mind
        self._at: float | None = None

    def set(self) -> None:
        """The core has been told something: it may be due at another time."""
        due = self._due()
        at = None if due is None else max(due, self._timeline.now)
        if at != self._at:
            # What was to ring before finds that it is not expected any more.
            self._at = at
            if at is not None:
                self._timeline.push(at, self._ring, at)

    def _ring(self, at: float) -> None:
        if at == self._at:
            self._at = None
            self._process.step(self._mind)
