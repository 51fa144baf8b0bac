"""What bad disks do: to the next write that fits, or to whatever comes."""

from __future__ import annotations

import errno
from pathlib import PurePath

import pytest

from sim.storage.defects import LostWrite, MisdirectedWrite, TornWrite
from sim.storage.disk import SimDisk

FILE = PurePath("/file")


@pytest.fixture
def disk() -> SimDisk:
    disk = SimDisk()
    put(disk, FILE, b"." * 16_384)
    return disk


def put(disk: SimDisk, path: PurePath, data: bytes) -> None:
    file = disk.open(path, "create")
    file.write_at(0, data)
    file.sync()
    file.close()
    disk.sync_folder(path.parent)


def test_a_lost_write_is_acknowledged_and_the_disk_is_to_blame(disk: SimDisk) -> None:
    disk.medium.defects.diversions.append(LostWrite(min_bytes=100))
    file = disk.open(FILE, "write")
    file.write_at(0, b"small")
    file.write_at(100, b"x" * 100)
    assert file.read_at(0, 200) == b"small" + b"." * 195
    assert file.is_rotten(150, 1)
    assert not file.is_rotten(0, 100)
    file.write_at(100, b"x" * 100)
    assert file.read_at(100, 100) == b"x" * 100
    assert not file.is_rotten(0, 200)


def test_a_misdirected_write_lands_elsewhere(disk: SimDisk) -> None:
    disk.medium.defects.diversions.append(MisdirectedWrite(100, disk.medium.root))
    file = disk.open(FILE, "write")
    file.write_at(0, b"x" * 100)
    content = file.read_at(0, 16_384)
    assert content.count(b"x") == 100
    assert not content.startswith(b"x")
    assert file.is_rotten(0, 100)
    assert file.is_rotten(content.index(b"x"), 1)


def test_a_misdirected_write_may_hit_another_file(disk: SimDisk) -> None:
    disk.medium.defects.diversions.append(MisdirectedWrite(100, disk.medium.root))
    put(disk, PurePath("/new"), b"x" * 100)
    assert disk.open(FILE, "read").read_at(0, 100) == b"x" * 100
    assert disk.open(PurePath("/new"), "read").read_at(0, 100) == bytes(100)


def test_a_torn_write_is_half_there_when_the_power_goes(disk: SimDisk) -> None:
    went: list[bool] = []
    disk.medium.defects.diversions.append(TornWrite(lambda: went.append(True)))
    disk.open(FILE, "write").write_at(0, b"x" * 4096)
    assert went == [True]
    after = disk.crash()
    assert after.open(FILE, "read").read_at(0, 4096) == b"x" * 2048 + b"." * 2048


def test_what_a_failed_sync_should_have_saved_is_lost_for_good(disk: SimDisk) -> None:
    file = disk.open(FILE, "write")
    file.write_at(0, b"x" * 10)
    disk.fail("sync")
    with pytest.raises(OSError, match="Input/output"):
        file.sync()
    file.sync()
    assert file.read_at(0, 10) == b"x" * 10
    assert disk.crash().open(FILE, "read").read_at(0, 10) == b"." * 10


def test_a_read_only_disk_can_be_read(disk: SimDisk) -> None:
    disk.medium.defects.read_only = True
    with pytest.raises(OSError) as caught:
        disk.open(FILE, "write").write_at(0, b"x")
    assert caught.value.errno == errno.EROFS
    assert disk.open(FILE, "read").read_at(0, 1) == b"."


def test_an_image_is_what_was_durable(disk: SimDisk) -> None:
    disk.open(FILE, "write").write_at(0, b"not synced")
    image = SimDisk(medium=disk.medium.image())
    disk.remove(FILE)
    assert image.open(FILE, "read").read_at(0, 3) == b"..."


def test_the_simulation_itself_meets_no_fault(disk: SimDisk) -> None:
    disk.fail("write")
    disk.medium.defects.read_only = True
    with disk.unhindered():
        put(disk, PurePath("/mine"), b"written")
    disk.medium.defects.read_only = False
    with pytest.raises(OSError, match="Input/output"):
        disk.open(FILE, "write").write_at(0, b"x")
