"""What the simulated disk does beyond the contract: it loses, tears, fills up and rots."""

from __future__ import annotations

import errno
import random
from pathlib import PurePath

import pytest

from gossipcache.errors import NoSpace
from sim.storage.disk import DiskCrashed, SimDisk

HOME = PurePath("/home")


@pytest.fixture
def disk() -> SimDisk:
    disk = SimDisk(capacity_bytes=10_000)
    disk.make_folder(HOME)
    disk.sync_folder(PurePath("/"))
    return disk


def put(disk: SimDisk, name: str, data: bytes, *, sync: bool) -> None:
    file = disk.open(HOME / name, "create")
    file.write_at(0, data)
    if sync:
        file.sync()
        disk.sync_folder(HOME)
    file.close()


def content(disk: SimDisk, name: str) -> bytes:
    return disk.open(HOME / name, "read").read_at(0, 10_000)


def test_power_loss_takes_what_was_not_synced(disk: SimDisk) -> None:
    put(disk, "synced", b"safe", sync=True)
    put(disk, "pending", b"lost", sync=False)
    file = disk.open(HOME / "synced", "write")
    file.write_at(0, b"S")
    disk = disk.crash()
    assert disk.list_folder(HOME) == ["synced"]
    assert content(disk, "synced") == b"safe"


def test_a_dead_process_loses_nothing(disk: SimDisk) -> None:
    put(disk, "pending", b"kept", sync=False)
    disk = disk.crash(power_loss=False)
    assert content(disk, "pending") == b"kept"


def test_the_dead_change_nothing(disk: SimDisk) -> None:
    file = disk.open(HOME / "a", "create")
    survivor = disk.crash(power_loss=False)
    with pytest.raises(DiskCrashed):
        file.write_at(0, b"x")
    with pytest.raises(DiskCrashed):
        disk.remove(HOME / "a")
    assert content(survivor, "a") == b""


def test_rename_without_a_folder_sync_may_be_lost_but_never_half(disk: SimDisk) -> None:
    put(disk, "target", b"old", sync=True)
    put(disk, "new", b"new", sync=True)
    disk.rename(HOME / "new", HOME / "target")
    for seed in range(8):
        copy = SimDisk()
        copy.make_folder(HOME)
        for name in ("target", "new"):
            put(copy, name, name.encode(), sync=True)
        copy.sync_folder(PurePath("/"))
        copy.rename(HOME / "new", HOME / "target")
        copy = copy.crash(rng=random.Random(seed))
        assert copy.list_folder(HOME) in (["target"], ["new", "target"])
        assert content(copy, "target") in (b"target", b"new")


def test_a_folder_that_moved_stands_in_one_place_after_a_power_loss() -> None:
    for seed in range(40):
        disk = SimDisk()
        for name in ("from/it", "to"):
            disk.make_folder(HOME / name)
        for folder in (PurePath("/"), HOME, HOME / "from"):
            disk.sync_folder(folder)
        disk.rename(HOME / "from/it", HOME / "to/it")
        synced = seed % 2 == 0
        if synced:
            disk.sync_folder(HOME / "to")
        disk = disk.crash(rng=random.Random(seed))
        places = [name for name in ("from", "to") if disk.list_folder(HOME / name)]
        assert places == ["to"] or (not synced and places == ["from"])


def test_pending_writes_survive_partly_and_torn() -> None:
    seen = set()
    for seed in range(40):
        disk = SimDisk()
        disk.make_folder(HOME)
        disk.sync_folder(PurePath("/"))
        put(disk, "a", b"-" * 2048, sync=True)
        file = disk.open(HOME / "a", "write")
        file.write_at(0, b"x" * 2048)
        seen.add(content(disk.crash(rng=random.Random(seed)), "a").count(b"x"))
    assert {0, 2048} < seen
    assert all(count % 512 == 0 for count in seen)


def test_the_process_can_die_at_any_operation(disk: SimDisk) -> None:
    disk.crash_at(disk.operations + 2)
    file = disk.open(HOME / "a", "create")
    with pytest.raises(DiskCrashed):
        file.write_at(0, b"never")
    assert content(disk.crash(power_loss=False), "a") == b""


def test_a_full_disk_raises_no_space_and_gives_room_back(disk: SimDisk) -> None:
    file = disk.open(HOME / "a", "create")
    with pytest.raises(NoSpace):
        file.write_at(0, bytes(10_001))
    file.write_at(0, bytes(9_000))
    assert disk.free_bytes(HOME) == 1_000
    with pytest.raises(NoSpace):
        file.allocate(10_001)
    file.close()
    disk.link(HOME / "a", HOME / "b")
    disk.remove(HOME / "a")
    assert disk.free_bytes(HOME) == 1_000
    disk.remove(HOME / "b")
    assert disk.free_bytes(HOME) == 10_000
    assert disk.bites["no_space"] == 2


def test_rot_flips_a_bit_and_counts_when_it_is_read(disk: SimDisk) -> None:
    put(disk, "a", b"abc", sync=True)
    disk.rot(HOME / "a", 1)
    assert disk.bites.get("rot", 0) == 0
    assert content(disk, "a") == b"acc"
    assert disk.bites["rot"] == 1
    disk.open(HOME / "a", "write").write_at(0, b"abc")
    assert content(disk, "a") == b"abc"
    assert disk.bites["rot"] == 1


def test_an_armed_failure_is_raised_once(disk: SimDisk) -> None:
    disk.fail("sync", errno.EIO)
    file = disk.open(HOME / "a", "create")
    with pytest.raises(OSError, match="Input/output"):
        file.sync()
    file.sync()
    assert disk.bites["sync_error"] == 1


def test_work_costs_virtual_time(disk: SimDisk) -> None:
    disk.take_cost_s()
    put(disk, "a", bytes(5_000), sync=True)
    assert disk.take_cost_s() > 2 * disk.medium.timing.sync_s
    assert disk.take_cost_s() == 0
