"""Content spreads to everybody, and goes for good when it is deleted."""

from __future__ import annotations

import trio

from gossipcache.errors import NotPermitted, TaskNotFound
from sim.faults import Kill, Partition, Restart
from sim.whole import check
from sim.whole.scenario import Stage, scenario
from sim.whole.world import PIECE_BYTES, World

CID = "dataset.tar"
SIZE = 40 * PIECE_BYTES + 5


@scenario("delete-partition", nodes=6)
async def delete_partition(stage: Stage) -> None:
    """A holder is away while a task is deleted: it drops its copy when it comes back."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    owner, replicas = await world.owner_of("n0", CID)
    away = next(name for name in world.up() if name not in (owner, *replicas))
    await world.import_content("n0" if away != "n0" else owner, CID, SIZE)
    await world.export(away, CID)
    struck = await stage.faults.inject(Partition(island=(away,), for_s=60.0))
    await trio.sleep(45.0)
    deleter = next(name for name in world.up() if name != away)
    await world.delete(deleter, CID)
    await _is_gone(world, deleter)
    await trio.sleep_until(struck + 60.0)
    await world.wait_views(stage.nodes)
    await _dropped_by(world, away)
    await trio.sleep(60.0)
    for name in world.up():
        await _is_gone(world, name)
        await _dropped_by(world, name)


@scenario("delete-dead-holder", nodes=6)
async def delete_dead_holder(stage: Stage) -> None:
    """A holder is dead while a task is deleted, and restarts with its disk: no resurrection."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    owner, replicas = await world.owner_of("n0", CID)
    dead = next(name for name in world.up() if name not in (owner, *replicas))
    await world.import_content(dead, CID, SIZE)
    await stage.faults.inject(Kill(node=dead))
    await trio.sleep(30.0)
    await world.delete(owner, CID)
    await stage.faults.inject(Restart(node=dead))
    await world.wait_views(stage.nodes)
    await _dropped_by(world, dead)
    for name in world.up():
        await _is_gone(world, name)
    await world.import_content("n0", CID, SIZE)
    await world.export(dead, CID)


@scenario("import-again", nodes=3)
async def import_again(stage: Stage) -> None:
    """What was deleted is imported again at once, and can be had."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, SIZE)
    await world.delete("n1", CID)
    with trio.move_on_after(3.0) as patience:
        await world.import_content("n2", CID, SIZE)
    if patience.cancelled_caught:
        world.report("what was deleted cannot be imported again")
        return
    await world.export("n1", CID)


@scenario("delete-last-copies")
async def delete_last_copies(stage: Stage) -> None:
    """Both holders of a task drop their copy at one instant: exactly one of them may."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, SIZE)
    await world.export("n1", CID)
    await trio.sleep(5.0)  # until the keepers know of both copies
    refused: list[str] = []

    async def drop(name: str) -> None:
        try:
            await world.delete(name, CID, local=True)
        except NotPermitted:
            refused.append(name)

    async with trio.open_nursery() as nursery:
        for name in ("n0", "n1"):
            nursery.start_soon(drop, name)
    if len(refused) != 1:
        world.report(f"{len(refused)} of the last two holders were refused: {refused}")
    child = await world.export("n2", CID)
    check.each_byte_once(world, child, SIZE)
    check.only_from(world, child, refused)


@scenario("one-to-many", nodes=10)
async def one_to_many(stage: Stage) -> None:
    """One seed gives a task to all others at once; they give it to each other."""
    world = stage.world
    size = 64 * PIECE_BYTES + 5
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, size)
    children = [name for name in world.up() if name != "n0"]
    started = world.clock.now
    from_seed = 0

    async def export(name: str) -> None:
        nonlocal from_seed
        result = await world.export(name, CID)
        check.each_byte_once(world, result, size)
        from_seed += result.bytes_by_source.get(world.machines["n0"].identity.node_id.hex(), 0)

    async with trio.open_nursery() as nursery:
        for name in children:
            nursery.start_soon(export, name)
    elapsed_s = world.clock.now - started
    world.metrics["broadcast s"] = round(elapsed_s, 3)
    world.metrics["share from the seed"] = round(from_seed / (size * len(children)), 3)
    wire_s = size / world.fabric.profile.host_bytes_per_s
    world.metrics["times the wire"] = round(elapsed_s / wire_s, 2)


async def _is_gone(world: World, name: str) -> None:
    try:
        await world.stat(name, CID)
    except TaskNotFound:
        return
    world.report(f"{name} still finds the deleted task")


async def _dropped_by(world: World, name: str) -> None:
    node = world.node(name)
    await world.wait_until(
        f"{name} dropped its copy",
        lambda: not any(task.cid == CID for task in node.list_tasks()),
        within_s=30.0,
    )
