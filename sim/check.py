"""Invariants: what must hold of every world, whatever happened in it.

`sim.witness` sees what is done to disks and sent; here the nodes themselves are looked at: at
each change of a node's view, ten times a virtual second, and at the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import trio

from gossipcache.errors import GossipcacheError, TaskNotFound
from gossipcache.ids import task_id_of
from gossipcache.node.node import Node
from gossipcache.requests import TaskQuery
from gossipcache.results import ExportResult
from sim.machine import Incarnation, NodeKilled
from sim.witness import Task
from sim.world import World

WATCH_INTERVAL_S = 0.1
SAMPLE = tuple(task_id_of(f"sample {number}", "") for number in range(64))
"""Tasks whose keepers are compared between nodes."""
LAST_EXPORT_S = 60.0


async def watch(world: World) -> None:
    """Until cancelled: at every change of a view, no member's incarnation goes back in it, and
    none is beyond what the member itself ever claimed; and no node shows a task again that it
    was said to have dropped."""
    watched: dict[Incarnation, None] = {}
    async with trio.open_nursery() as nursery:
        while True:
            for life in _running(world):
                if life not in watched:
                    watched[life] = None
                    nursery.start_soon(_watch_view, world, life)
            _check_deleted(world)
            await trio.sleep(WATCH_INTERVAL_S)


def _running(world: World) -> list[Incarnation]:
    lives = [world.machines[name].life for name in world.up()]
    return [life for life in lives if life is not None and life.started.is_set()]


async def _watch_view(world: World, life: Incarnation) -> None:
    membership = life.node.services.membership
    seen, epoch = -1, b""
    while True:
        seen = await membership.wait_change(seen)
        if life.is_ending:
            return
        _check_view(world, life)
        ring = membership.ring
        if ring.epoch != epoch:
            epoch = ring.epoch
            keepers = tuple(ring.keepers(task_id, 3) for task_id in SAMPLE)
            world.witness.rings(life.process.name, epoch.hex(), keepers)


def _check_view(world: World, life: Incarnation) -> None:
    viewer, witness = life.process.name, world.witness
    for view in life.node.members():
        if world.chronicle is not None:
            world.chronicle.viewed(world.clock.now, viewer, view.name, view.state)
        news = witness.sees(life, viewer, view.id, view.name, view.incarnation)
        if not news or view.incarnation <= witness.claims(view.id, 0):
            continue
        lives = _lives_of(world, view.id)
        # One that is dead by now may have claimed more than was ever looked at.
        if not all(each.started.is_set() and not each.is_ending for each in lives):
            continue
        mine = max(_own_incarnation(each) for each in lives)
        if view.incarnation > witness.claims(view.id, mine):
            world.report(f"on {viewer} {view.name} has an incarnation it never claimed")


def _lives_of(world: World, node_id: str) -> list[Incarnation]:
    """The last processes with this key: one, unless the key was copied."""
    machines = [m for m in world.machines.values() if m.identity.node_id.hex() == node_id]
    return [machine.life for machine in machines if machine.life is not None]


def _own_incarnation(life: Incarnation) -> int:
    me = life.node.services.membership.member(life.node.node_id)
    return me.incarnation if me is not None else 0


def _check_deleted(world: World) -> None:
    for (cid, tag), confirmed in world.witness.model.deleted.items():
        for name in [each for each in world.up() if each in confirmed]:
            life = world.machines[name].life
            if life is None or not life.started.is_set():
                continue
            if any((task.cid, task.tag) == (cid, tag) for task in life.node.list_tasks()):
                world.report(f"{name} shows {cid!r} again, which it had dropped")
                confirmed.discard(name)


async def at_the_end(world: World) -> None:
    """What is complete reads as what was imported; what was acknowledged can be had while its
    pieces are there; what was deleted is found nowhere."""
    for name in world.up():
        await stores_are_true(world, name)
    for task in list(world.witness.model.acknowledged):
        await _can_still_be_had(world, task)
    for cid, tag in world.witness.model.deleted:
        for name in world.up():
            await _is_gone(world, name, TaskQuery(cid, tag))


async def stores_are_true(world: World, name: str) -> None:
    """No task that a node shows as complete has a wrong byte."""
    tasks = await world.on(name, _complete)
    for task in tasks:
        expected = world.contents.get((task.cid, task.tag))
        if expected is None:
            world.report(f"{name} shows a task {task.cid!r} that nobody imported")
        elif await world.on(name, partial(_content, task)) != expected:
            world.report(f"{name} holds wrong bytes for {task.cid!r}")


async def _can_still_be_had(world: World, task: Task) -> None:
    cid, tag = task
    task_id = task_id_of(cid, tag)
    held = [(name, world.node(name).services.store.find(task_id)) for name in world.up()]
    there = {index for _, stored in held if stored is not None for index in stored.have}
    counts = {stored.have.total for _, stored in held if stored is not None}
    if not counts or len(there) < max(counts):
        return  # its pieces died with their holders
    lacking = [name for name, stored in held if stored is None or not stored.complete]
    name = lacking[0] if lacking else held[0][0]
    try:
        await world.export(name, cid, timeout_s=LAST_EXPORT_S)
    except (GossipcacheError, NodeKilled) as error:
        world.report(f"{cid!r} was acknowledged and all of it is there, but on {name}: {error}")


async def _is_gone(world: World, name: str, task: TaskQuery) -> None:
    try:
        await world.stat(name, task.cid)
    except TaskNotFound:
        return
    world.report(f"{name} still finds {task.cid!r}, which was deleted")


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
        return b"".join([chunk async for chunk in reader.chunks()])
