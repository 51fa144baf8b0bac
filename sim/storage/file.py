"""An open file of a simulated disk: `gossipcache.env.DiskFile`."""

from __future__ import annotations

import errno
import os
from pathlib import PurePath
from typing import TYPE_CHECKING

from gossipcache.env import Buffer
from sim.storage.medium import FileInode

if TYPE_CHECKING:
    from sim.storage.disk import SimDisk


class SimFile:
    """An open file of a `SimDisk`."""

    def __init__(self, disk: SimDisk, inode: FileInode, path: PurePath, writable: bool) -> None:
        self._disk = disk
        self._inode = inode
        self.path = path
        self._writable = writable
        self._closed = False
        disk.open_files += 1

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`; fewer only at the end of the file."""
        self._check()
        return self._disk.read(self._inode, offset, count)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fills `buffer` from `offset`; returns the number of bytes, short only at the end."""
        data = self.read_at(offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write_at(self, offset: int, data: Buffer) -> None:
        """Writes all of `data` at `offset`. Raises `NoSpace`."""
        self._check(write=True)
        self._disk.write(self._inode, self.path, offset, bytes(data))

    def write_past_cache(self, offset: int, data: Buffer) -> None:
        """The same: durable only after a `sync`."""
        self.write_at(offset, data)

    def allocate(self, size: int) -> None:
        """Makes the file `size` bytes long. Raises `NoSpace`."""
        self.truncate(size)

    def truncate(self, size: int) -> None:
        """Makes the file exactly `size` bytes long."""
        self._check(write=True)
        self._disk.resize(self._inode, self.path, size)

    def punch(self, offset: int, count: int) -> bool:
        """Gives back the room of these bytes, which read as zeros then."""
        self._check(write=True)
        self._disk.punch(self._inode, offset, count)
        return True

    def size(self) -> int:
        """The file's length in bytes."""
        self._check()
        return len(self._inode.data)

    def sync(self) -> None:
        """Returns when all writes are durable."""
        self._check()
        self._disk.sync(self._inode)

    def is_rotten(self, offset: int, count: int) -> bool:
        """Whether one of `count` bytes from `offset` decayed on the medium."""
        return self._inode.is_rotten(offset, count)

    def fileno(self) -> None:
        """There is no descriptor."""

    def close(self) -> None:
        """Releases the file; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._disk.open_files -= 1

    def _check(self, *, write: bool = False) -> None:
        self._disk.check_alive()
        if self._closed or (write and not self._writable):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), str(self.path))
