"""Disks fill up and rot."""

from __future__ import annotations

from pathlib import PurePath

import trio

from gossipcache.errors import NoSpace
from sim import check
from sim.faults import BitRot, DiskFull
from sim.machine import Machine
from sim.scenario import Stage, scenario
from sim.world import HOME, PIECE_BYTES

CID = "weights.bin"
SIZE = 48 * PIECE_BYTES + 3


@scenario("bit-rot")
async def bit_rot(stage: Stage) -> None:
    """One of two copies decays on its disk: no export ever shows a wrong byte."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, SIZE)
    await world.export("n1", CID)
    data = _data_file(world.machines["n0"], SIZE)
    offset = world.streams.named("scenario").randrange(SIZE)
    await stage.faults.inject(BitRot(node="n0", path=str(data), offset=offset))
    result = await world.export("n2", CID)
    check.each_byte_once(world, result, SIZE)
    await world.export("n0", CID)


@scenario("disk-full")
async def disk_full(stage: Stage) -> None:
    """A child's disk is full: the export says so, and works when there is room again."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, SIZE)
    await stage.faults.inject(DiskFull(node="n1", free_bytes=SIZE // 2, for_s=20.0))
    try:
        await world.export("n1", CID)
        world.report("an export to a full disk succeeded")
    except NoSpace:
        pass
    await world.export("n2", CID)
    await trio.sleep(21.0)
    await world.export("n1", CID)


def _data_file(machine: Machine, size: int) -> PurePath:
    """Where a node's store keeps content of `size` bytes."""
    waiting = [HOME / "store"]
    for path in waiting:  # grows while it is walked
        stamp = machine.disk.stamp(path)
        if stamp is not None and stamp.kind == "file" and stamp.size == size:
            return path
        if stamp is not None and stamp.kind == "directory":
            waiting.extend(path / name for name in machine.disk.list_folder(path))
    raise AssertionError(f"no file of {size} bytes in the store of {machine.name}")
