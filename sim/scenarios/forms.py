"""Content that is not one file on the importer's disk: folders and streams."""

from __future__ import annotations

from contextlib import suppress

import trio

from sim.faults import Kill, Restart
from sim.whole import check
from sim.whole.machine import NodeKilled
from sim.whole.scenario import Stage, scenario
from sim.whole.witness import Tree
from sim.whole.world import PIECE_BYTES, World

CID = "site"
STREAM_SIZE = 60 * PIECE_BYTES + 11
CHUNK_BYTES = 100_000


@scenario("tree", nodes=6)
async def tree(stage: Stage) -> None:
    """A folder is imported, the owner of its task dies, and it is exported as it was."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    owner, replicas = await world.owner_of("n0", CID)
    away = [name for name in world.up() if name not in (owner, *replicas)]
    imported = await world.import_tree(away[0], CID, _folder(world))
    await stage.faults.inject(Kill(node=owner))
    result = await world.export(replicas[0], CID)
    check.each_byte_once(world, result, imported.size)


@scenario("stream-import")
async def stream_import(stage: Stage) -> None:
    """A node dies while a stream comes in: no half task is shown, and a second try succeeds."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    moment_s = world.streams.named("scenario").uniform(0.0, 0.45)

    async def import_and_die() -> None:
        with suppress(NodeKilled):
            await _import(world)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(import_and_die)
        await trio.sleep(moment_s)
        await stage.faults.inject(Kill(node="n1"))
    await stage.faults.inject(Restart(node="n1"))
    await world.wait_views(stage.nodes)
    await check.stores_are_true(world, "n1")
    if any(not task.complete for task in world.node("n1").list_tasks()):
        world.report("n1 shows half a task")
    await _import(world)
    check.each_byte_once(world, await world.export("n2", CID), STREAM_SIZE)


async def _import(world: World) -> None:
    await world.import_stream("n1", CID, STREAM_SIZE, chunk_bytes=CHUNK_BYTES, interval_s=0.01)


def _folder(world: World) -> Tree:
    rng = world.streams.named("scenario")
    small: Tree = {f"pages/{n:03}.html": rng.randbytes(rng.randrange(2000)) for n in range(100)}
    return {
        "README": b"",
        "a name with spaces/Ünïcode.txt": "größer".encode(),
        "bin/run.sh": b"#!/bin/sh\n",
        "empty": None,
        "latest": "pages/001.html",
        "bin/up": "../README",
        "video": rng.randbytes(20 * PIECE_BYTES + 1),
        **small,
    }
