"""The condition a simulated disk is in: the faults armed on it, and how often each took effect."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath

from sim.storage import tree
from sim.storage.medium import Defects, FileInode, FolderInode, Medium, files_in

DEFAULT_CAPACITY_BYTES = 1 << 40
_FAILURES = {"read_error", "write_error", "sync_error", "no_space", "read_only", "vanished"}
_UNSOUND = {"rot", "vanished", "diverted", "read_error", "sync_error"}


class DiskCondition:
    """What is wrong with the disk that `medium` is of."""

    def __init__(self, medium: Medium) -> None:
        self.medium = medium
        self.bites: dict[str, int] = {}
        """How often each kind of armed fault took effect."""
        self._cost_s = 0.0

    @property
    def is_sound(self) -> bool:
        """Whether it always gave back what was written to it and synced."""
        return not self.bites.keys() & _UNSOUND

    @property
    def has_failed(self) -> bool:
        """Whether it ever refused an operation."""
        return bool(self.bites.keys() & _FAILURES)

    def has_rotten(self, path: PurePath) -> bool:
        """Whether bytes under `path` are not what was written there."""
        found = tree.lookup(self.medium.root, path)
        files = files_in(found).values() if isinstance(found, FolderInode) else (found,)
        return any(isinstance(each, FileInode) and each.rotten for each in files)

    @contextmanager
    def unhindered(self) -> Iterator[None]:
        """What is done inside meets no fault and no limit, and costs no time: it is done to the
        disk by the simulation, not by the process."""
        medium, cost_s = self.medium, self._cost_s
        held = medium.defects, medium.capacity_bytes
        medium.defects, medium.capacity_bytes = Defects(), DEFAULT_CAPACITY_BYTES
        try:
            yield
        finally:
            medium.defects, medium.capacity_bytes = held
            self._cost_s = cost_s

    def fail(self, kind: str, code: int = errno.EIO, count: int = 1) -> None:
        """The next `count` operations of `kind` (read, write, sync, rename, …) raise `OSError`."""
        self.medium.defects.failing.setdefault(kind, []).extend(
            OSError(code, os.strerror(code)) for _ in range(count)
        )

    def rot(self, path: PurePath, offset: int) -> None:
        """Flips a bit of the byte at `offset` of the file, on the medium too."""
        inode = tree.file_at(self.medium.root, path)
        for content in (inode.data, inode.durable):
            if offset < len(content):
                content[offset] ^= 1
        inode.rot(range(offset, offset + 1))

    def bite(self, kind: str, times: int = 1) -> None:
        """Counts that a fault of `kind` took effect."""
        self.bites[kind] = self.bites.get(kind, 0) + times
