"""Applies what befalls disks."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import PurePath

from sim.faults import (
    BitRot,
    DiskFull,
    LostWrite,
    MisdirectedWrite,
    ReadError,
    ReadOnlyDisk,
    SlowSync,
    SyncError,
    TornWrite,
    VanishedFile,
    WriteError,
)
from sim.injection.applying import Bites, Strike, applies, nothing
from sim.storage.defects import LostWrite as Losing
from sim.storage.defects import MisdirectedWrite as Misdirecting
from sim.storage.defects import TornWrite as Tearing
from sim.storage.disk import SimDisk
from sim.storage.medium import Diversion


def _disk(strike: Strike, name: str) -> SimDisk | None:
    machine = strike.world.machines.get(name)
    return None if machine is None else machine.disk


def _bites(disk: SimDisk, kind: str) -> Bites:
    """How often a fault of `kind` took effect from now on."""
    before = disk.bites.get(kind, 0)
    return lambda: disk.bites.get(kind, 0) - before


@applies(DiskFull)
async def _fill(strike: Strike, fault: DiskFull) -> Bites:
    disk = _disk(strike, fault.node)
    if disk is None:
        return nothing
    medium, before = disk.medium, disk.medium.capacity_bytes
    medium.capacity_bytes = before - disk.free_bytes(PurePath("/")) + fault.free_bytes

    def make_room() -> None:
        medium.capacity_bytes = before

    strike.ends(fault.for_s, make_room)
    return _bites(disk, "no_space")


@applies(ReadError)
async def _fail_reads(strike: Strike, fault: ReadError) -> Bites:
    return _fail(strike, fault.node, "read", fault.count, fault.for_s)


@applies(WriteError)
async def _fail_writes(strike: Strike, fault: WriteError) -> Bites:
    return _fail(strike, fault.node, "write", fault.count, fault.for_s)


@applies(SyncError)
async def _fail_syncs(strike: Strike, fault: SyncError) -> Bites:
    return _fail(strike, fault.node, "sync", fault.count, fault.for_s)


def _fail(strike: Strike, name: str, kind: str, count: int, for_s: float) -> Bites:
    disk = _disk(strike, name)
    if disk is None:
        return nothing
    disk.fail(kind, errno.EIO, count)
    medium = disk.medium
    strike.ends(for_s, lambda: medium.defects.failing.pop(kind, []).clear())
    return _bites(disk, f"{kind}_error")


@applies(TornWrite)
async def _tear(strike: Strike, fault: TornWrite) -> Bites:
    world, name = strike.world, fault.node

    def lose_power() -> None:
        world.lose_power(name)

    return _divert(strike, name, fault.for_s, lambda disk: Tearing(lose_power))


@applies(LostWrite)
async def _lose(strike: Strike, fault: LostWrite) -> Bites:
    return _divert(strike, fault.node, fault.for_s, lambda disk: Losing(fault.min_bytes))


@applies(MisdirectedWrite)
async def _misdirect(strike: Strike, fault: MisdirectedWrite) -> Bites:
    def made(disk: SimDisk) -> Diversion:
        return Misdirecting(fault.min_bytes, disk.medium.root)

    return _divert(strike, fault.node, fault.for_s, made)


def _divert(strike: Strike, name: str, for_s: float, made: Callable[[SimDisk], Diversion]) -> Bites:
    """The next write that fits goes another way."""
    disk = _disk(strike, name)
    if disk is None:
        return nothing
    diversions, diversion = disk.medium.defects.diversions, made(disk)
    diversions.append(diversion)

    def spare() -> None:
        if diversion in diversions:
            diversions.remove(diversion)

    strike.ends(for_s, spare)
    return lambda: int(diversion.taken)


@applies(BitRot)
async def _rot(strike: Strike, fault: BitRot) -> Bites:
    disk = _disk(strike, fault.node)
    if disk is None or not _is_file(disk, fault.path):
        return nothing
    disk.rot(PurePath(fault.path), fault.offset)
    return _bites(disk, "rot")


@applies(SlowSync)
async def _slow_syncs(strike: Strike, fault: SlowSync) -> Bites:
    disk = _disk(strike, fault.node)
    if disk is None:
        return nothing
    medium = disk.medium
    medium.defects.sync_delay_s = fault.seconds

    def hurry() -> None:
        medium.defects.sync_delay_s = 0.0

    strike.ends(fault.for_s, hurry)
    return _bites(disk, "slow_sync")


@applies(ReadOnlyDisk)
async def _mount_read_only(strike: Strike, fault: ReadOnlyDisk) -> Bites:
    disk = _disk(strike, fault.node)
    if disk is None:
        return nothing
    medium = disk.medium
    medium.defects.read_only = True

    def remount() -> None:
        medium.defects.read_only = False

    strike.ends(fault.for_s, remount)
    return _bites(disk, "read_only")


@applies(VanishedFile)
async def _vanish(strike: Strike, fault: VanishedFile) -> Bites:
    disk, path = _disk(strike, fault.node), PurePath(fault.path)
    if disk is None or not _is_file(disk, fault.path):
        return nothing
    with disk.unhindered():
        disk.remove(path)
        disk.sync_folder(path.parent)
    disk.medium.defects.vanished[path] = None
    return _bites(disk, "vanished")


def _is_file(disk: SimDisk, path: str) -> bool:
    stamp = disk.stamp(PurePath(path))
    return stamp is not None and stamp.kind == "file"
