"""A disk in memory: `gossipcache.env.Disk` with unsynced writes, power loss and faults.

    disk = SimDisk()
    ...                       # write, sync some of it
    disk = disk.crash()       # the machine lost power: what was not synced is gone
    disk = disk.crash(power_loss=False)   # only the process died: all writes are still there

The old `SimDisk` is then as dead as its process: each call on it raises `DiskCrashed`.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterable
from pathlib import PurePath
from typing import Literal

from gossipcache.env import FileStamp, OpenMode
from gossipcache.errors import NoSpace
from sim.storage import tree
from sim.storage.condition import DEFAULT_CAPACITY_BYTES, DiskCondition
from sim.storage.file import SimFile
from sim.storage.medium import (
    FIRST_INSTANT_NS,
    DiskTiming,
    FileInode,
    FolderInode,
    Inode,
    LinkInode,
    Medium,
    lose_unsynced,
    used_bytes,
)

__all__ = ["DiskCrashed", "SimDisk", "SimFile"]

FILE_MODE = 0o600
FOLDER_MODE = 0o700


class DiskCrashed(BaseException):
    """The process that uses this disk is dead. No `except Exception` outlives a `kill -9`."""


class SimDisk(DiskCondition):
    """One process's view of a medium."""

    def __init__(
        self,
        capacity_bytes: int = DEFAULT_CAPACITY_BYTES,
        timing: DiskTiming | None = None,
        *,
        medium: Medium | None = None,
    ) -> None:
        root = FolderInode(1, FOLDER_MODE, FIRST_INSTANT_NS, FIRST_INSTANT_NS)
        super().__init__(medium or Medium(root, capacity_bytes, timing or DiskTiming()))
        self.open_files = 0
        self.operations = 0
        """Changes of the medium so far; `crash_at` counts by it."""
        self._used_bytes = used_bytes(self.medium.root)
        self._crash_at: int | None = None
        self._dead = False

    # Its life.

    def crash(self, *, power_loss: bool = True, rng: random.Random | None = None) -> SimDisk:
        """Ends this process's use; the disk as its next process finds it.

        With `power_loss` unsynced changes are lost: all of them, or with `rng` some.
        """
        self._dead = True
        survivor = SimDisk(medium=self.medium)
        survivor.bites = self.bites
        if power_loss:
            survivor.lose_unsynced(rng)
        return survivor

    def lose_unsynced(self, rng: random.Random | None = None) -> None:
        """Loses what is not synced: all of it, or with `rng` some."""
        self.bite("power_loss", lose_unsynced(self.medium.root, rng))
        self._used_bytes = used_bytes(self.medium.root)

    def crash_at(self, operation: int) -> None:
        """The process dies *instead of* making its change number `operation` (from 1)."""
        self._crash_at = operation

    def take_cost_s(self) -> float:
        """The virtual time that the operations since the last call took."""
        cost_s, self._cost_s = self._cost_s, 0.0
        return cost_s

    def buffer(self, size: int) -> memoryview:
        """Zeroed memory of `size` bytes."""
        return memoryview(bytearray(size))

    def check_alive(self) -> None:
        """Raises `DiskCrashed` if the process is dead."""
        if self._dead:
            raise DiskCrashed("the simulated process is dead")

    # Files, by inode.

    def read(self, inode: FileInode, offset: int, count: int) -> bytes:
        """The bytes of a file."""
        self._charge("read", count)
        if inode.is_rotten(offset, count):
            self.bite("rot")
        return bytes(inode.data[offset : offset + count])

    def write(self, inode: FileInode, path: PurePath, offset: int, data: bytes) -> None:
        """Writes bytes of a file."""
        self._changing("write", inode.number, offset, data)
        self._reserve(path, max(0, offset + len(data) - len(inode.data)), inode)
        if self.medium.defects.divert(inode, offset, data):
            self.bite("diverted")
        else:
            inode.write(offset, data)
        self.check_alive()  # a machine that lost power in this write
        self._touch(inode)

    def resize(self, inode: FileInode, path: PurePath, size: int) -> None:
        """Sets a file's length."""
        self._changing("resize", inode.number, size)
        self._reserve(path, size - len(inode.data), inode)
        inode.resize(size)
        self._touch(inode)

    def punch(self, inode: FileInode, offset: int, count: int) -> None:
        """Gives back the room of some bytes of a file."""
        self._changing("punch", inode.number, offset)
        before = inode.room
        inode.punch(offset, count)
        self._used_bytes -= before - inode.room if inode.names else 0

    def sync(self, inode: FileInode | FolderInode) -> None:
        """Makes the changes of one file or folder durable."""
        try:
            self._changing("sync", inode.number)
        except OSError:
            if isinstance(inode, FileInode):
                inode.fail_sync()
            raise
        if self.medium.defects.sync_delay_s:
            self.bite("slow_sync")
        self._cost_s += self.medium.timing.sync_s + self.medium.defects.sync_delay_s
        inode.sync()

    # `gossipcache.env.Disk`.

    def open(self, path: PurePath, mode: OpenMode) -> SimFile:
        """Opens a regular file; never follows a link in the last part."""
        self.check_alive()
        if mode != "create":
            return SimFile(self, self._file(path), path, mode == "write")
        folder, name = self._parent(path)
        if name in folder.entries:
            raise tree.os_error(errno.EEXIST, path)
        self._changing("create", folder.number, 0, name.encode())
        number, now_ns = self._new_inode()
        inode = FileInode(number, FILE_MODE, now_ns, now_ns)
        self._enter(folder, name, inode)
        return SimFile(self, inode, path, True)

    def stamp(self, path: PurePath) -> FileStamp | None:
        """The stamp of `path` itself, or None."""
        self.check_alive()
        try:
            inode = self._lookup(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        kind: Literal["file", "directory", "link"] = "directory"
        size = 0
        if isinstance(inode, FileInode):
            kind, size = "file", len(inode.data)
        elif isinstance(inode, LinkInode):
            kind, size = "link", len(inode.target.encode())
        return FileStamp(
            kind,
            inode.number,
            size,
            inode.mtime_ns,
            inode.ctime_ns,
            inode.mode,
            -(-size // 512) * 512,
        )

    def make_folder(self, path: PurePath) -> None:
        """Makes `path` and its missing parents; an existing folder is fine."""
        self.check_alive()
        if path == path.parent:
            return
        try:
            folder, name = self._parent(path)
        except FileNotFoundError:
            self.make_folder(path.parent)
            folder, name = self._parent(path)
        if name in folder.entries:
            self._folder(path)
            return
        self._changing("make_folder", folder.number, 0, name.encode())
        number, now_ns = self._new_inode()
        self._enter(folder, name, FolderInode(number, FOLDER_MODE, now_ns, now_ns))

    def list_folder(self, path: PurePath) -> list[str]:
        """The names in `path`, sorted."""
        self.check_alive()
        return sorted(self._folder(path).entries)

    def rename(self, old: PurePath, new: PurePath) -> None:
        """Atomically puts `old` in the place of `new`."""
        moved = self._lookup(old)
        old_folder, old_name = self._parent(old)
        new_folder, new_name = self._parent(new)
        replaced = new_folder.entries.get(new_name)
        if replaced is moved:
            return
        tree.check_replaceable(moved, replaced, new)
        self._changing("rename", moved.number, 0, f"{old}\0{new}".encode())
        self._move(old_folder, (old_name, None), new_folder, (new_name, moved))
        self._forget(replaced)
        moved.ctime_ns = self._now_ns()

    def exchange(self, one: PurePath, other: PurePath) -> None:
        """Atomically swaps two existing paths."""
        first, second = self._lookup(one), self._lookup(other)
        one_folder, one_name = self._parent(one)
        other_folder, other_name = self._parent(other)
        self._changing("exchange", first.number, second.number)
        self._move(one_folder, (one_name, second), other_folder, (other_name, first))

    def link(self, existing: PurePath, new: PurePath) -> None:
        """A second name for a file."""
        inode = self._lookup(existing)
        if isinstance(inode, FolderInode):
            raise tree.os_error(errno.EPERM, existing)
        folder, name = self._parent(new)
        if name in folder.entries:
            raise tree.os_error(errno.EEXIST, new)
        self._changing("link", inode.number, folder.number, name.encode())
        self._enter(folder, name, inode)
        inode.ctime_ns = self._now_ns()

    def symlink(self, target: str, new: PurePath) -> None:
        """A symbolic link `new` whose text is `target`."""
        folder, name = self._parent(new)
        if name in folder.entries:
            raise tree.os_error(errno.EEXIST, new)
        self._changing("symlink", folder.number, 0, f"{name}\0{target}".encode())
        number, now_ns = self._new_inode()
        self._enter(folder, name, LinkInode(number, 0o777, now_ns, now_ns, target))

    def read_symlink(self, path: PurePath) -> str:
        """The text of a symbolic link."""
        inode = self._lookup(path)
        if not isinstance(inode, LinkInode):
            raise tree.os_error(errno.EINVAL, path)
        return inode.target

    def clone(self, source: PurePath, new: PurePath) -> bool:
        """A copy made at once, as by reflink."""
        origin = self._file(source)
        self.open(new, "create").close()
        copy = self._file(new)
        self._changing("write", copy.number, 0, bytes(origin.data))
        self._reserve(new, len(origin.data), copy)
        copy.write(0, bytes(origin.data))  # no bytes move: no bad write can hit them
        copy.rotten = list(origin.rotten)
        self._touch(copy)
        return True

    def set_mode(self, path: PurePath, mode: int) -> None:
        """chmod(2)."""
        inode = self._lookup(path)
        self._changing("set_mode", inode.number, mode)
        inode.mode = mode
        inode.ctime_ns = self._now_ns()

    def remove(self, path: PurePath) -> None:
        """Removes a file, a link, or a folder with all that is in it; absence is fine."""
        self.check_alive()
        try:
            inode = self._lookup(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        if isinstance(inode, FolderInode):
            for name in sorted(inode.entries):
                self.remove(path / name)
        folder, name = self._parent(path)
        self._changing("remove", inode.number, 0, str(path).encode())
        folder.change((name, None))
        self._touch(folder)
        self._forget(inode)

    def sync_folder(self, path: PurePath) -> None:
        """Returns when the names in `path` are durable."""
        self.sync(self._folder(path))

    def sync_all(self, paths: Iterable[PurePath]) -> None:
        """Makes what stands at these paths durable, one after the other."""
        for path in paths:
            inode = self._lookup(path)
            assert isinstance(inode, FileInode | FolderInode)
            self.sync(inode)

    def room(self, path: PurePath) -> int:
        """What a file takes of the medium, in bytes."""
        return self._file(path).room

    def free_bytes(self, path: PurePath) -> int:
        """Room left, in bytes."""
        self._folder(path)
        return max(0, self.medium.capacity_bytes - self._used_bytes)

    def _lookup(self, path: PurePath) -> Inode:
        self.check_alive()
        self._miss(path)
        return tree.lookup(self.medium.root, path)

    def _parent(self, path: PurePath) -> tuple[FolderInode, str]:
        self.check_alive()
        return tree.parent(self.medium.root, path)

    def _miss(self, path: PurePath) -> None:
        """Counts that somebody looks for a file that vanished."""
        if path in self.medium.defects.vanished:
            self.bite("vanished")

    def _file(self, path: PurePath) -> FileInode:
        self.check_alive()
        self._miss(path)
        return tree.file_at(self.medium.root, path)

    def _folder(self, path: PurePath) -> FolderInode:
        self.check_alive()
        return tree.folder_at(self.medium.root, path)

    # Accounts.

    def _changing(self, kind: str, inode: int, offset: int = 0, data: bytes = b"") -> None:
        self.check_alive()
        self.operations += 1
        if self._crash_at is not None and self.operations >= self._crash_at:
            self._dead = True
            self.check_alive()
        self._charge(kind, len(data))
        if self.medium.defects.read_only:
            self.bite("read_only")
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if self.medium.observer is not None:
            self.medium.observer(kind, inode, offset, data)

    def _charge(self, kind: str, count: int) -> None:
        timing = self.medium.timing
        self._cost_s += timing.operation_s + count / timing.bytes_per_s
        waiting = self.medium.defects.failing.get(kind)
        if waiting:
            self.bite(f"{kind}_error")
            raise waiting.pop(0)

    def _reserve(self, path: PurePath, growth: int, inode: FileInode) -> None:
        if growth > 0 and self._used_bytes + growth > self.medium.capacity_bytes:
            self.bite("no_space")
            raise NoSpace(f"no room to write {path} (the simulated disk is full)")
        if inode.names:
            self._used_bytes += growth

    def _enter(self, folder: FolderInode, name: str, inode: Inode) -> None:
        if isinstance(inode, FileInode):
            inode.names += 1
        folder.change((name, inode))
        self._touch(folder)

    def _move(
        self,
        one: FolderInode,
        in_one: tuple[str, Inode | None],
        other: FolderInode,
        in_other: tuple[str, Inode | None],
    ) -> None:
        if one is other:
            one.change(in_one, in_other)
        else:
            gone, come = one.change(in_one), other.change(in_other)
            gone.twin, come.twin = (other, come), (one, gone)
        self._touch(one)
        self._touch(other)

    def _forget(self, inode: Inode | None) -> None:
        if isinstance(inode, FileInode):
            inode.names -= 1
            if inode.names == 0:
                self._used_bytes -= inode.room

    def _new_inode(self) -> tuple[int, int]:
        self.medium.next_inode += 1
        return self.medium.next_inode, self._now_ns()

    def _now_ns(self) -> int:
        # Each change has an instant of its own, so that a stamp tells every change.
        self.medium.now_ns += 1000
        return self.medium.now_ns

    def _touch(self, inode: Inode) -> None:
        inode.mtime_ns = inode.ctime_ns = self._now_ns()
