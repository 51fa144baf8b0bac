"""Runs a test in a small cluster of real nodes on virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import PurePath

import trio

from gossipcache.requests import DeleteRequest, ExportRequest, ImportRequest, TaskQuery
from sim.kernel import engine
from sim.kernel.clock import SimClock
from sim.kernel.entropy import Streams
from sim.trace import Trace
from sim.whole.machine import DATA
from sim.whole.world import PIECE_BYTES, World

__all__ = [
    "DATA",
    "PIECE_BYTES",
    "World",
    "exporting",
    "forget",
    "importing",
    "in_cluster",
    "node_id",
    "query",
    "read",
]


def in_cluster(test: Callable[[World], Awaitable[None]], nodes: int = 3, **changes: object) -> None:
    """Runs `test` with `nodes` nodes `n0`, `n1`, … that all see each other.

    `changes` go to the configuration of every node.
    """

    async def main(clock: SimClock, streams: Streams) -> None:
        async with trio.open_nursery() as nursery:
            world = World(clock, streams, Trace(clock), nursery)
            try:
                await world.start_cluster(nodes, **changes)
                await test(world)
            finally:
                world.end()
            assert not world.wrong, world.wrong

    try:
        engine.run(main, seed=1, limit_s=600.0)
    except BaseExceptionGroup as group:
        raise _innermost(group) from group


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def query(cid: str, **pins: str) -> TaskQuery:
    """The task `cid` without a tag."""
    return TaskQuery(cid, **pins)


def importing(path: PurePath, cid: str | None, **options: object) -> ImportRequest:
    """The import of `path`."""
    return ImportRequest(path=path, cid=cid, **options)  # type: ignore[arg-type]


def exporting(cid: str, name: str, **options: object) -> ExportRequest:
    """The export of `cid` to the file `name` in the machine's data folder."""
    return ExportRequest(task=TaskQuery(cid), path=DATA / name, **options)  # type: ignore[arg-type]


def forget(cid: str, **options: object) -> DeleteRequest:
    """The deletion of `cid`."""
    return DeleteRequest(task=TaskQuery(cid), **options)  # type: ignore[arg-type]


def read(world: World, machine: str, name: str) -> bytes | None:
    """The file `name` in a machine's data folder."""
    return world.machines[machine].get_file(DATA / name)


def node_id(world: World, machine: str) -> str:
    """The id, in hex, of a machine's node."""
    return world.machines[machine].identity.node_id.hex()
