"""Progress of a verb: counted where the work is, reported from the event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from gossipcache.node.beside import beside
from gossipcache.results import Progress

R = TypeVar("R")
ReportProgress = Callable[[Progress], None]
REPORT_INTERVAL_S = 0.25


class Meter:
    """How far a piece of work is. `done_bytes` may be set from a worker."""

    def __init__(self, phase: str, total_bytes: int) -> None:
        self.phase = phase
        self.done_bytes = 0
        self.total_bytes = total_bytes
        self.sources: dict[str, int] = {}

    def reading(self) -> Progress:
        """The present state."""
        return Progress(self.phase, self.done_bytes, self.total_bytes, dict(self.sources))


async def reported(
    meter: Meter, report: ReportProgress | None, work: Callable[[], Awaitable[R]]
) -> R:
    """Runs `work`, and calls `report` with the meter's reading several times a second, and at
    the end if the work succeeded."""
    if report is None:
        return await work()

    async def repeat() -> None:
        while True:
            report(meter.reading())
            await trio.sleep(REPORT_INTERVAL_S)

    result = await beside(repeat, work)
    report(meter.reading())
    return result
