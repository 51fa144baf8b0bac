"""Invariants: what must hold of every world, whatever happened in it."""

from __future__ import annotations

from collections.abc import Iterable

from gossipcache.node.node import Node
from gossipcache.requests import TaskQuery
from gossipcache.results import ExportResult
from sim.world import World


async def at_the_end(world: World) -> None:
    """Checks every running node's store: what it calls complete reads as what was imported."""
    for name in world.up():
        await stores_are_true(world, name)


async def stores_are_true(world: World, name: str) -> None:
    """No task that a node shows as complete has a wrong byte."""
    tasks = await world.on(name, _complete)
    for cid, tag in tasks:
        expected = world.contents.get((cid, tag))
        if expected is None:
            world.report(f"{name} shows a task {cid!r} that nobody imported")
            continue
        read = await world.on(name, lambda node, c=cid, t=tag: _content(node, c, t))
        if read != expected:
            world.report(f"{name} holds wrong bytes for {cid!r}")


def each_byte_once(world: World, result: ExportResult, size: int) -> None:
    """No piece of an export was fetched twice, and none came from nowhere."""
    fetched = sum(result.bytes_by_source.values())
    if fetched + result.resumed_bytes != size:
        world.report(
            f"an export of {size} bytes fetched {fetched} and resumed {result.resumed_bytes}"
        )


def only_from(world: World, result: ExportResult, allowed: Iterable[str]) -> None:
    """The bytes came from the machines that had them."""
    sources = {world.name_of(node) for node in result.bytes_by_source}
    if not sources <= set(allowed):
        world.report(f"bytes came from {sorted(sources)}, not from {sorted(allowed)}")


async def _complete(node: Node) -> list[tuple[str, str]]:
    return [(task.cid, task.tag) for task in node.list_tasks() if task.complete]


async def _content(node: Node, cid: str, tag: str) -> bytes:
    async with node.reader(TaskQuery(cid, tag), local=True) as reader:
        return bytes(await reader.read(0, reader.size))
