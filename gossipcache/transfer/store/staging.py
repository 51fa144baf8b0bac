"""Room in the store, and the temporary folders in which tasks are put together."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePath

from gossipcache.env import Disk
from gossipcache.errors import NoSpace
from gossipcache.ids import TaskId


class Budget:
    """How many bytes the store may still take, by quota and by disk."""

    def __init__(
        self, disk: Disk, root: PurePath, quota_bytes: int, used_bytes: Callable[[], int]
    ) -> None:
        self._disk = disk
        self._root = root
        self._used_bytes = used_bytes
        self._lock = threading.Lock()
        self._reserved_bytes = 0
        self.quota_bytes = quota_bytes

    def check(self, size_bytes: int) -> None:
        """Raises `NoSpace` if `size_bytes` more do not fit."""
        excess_bytes = self.excess_bytes(size_bytes)
        if excess_bytes > 0:
            full = NoSpace(
                f"{size_bytes} bytes do not fit into the store: {excess_bytes} more than its "
                f"quota of {self.quota_bytes} bytes"
            )
            full.wanted_bytes = size_bytes
            raise full
        free_bytes = self._disk.free_bytes(self._root)
        if size_bytes > free_bytes:
            raise NoSpace(
                f"{size_bytes} bytes do not fit on the disk of {self._root}, "
                f"which has {free_bytes} bytes free"
            )

    def excess_bytes(self, size_bytes: int = 0) -> int:
        """By how much the quota would be passed with `size_bytes` more; below 0 if it fits."""
        return self._used_bytes() + self._reserved_bytes + size_bytes - self.quota_bytes

    def reserve(self, size_bytes: int) -> None:
        """Sets `size_bytes` aside until `release`. Raises `NoSpace`."""
        with self._lock:
            self.check(size_bytes)
            self._reserved_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """Ends a reservation, its bytes being counted as used or given up."""
        with self._lock:
            self._reserved_bytes -= size_bytes


class Staging:
    """A folder of its own under `staging/`: `data` is put there, and `Store.adopt` moves the
    folder into place. What is not adopted is discarded, at the latest by the next start."""

    def __init__(self, disk: Disk, folder: PurePath, budget: Budget) -> None:
        self._disk = disk
        self._budget = budget
        self._reserved_bytes = 0
        self.folder = folder
        self.data = folder / "data"
        disk.make_folder(folder)

    def reserve(self, size_bytes: int) -> None:
        """Sets room aside for `size_bytes` more of content. Raises `NoSpace`."""
        self._budget.reserve(size_bytes)
        self._reserved_bytes += size_bytes

    def release(self) -> None:
        """Gives up the room that was set aside."""
        self._budget.release(self._reserved_bytes)
        self._reserved_bytes = 0

    def discard(self) -> None:
        """Removes the folder; after an adoption nothing is there to remove."""
        self.release()
        self._disk.remove(self.folder)


class Arriving:
    """Which tasks are being put in place outside of the lock that guards their places, so that
    one does not come twice at once."""

    def __init__(self, moving: threading.RLock) -> None:
        self.moving = moving
        """Held while what stands of a task comes or goes."""
        self._coming: set[TaskId] = set()

    @contextmanager
    def of(
        self, task_ids: Iterable[TaskId], is_new: Callable[[TaskId], bool]
    ) -> Iterator[list[TaskId]]:
        """Those of them that are new and that nobody else brings, until the block ends."""
        with self.moving:
            mine = [one for one in task_ids if one not in self._coming and is_new(one)]
            self._coming.update(mine)
        try:
            yield mine
        finally:
            with self.moving:
                self._coming.difference_update(mine)


class Folders:
    """Names files and folders under `parent` that no other caller gets; never the same twice."""

    def __init__(self, parent: PurePath) -> None:
        self._parent = parent
        self._numbers = itertools.count()

    def next(self) -> PurePath:
        """The next name; nothing is there yet."""
        return self._parent / str(next(self._numbers))
