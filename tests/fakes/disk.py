"""A disk in memory that forgets, at a crash, what was not synced."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePath

from gossipcache.env import Buffer, FileStamp, OpenMode


@dataclass
class _Inode:
    number: int
    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    unsynced: list[tuple[int, bytes]] = field(default_factory=list)


class MemoryFile:
    """An open file of a `MemoryDisk`."""

    def __init__(self, disk: MemoryDisk, inode: _Inode) -> None:
        self._disk = disk
        self._inode = inode

    def read_at(self, offset: int, count: int) -> bytes:
        return bytes(self._inode.data[offset : offset + count])

    def read_into(self, offset: int, buffer: memoryview) -> int:
        data = self.read_at(offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write_at(self, offset: int, data: Buffer) -> None:
        self._disk.meet("write")
        _overlay(self._inode.data, offset, bytes(data))
        self._inode.unsynced.append((offset, bytes(data)))

    def write_past_cache(self, offset: int, data: Buffer) -> None:
        self.write_at(offset, data)

    def allocate(self, size: int) -> None:
        self.truncate(max(size, len(self._inode.data)))

    def truncate(self, size: int) -> None:
        data = self._inode.data
        data[:] = data[:size].ljust(size, b"\0")
        self._inode.durable = bytes(data)
        self._inode.unsynced.clear()

    def punch(self, offset: int, count: int) -> bool:
        return False

    def size(self) -> int:
        return len(self._inode.data)

    def sync(self) -> None:
        self._disk.meet("sync")
        self._inode.durable = bytes(self._inode.data)
        self._inode.unsynced.clear()

    def fileno(self) -> None:
        return None

    def close(self) -> None:
        return None


class MemoryDisk:
    """Implements `env.Disk` as far as the journal needs it.

    `syncs` counts fsyncs. `fail_next(kind)` makes the next "write" or "sync" raise `OSError`.
    Renames are durable at once.
    """

    def __init__(self) -> None:
        self._names: dict[PurePath, _Inode] = {}
        self._inodes = 0
        self._failing: set[str] = set()
        self.syncs = 0

    def crash(self, rng: random.Random) -> None:
        """Loses a random part of the unsynced writes, in any order, torn anywhere."""
        for inode in self._names.values():
            data = bytearray(inode.durable)
            for offset, written in inode.unsynced:
                _overlay(data, offset, written[: rng.randint(0, len(written))])
            inode.data, inode.durable = data, bytes(data)
            inode.unsynced.clear()

    def fail_next(self, kind: str) -> None:
        self._failing.add(kind)

    def meet(self, kind: str) -> None:
        self.syncs += kind == "sync"
        if kind in self._failing:
            self._failing.discard(kind)
            raise OSError(f"the {kind} failed")

    def contents(self, path: PurePath) -> bytes:
        return bytes(self._names[path].data)

    def overwrite(self, path: PurePath, data: bytes) -> None:
        """Puts `data` there durably, as bit rot or an edit would."""
        inode = self._names.setdefault(path, self._new_inode())
        inode.data, inode.durable = bytearray(data), data
        inode.unsynced.clear()

    def _new_inode(self) -> _Inode:
        self._inodes += 1
        return _Inode(self._inodes)

    def buffer(self, size: int) -> memoryview:
        return memoryview(bytearray(size))

    def open(self, path: PurePath, mode: OpenMode) -> MemoryFile:
        if mode == "create":
            if path in self._names:
                raise FileExistsError(str(path))
            self._names[path] = self._new_inode()
        elif path not in self._names:
            raise FileNotFoundError(str(path))
        return MemoryFile(self, self._names[path])

    def stamp(self, path: PurePath) -> FileStamp | None:
        inode = self._names.get(path)
        if inode is None:
            return None
        size = len(inode.data)
        return FileStamp("file", inode.number, size, 0, 0, 0o600, size)

    def make_folder(self, path: PurePath) -> None:
        return None

    def list_folder(self, path: PurePath) -> list[str]:
        return sorted(name.name for name in self._names if name.parent == path)

    def rename(self, old: PurePath, new: PurePath) -> None:
        self._names[new] = self._names.pop(old)

    def exchange(self, one: PurePath, other: PurePath) -> None:
        self._names[one], self._names[other] = self._names[other], self._names[one]

    def link(self, existing: PurePath, new: PurePath) -> None:
        self._names[new] = self._names[existing]

    def symlink(self, target: str, new: PurePath) -> None:
        raise NotImplementedError

    def read_symlink(self, path: PurePath) -> str:
        raise NotImplementedError

    def clone(self, source: PurePath, new: PurePath) -> bool:
        return False

    def set_mode(self, path: PurePath, mode: int) -> None:
        return None

    def remove(self, path: PurePath) -> None:
        for name in [name for name in self._names if name == path or path in name.parents]:
            del self._names[name]

    def sync_folder(self, path: PurePath) -> None:
        return None

    def sync_all(self, paths: Iterable[PurePath]) -> None:
        for path in paths:
            if path in self._names:
                MemoryFile(self, self._names[path]).sync()

    def free_bytes(self, path: PurePath) -> int:
        return 2**40


def _overlay(data: bytearray, offset: int, written: bytes) -> None:
    if not written:
        return
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(written)] = written
