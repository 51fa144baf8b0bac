"""Disks fill up and rot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import PurePath

import trio

from gossipcache.config import StoreConfig
from gossipcache.errors import NoSpace
from gossipcache.requests import ExportRequest, TaskQuery
from sim.faults import BandwidthCap, BitRot, DiskFull, Kill, PowerLoss, Restart
from sim.storage.disk import SimDisk
from sim.whole import check
from sim.whole.machine import DATA, Machine, NodeKilled
from sim.whole.scenario import Stage, scenario
from sim.whole.world import HOME, PIECE_BYTES

CID = "weights.bin"
SIZE = 48 * PIECE_BYTES + 3


@scenario("bit-rot")
async def bit_rot(stage: Stage) -> None:
    """One of two copies decays on its disk, twice: no export ever shows a wrong byte."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, SIZE)
    await world.export("n1", CID)
    data = _data_file(world.machines["n0"], SIZE)
    rng = world.streams.named("scenario")
    await stage.faults.inject(BitRot(node="n0", path=str(data), offset=rng.randrange(SIZE)))
    result = await world.export("n2", CID)
    check.each_byte_once(world, result, SIZE)
    # What a child met is repaired by now, so that a second place is to rot.
    await stage.faults.inject(BitRot(node="n0", path=str(data), offset=rng.randrange(SIZE)))
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


@scenario("child-power-loss")
async def child_power_loss(stage: Stage) -> None:
    """A child's machine goes off when its synced export has returned: all of it is whole."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, SIZE)
    machine = world.machines["n1"]
    machine.disk.make_folder(DATA)
    machine.disk.sync_folder(DATA.parent)
    path = DATA / "weights"
    request = ExportRequest(task=TaskQuery(CID), path=path, sync=True)
    await world.on("n1", lambda node: node.export(request))
    await stage.faults.inject(PowerLoss(node="n1"))
    if machine.get_file(path) != world.contents[CID, ""]:
        world.report("what n1 had exported is not whole after a power loss")
    await stage.faults.inject(Restart(node="n1"))
    await world.wait_views(stage.nodes)
    await stage.faults.inject(Kill(node="n0"))
    await check.stores_are_true(world, "n1")
    check.only_from(world, await world.export("n2", CID), ("n1",))


@scenario("child-killed-after-export")
async def child_killed_after_export(stage: Stage) -> None:
    """A child dies as soon as its export has returned, before anything of it is durable: when it
    is back and the publisher is dead, its copy is whole, and is given on."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, SIZE)
    await world.export("n1", CID)
    await stage.faults.inject(Kill(node="n1"))
    await stage.faults.inject(Restart(node="n1"))
    await world.wait_views(stage.nodes)
    await stage.faults.inject(Kill(node="n0"))
    await check.stores_are_true(world, "n1")
    check.only_from(world, await world.export("n2", CID), ("n1",))


@scenario("child-power-loss-midway")
async def child_power_loss_midway(stage: Stage) -> None:
    """A child's machine goes off in mid-export: the pieces that its index claims are there."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, SIZE)
    await stage.faults.inject(BandwidthCap(node="n0", bytes_per_s=SIZE / 4, for_s=60.0))

    async def export() -> None:
        with suppress(NodeKilled):
            await world.export("n1", CID)

    def has_some() -> bool:
        return any(task.durable.count for task in world.node("n1").services.store.tasks())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(export)
        assert await world.wait_until("n1 has some pieces", has_some, 30.0)
        await stage.faults.inject(PowerLoss(node="n1"))
    await stage.faults.inject(Restart(node="n1"))
    await world.wait_views(stage.nodes)
    await check.stores_are_true(world, "n1")
    result = await world.export("n1", CID)
    if not result.resumed_bytes:
        world.report("n1 kept nothing of what it had marked")


@scenario("child-power-loss-after-export")
async def child_power_loss_after_export(stage: Stage) -> None:
    """A child's machine goes off when its export has returned: what it still has is true."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, SIZE)
    await world.export("n1", CID)
    await stage.faults.inject(PowerLoss(node="n1"))
    await stage.faults.inject(Restart(node="n1"))
    await world.wait_views(stage.nodes)
    await check.stores_are_true(world, "n1")
    await world.export("n1", CID)
    await world.export("n2", CID)


@scenario("rotten-index")
async def rotten_index(stage: Stage) -> None:
    """A byte of a node's index decays: it starts again, with all of its tasks."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    cids = [f"part-{number}" for number in range(4)]
    for cid in cids:
        await world.import_content("n0", cid, 3 * PIECE_BYTES)
    await stage.faults.inject(Kill(node="n0"))
    disk = world.machines["n0"].disk
    index = next(path for path in _files(disk, HOME) if "index" in path.name)
    stamp = disk.stamp(index)
    assert stamp is not None
    offset = world.streams.named("scenario").randrange(stamp.size)
    await stage.faults.inject(BitRot(node="n0", path=str(index), offset=offset))
    await stage.faults.inject(Restart(node="n0"))
    await world.wait_views(stage.nodes)
    for cid in cids:
        await world.export("n1", cid)


@scenario("quota-of-the-last-copy")
async def quota_of_the_last_copy(stage: Stage) -> None:
    """A node has far more than its quota: it drops what others have too, and nothing else."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    full = list(world.machines)[-1]
    for cid in ("alone", "shared"):
        await world.import_content(full, cid, SIZE)
    await world.export("n1", "shared")
    await stage.faults.inject(Kill(node=full))
    machine = world.machines[full]
    machine.config = replace(machine.config, store=StoreConfig(quota_bytes=1, gc_interval_s=5.0))
    await stage.faults.inject(Restart(node=full))
    await world.wait_views(stage.nodes)
    node = world.node(full)
    await world.wait_until(
        "what others have is dropped", lambda: len(node.list_tasks()) <= 1, within_s=30.0
    )
    await trio.sleep(20.0)
    for cid in ("alone", "shared"):
        await world.export("n2", cid)


def _data_file(machine: Machine, size: int) -> PurePath:
    """Where a node's store keeps content of `size` bytes."""
    for path in _files(machine.disk, HOME / "store"):
        stamp = machine.disk.stamp(path)
        if stamp is not None and stamp.size == size:
            return path
    raise AssertionError(f"no file of {size} bytes in the store of {machine.name}")


def _files(disk: SimDisk, folder: PurePath) -> Iterator[PurePath]:
    waiting = [folder]
    for path in waiting:  # grows while it is walked
        stamp = disk.stamp(path)
        if stamp is not None and stamp.kind == "file":
            yield path
        if stamp is not None and stamp.kind == "directory":
            waiting.extend(path / name for name in disk.list_folder(path))
