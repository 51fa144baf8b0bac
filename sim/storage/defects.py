"""What a bad disk does instead of a write. Each happens once, to the first write that fits.

Bytes that are not where they were written are marked as rotten: the disk is to blame for them,
not the node that later reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sim.storage.medium import SECTOR_BYTES, FileInode, FolderInode, files_in

_SHIFT_BYTES = 8 * SECTOR_BYTES


@dataclass(slots=True, eq=False)
class TornWrite:
    """The machine loses power when half of the write's sectors are there."""

    lose_power: Callable[[], None]
    taken: bool = field(default=False, init=False)

    def takes(self, inode: FileInode, offset: int, data: bytes) -> bool:
        """Whether the write has more than a sector to be torn at."""
        if len(data) <= SECTOR_BYTES:
            return False
        self.taken = True
        sectors = len(data) // SECTOR_BYTES
        inode.write(offset, data[: max(1, sectors // 2) * SECTOR_BYTES])
        inode.sync()
        self.lose_power()
        return True


@dataclass(slots=True, eq=False)
class LostWrite:
    """The write is acknowledged and does not happen."""

    min_bytes: int
    taken: bool = field(default=False, init=False)

    def takes(self, inode: FileInode, offset: int, data: bytes) -> bool:
        """Whether the write is large enough."""
        if len(data) < self.min_bytes:
            return False
        self.taken = True
        end = offset + len(data)
        # The file's length is metadata, and that is written.
        if end > len(inode.data):
            inode.resize(end)
        inode.rot(range(offset, end))
        return True


@dataclass(slots=True, eq=False)
class MisdirectedWrite:
    """The write lands a few sectors off in the same file, or in an older file if it has no room."""

    min_bytes: int
    root: FolderInode
    taken: bool = field(default=False, init=False)

    def takes(self, inode: FileInode, offset: int, data: bytes) -> bool:
        """Whether the write is large enough, and there is another place for it."""
        if len(data) < self.min_bytes:
            return False
        place = self._other_place(inode, offset, len(data))
        if place is None:
            return False
        self.taken = True
        other, at = place
        end = offset + len(data)
        if end > len(inode.data):
            inode.resize(end)
        other.write(at, data)
        other.rot(range(at, at + len(data)))
        inode.rot(range(offset, end))
        return True

    def _other_place(
        self, inode: FileInode, offset: int, count: int
    ) -> tuple[FileInode, int] | None:
        for at in (offset + _SHIFT_BYTES, offset - _SHIFT_BYTES):
            if at >= 0 and at + count <= len(inode.data):
                return inode, at
        for number, other in sorted(files_in(self.root).items(), reverse=True):
            if number < inode.number and len(other.data) >= count:
                return other, 0
        return None
