"""The contract of `gossipcache.env.Disk`, on the real file system and on the simulated one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePath

import pytest

from gossipcache.disk import OsDisk
from gossipcache.env import Disk, DiskFile
from sim.storage.disk import SimDisk


@pytest.fixture(params=["real", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Disk, PurePath]]:
    if request.param == "real":
        before = os.umask(0o777)
        yield OsDisk(), tmp_path
        os.umask(before)
    else:
        disk = SimDisk()
        disk.make_folder(PurePath("/home/node"))
        yield disk, PurePath("/home/node")


@pytest.fixture
def disk(place: tuple[Disk, PurePath]) -> Disk:
    return place[0]


@pytest.fixture
def home(place: tuple[Disk, PurePath]) -> PurePath:
    return place[1]


def written(disk: Disk, path: PurePath, data: bytes) -> DiskFile:
    file = disk.open(path, "create")
    file.write_at(0, data)
    return file


def content(disk: Disk, path: PurePath) -> bytes:
    file = disk.open(path, "read")
    try:
        return file.read_at(0, 1 << 20)
    finally:
        file.close()


def put(disk: Disk, path: PurePath, data: bytes) -> None:
    written(disk, path, data).close()


def test_a_file_reads_back_what_was_written(disk: Disk, home: PurePath) -> None:
    file = written(disk, home / "a", b"0123456789")
    file.write_at(4, b"xx")
    file.sync()
    assert file.size() == 10
    assert file.read_at(2, 5) == b"23xx6"
    assert file.read_at(8, 100) == b"89"
    assert file.read_at(50, 1) == b""
    buffer = bytearray(4)
    assert file.read_into(8, memoryview(buffer)) == 2
    assert bytes(buffer) == b"89\0\0"
    file.close()
    file.close()
    with pytest.raises(OSError):
        file.read_at(0, 1)


def test_a_write_beyond_the_end_leaves_zeros(disk: Disk, home: PurePath) -> None:
    file = disk.open(home / "a", "create")
    file.write_at(3, b"x")
    assert file.read_at(0, 9) == b"\0\0\0x"
    file.close()


@pytest.mark.parametrize("offset", [0, 4096, 10])
@pytest.mark.parametrize("size", [1, 4096, 8192 + 5])
@pytest.mark.parametrize("shift", [0, 1])
def test_a_write_past_the_cache_is_a_write(
    disk: Disk, home: PurePath, offset: int, size: int, shift: int
) -> None:
    file = disk.open(home / "a", "create")
    file.allocate(20_000)
    buffer = disk.buffer(shift + size)[shift:]
    buffer[:] = os.urandom(size)
    file.write_past_cache(offset, buffer)
    assert file.read_at(offset, size) == buffer
    assert file.read_at(offset + size, 5) == bytes(5)
    assert file.size() == 20_000
    file.sync()
    file.close()
    with pytest.raises(OSError):
        file.write_past_cache(offset, buffer)


def test_a_slow_disk_is_left_to_the_page_cache_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = OsDisk()
    file, block = disk.open(tmp_path / "a", "create"), disk.buffer(2**20)
    clock, descriptors = iter(range(1000)), []
    pwrite = os.pwrite

    def slow_pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        descriptors.append(descriptor)
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr("gossipcache.disk.monotonic", lambda: next(clock))
    monkeypatch.setattr("os.pwrite", slow_pwrite)
    for index in range(40):
        file.write_past_cache(index * len(block), block)
    direct = [index for index, used in enumerate(descriptors) if used != file.fileno()]
    assert direct in ([0, 17, 34], [])  # none on a file system without direct I/O
    file.close()


def test_allocate_and_truncate_set_the_length(disk: Disk, home: PurePath) -> None:
    file = written(disk, home / "a", b"abc")
    file.allocate(10_000)
    assert file.size() == 10_000
    assert file.read_at(0, 5) == b"abc\0\0"
    file.truncate(2)
    assert file.read_at(0, 5) == b"ab"
    file.allocate(0)
    assert file.size() == 0
    file.close()


def test_modes_ignore_the_umask(disk: Disk, home: PurePath) -> None:
    disk.make_folder(home / "p" / "q")
    put(disk, home / "p" / "q" / "f", b"")
    for path, mode in [("p", 0o700), ("p/q", 0o700), ("p/q/f", 0o600)]:
        stamp = disk.stamp(home / path)
        assert stamp is not None
        assert stamp.mode == mode
    disk.set_mode(home / "p/q/f", 0o755)
    stamp = disk.stamp(home / "p/q/f")
    assert stamp is not None
    assert stamp.mode == 0o755


def test_create_refuses_what_exists(disk: Disk, home: PurePath) -> None:
    put(disk, home / "a", b"old")
    with pytest.raises(FileExistsError):
        disk.open(home / "a", "create")
    assert content(disk, home / "a") == b"old"


def test_read_and_write_need_what_exists(disk: Disk, home: PurePath) -> None:
    for mode in ("read", "write"):
        with pytest.raises(FileNotFoundError):
            disk.open(home / "a", mode)
    put(disk, home / "f", b"")
    with pytest.raises(NotADirectoryError):
        disk.open(home / "f" / "x", "read")


def test_a_file_opened_to_read_is_not_writable(disk: Disk, home: PurePath) -> None:
    put(disk, home / "a", b"old")
    file = disk.open(home / "a", "read")
    for write in (file.write_at, file.write_past_cache):
        with pytest.raises(OSError):
            write(0, disk.buffer(4096))
    assert file.read_at(0, 9) == b"old"
    file.close()


def test_open_never_follows_a_link_nor_opens_a_folder(disk: Disk, home: PurePath) -> None:
    put(disk, home / "a", b"old")
    disk.symlink("a", home / "link")
    disk.make_folder(home / "folder")
    for name in ("link", "folder"):
        for mode in ("read", "write"):
            with pytest.raises(OSError):
                disk.open(home / name, mode)
    with pytest.raises(FileExistsError):
        disk.open(home / "link", "create")
    assert disk.read_symlink(home / "link") == "a"


def test_links_to_folders_are_followed_on_the_way(disk: Disk, home: PurePath) -> None:
    disk.make_folder(home / "folder")
    put(disk, home / "folder" / "a", b"x")
    disk.symlink("folder", home / "link")
    assert content(disk, home / "link" / "a") == b"x"
    assert disk.list_folder(home / "link") == ["a"]


def test_stamp_tells_kinds_and_changes(disk: Disk, home: PurePath) -> None:
    file = written(disk, home / "f", b"12345")
    disk.make_folder(home / "d")
    disk.symlink("anywhere", home / "l")
    stamps = [disk.stamp(home / name) for name in "fdl"]
    assert [stamp and stamp.kind for stamp in stamps] == ["file", "directory", "link"]
    first = stamps[0]
    assert first is not None
    assert first.size == 5
    assert disk.stamp(home / "f") == first
    file.truncate(4)
    assert disk.stamp(home / "f") != first
    assert disk.stamp(home / "none") is None
    assert disk.stamp(home / "f" / "none") is None
    file.close()


def test_rename_replaces(disk: Disk, home: PurePath) -> None:
    put(disk, home / "a", b"new")
    put(disk, home / "b", b"old")
    disk.rename(home / "a", home / "b")
    assert disk.list_folder(home) == ["b"]
    assert content(disk, home / "b") == b"new"
    with pytest.raises(FileNotFoundError):
        disk.rename(home / "a", home / "b")


def test_rename_moves_folders_but_onto_empty_ones_only(disk: Disk, home: PurePath) -> None:
    disk.make_folder(home / "full")
    put(disk, home / "full" / "x", b"")
    disk.make_folder(home / "empty")
    disk.rename(home / "full", home / "empty")
    assert disk.list_folder(home / "empty") == ["x"]
    disk.make_folder(home / "other")
    with pytest.raises(OSError):
        disk.rename(home / "other", home / "empty")


def test_exchange_swaps_files_and_folders(disk: Disk, home: PurePath) -> None:
    put(disk, home / "a", b"file")
    disk.make_folder(home / "b")
    put(disk, home / "b" / "x", b"inside")
    disk.exchange(home / "a", home / "b")
    assert content(disk, home / "b") == b"file"
    assert content(disk, home / "a" / "x") == b"inside"
    with pytest.raises(FileNotFoundError):
        disk.exchange(home / "a", home / "none")


def test_a_hard_link_is_the_same_file(disk: Disk, home: PurePath) -> None:
    file = written(disk, home / "a", b"1")
    disk.link(home / "a", home / "b")
    file.write_at(0, b"2")
    file.close()
    disk.remove(home / "a")
    assert content(disk, home / "b") == b"2"
    with pytest.raises(FileExistsError):
        disk.link(home / "b", home / "b")


def test_clone_is_a_copy_of_its_own_or_nothing(disk: Disk, home: PurePath) -> None:
    put(disk, home / "a", b"data")
    if disk.clone(home / "a", home / "b"):
        changed = disk.open(home / "b", "write")
        changed.write_at(0, b"D")
        changed.close()
        assert content(disk, home / "b") == b"Data"
    else:
        assert disk.stamp(home / "b") is None
    assert content(disk, home / "a") == b"data"


def test_remove_takes_whole_folders_and_forgives_absence(disk: Disk, home: PurePath) -> None:
    disk.make_folder(home / "d" / "e")
    put(disk, home / "d" / "e" / "f", b"")
    put(disk, home / "kept", b"kept")
    disk.symlink("../kept", home / "d" / "link")
    disk.remove(home / "d")
    disk.remove(home / "d")
    disk.remove(home / "kept" / "beneath")
    assert disk.list_folder(home) == ["kept"]


def test_an_open_file_outlives_its_name(disk: Disk, home: PurePath) -> None:
    file = written(disk, home / "a", b"still here")
    disk.remove(home / "a")
    assert file.read_at(0, 100) == b"still here"
    file.close()


def test_folders_list_sorted_and_sync(disk: Disk, home: PurePath) -> None:
    for name in ("b", "ä", "a b", "a"):
        put(disk, home / name, b"")
    assert disk.list_folder(home) == sorted(["b", "ä", "a b", "a"])
    disk.sync_folder(home)
    with pytest.raises(FileNotFoundError):
        disk.list_folder(home / "none")


def test_many_files_and_folders_sync_at_once(disk: Disk, home: PurePath) -> None:
    put(disk, home / "a", b"1")
    put(disk, home / "b", b"2")
    disk.sync_all([home / "a", home / "b", home])
    disk.sync_all([])
    with pytest.raises(FileNotFoundError):
        disk.sync_all([home / "none"])


def test_making_a_folder_over_a_file_fails(disk: Disk, home: PurePath) -> None:
    put(disk, home / "a", b"")
    with pytest.raises(OSError):
        disk.make_folder(home / "a")
    with pytest.raises(OSError):
        disk.make_folder(home / "a" / "b")


def test_there_is_room(disk: Disk, home: PurePath) -> None:
    assert disk.free_bytes(home) > 0


def test_a_hole_reads_as_zeros_and_leaves_the_length(disk: Disk, home: PurePath) -> None:
    file = written(disk, home / "a", b"x" * 3 * 4096)
    file.sync()
    hole = bytes(4096) if file.punch(4096, 4096) else b"x" * 4096
    assert file.size() == 3 * 4096
    assert file.read_at(0, 3 * 4096) == b"x" * 4096 + hole + b"x" * 4096
    file.write_at(5000, b"y")
    assert file.read_at(4999, 3) == hole[:1] + b"y" + hole[:1]
    file.close()


def test_a_hole_beyond_the_end_makes_nothing_longer(disk: Disk, home: PurePath) -> None:
    file = written(disk, home / "a", b"")
    file.punch(0, 1)
    assert file.size() == 0
    file.close()
