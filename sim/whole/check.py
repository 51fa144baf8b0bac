"""What must hold at the end of every world, whatever happened in it, and of some exports.

`sim.whole.watch` and `sim.whole.witness` see to what must hold all the time.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from gossipcache.errors import GossipcacheError, TaskNotFound
from gossipcache.ids import task_id_of
from gossipcache.node.node import Node
from gossipcache.requests import TaskQuery
from gossipcache.results import ExportResult
from gossipcache.transfer.store.index import LinkStamp
from sim.whole.machine import NodeKilled
from sim.whole.witness import Task
from sim.whole.world import World

LAST_EXPORT_S = 60.0


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
    """No piece that a node says it has is wrong, unless its disk spoilt it, and no task that it
    shows as complete reads as anything but what was imported."""
    disk = world.machines[name].disk
    with disk.unhindered():
        _pieces_are_true(world, name)
    for task in await world.on(name, _complete):
        expected = world.contents.get((task.cid, task.tag))
        if expected is None:
            world.report(f"{name} shows a task {task.cid!r} that nobody imported")
            continue
        try:
            found = await world.on(name, partial(_content, task))
        except GossipcacheError as error:
            if disk.is_sound:
                world.report(f"{name} cannot read {task.cid!r}, which is complete: {error}")
            continue
        if found != expected:
            world.report(f"{name} holds wrong bytes for {task.cid!r}")


def _pieces_are_true(world: World, name: str) -> None:
    store, disk = world.node(name).services.store, world.machines[name].disk
    for stored in store.tasks(unpublished=True):
        manifest = stored.signed.manifest
        expected = world.witness.model.stored.get(manifest.task_id.hex())
        path = store.data_path(stored.task_id)
        stamp = disk.stamp(path)
        if stamp is None or (stored.linked is not None and LinkStamp.of(stamp) != stored.linked):
            continue  # gone, or edited: it is not served either
        file = disk.open(path, "read")
        for index in stored.have if expected is not None else ():
            start, size = index * manifest.piece_size, manifest.piece_length(index)
            true = expected[start : start + size] if expected is not None else b""
            at = stored.start + start
            if file.read_at(at, size) != true and not file.is_rotten(at, size):
                world.report(f"{name} says that it has piece {index} of {manifest.cid!r}: wrong")
        file.close()


async def _can_still_be_had(world: World, task: Task) -> None:
    cid, tag = task
    task_id = task_id_of(cid, tag)
    held = [(name, world.node(name).services.store.find(task_id)) for name in world.up()]
    # What an unsound disk is said to hold may be lost.
    sound = [stored for name, stored in held if world.machines[name].disk.is_sound]
    there = {index for stored in sound if stored is not None for index in stored.have}
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
