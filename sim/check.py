"""Invariants: what must hold of every world, whatever happened in it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import trio

from gossipcache.node.node import Node
from gossipcache.requests import TaskQuery
from gossipcache.results import ExportResult
from sim.machine import Incarnation
from sim.world import World

WATCH_INTERVAL_S = 0.5


async def watch(world: World) -> None:
    """Looks at every running node again and again: no member's incarnation ever goes back in
    one node's view, and none is beyond what the member itself ever claimed."""
    seen: dict[tuple[Incarnation, str], int] = {}
    claimed: dict[str, int] = {}
    while True:
        running = [world.machines[name] for name in world.up()]
        lives = [each.life for each in running if each.life and each.life.started.is_set()]
        for life in lives:
            own = life.node.node_id.hex()
            for view in life.node.members():
                if view.id == own:
                    claimed[own] = max(claimed.get(own, 0), view.incarnation)
        for life in lives:
            _check_view(world, life, seen, claimed)
        await trio.sleep(WATCH_INTERVAL_S)


def _check_view(
    world: World,
    life: Incarnation,
    seen: dict[tuple[Incarnation, str], int],
    claimed: dict[str, int],
) -> None:
    viewer = life.process.name
    for view in life.node.members():
        before = seen.get((life, view.id), 0)
        if view.incarnation < before:
            world.report(f"on {viewer} the incarnation of {view.name} went back")
        # A member that is dead by now may have claimed more than was ever looked at.
        alive = world.machines[world.name_of(view.id)].is_up
        if alive and view.incarnation > claimed.get(view.id, view.incarnation):
            world.report(f"on {viewer} {view.name} has an incarnation it never claimed")
        seen[life, view.id] = view.incarnation


async def at_the_end(world: World) -> None:
    """Checks every running node's store: what it calls complete reads as what was imported."""
    for name in world.up():
        await stores_are_true(world, name)


async def stores_are_true(world: World, name: str) -> None:
    """No task that a node shows as complete has a wrong byte."""
    tasks = await world.on(name, _complete)
    for task in tasks:
        expected = world.contents.get((task.cid, task.tag))
        if expected is None:
            world.report(f"{name} shows a task {task.cid!r} that nobody imported")
        elif await world.on(name, partial(_content, task)) != expected:
            world.report(f"{name} holds wrong bytes for {task.cid!r}")


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


async def _complete(node: Node) -> list[TaskQuery]:
    return [TaskQuery(task.cid, task.tag) for task in node.list_tasks() if task.complete]


async def _content(task: TaskQuery, node: Node) -> bytes:
    async with node.reader(task, local=True) as reader:
        return bytes(await reader.read(0, reader.size))
