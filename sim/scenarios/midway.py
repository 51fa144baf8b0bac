"""Striking in the middle of an export."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from gossipcache.results import ExportResult, Progress
from sim.whole.world import World


async def struck_midway(
    world: World, child: str, cid: str, strike: Callable[[dict[str, int]], Awaitable[None]]
) -> ExportResult:
    """Exports on `child`; when a third of it is there, `strike` is called with the bytes that
    came from each source by then."""
    third = trio.Event()
    sources: dict[str, int] = {}

    def watch(progress: Progress) -> None:
        sources.update(progress.sources)
        if progress.done_bytes * 3 > progress.total_bytes > 0 and sources:
            third.set()

    outcome: list[ExportResult] = []

    async def export() -> None:
        outcome.append(await world.export(child, cid, progress=watch))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(export)
        await third.wait()
        assert not outcome, "the export was over before the fault"
        await strike(sources)
    world.metrics["resumed bytes"] = outcome[0].resumed_bytes
    return outcome[0]


def busiest(world: World, sources: dict[str, int]) -> str:
    """The machine that most bytes came from."""
    return world.name_of(max(sources, key=lambda node: (sources[node], node)))
