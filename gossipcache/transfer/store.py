"""The local store: which tasks this node has, and their bytes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import PurePath

from gossipcache.config import StoreConfig
from gossipcache.env import Disk, DiskFile
from gossipcache.ids import TaskId
from gossipcache.manifest import SignedManifest
from gossipcache.transfer.digest_tree import DigestTree
from gossipcache.transfer.index import StoredTask


class Store:
    """Tasks by id. Calls that touch the disk run in workers; `find`, `tasks`, `used_bytes`,
    `touch` and `using` never block and may be called from the event loop."""

    @classmethod
    def open(
        cls, disk: Disk, root: PurePath, wall_time: Callable[[], float], config: StoreConfig
    ) -> Store:
        """Opens the store in `root`, or makes it. Raises `VersionUnsupported`."""
        raise NotImplementedError

    def find(self, task_id: TaskId) -> StoredTask | None:
        """What stands of `task_id`, unpublished or not."""
        raise NotImplementedError

    def tasks(self, *, unpublished: bool = False) -> list[StoredTask]:
        """All published tasks; with `unpublished` also those whose record is not out yet."""
        raise NotImplementedError

    def touch(self, task_id: TaskId, now: float) -> None:
        """Notes a use at `now` (seconds since 1970)."""
        raise NotImplementedError

    @contextmanager
    def using(self, task_id: TaskId) -> Iterator[None]:
        """Keeps the task from eviction. A deletion takes effect at once for new opens; the
        bytes of files already open stay readable until the last user is gone."""
        raise NotImplementedError

    def begin(self, signed: SignedManifest, tree: DigestTree) -> None:
        """Makes the partial task, or resumes it with the pieces it has."""
        raise NotImplementedError

    def open_data(self, task_id: TaskId) -> DiskFile:
        """The task's data: for reading, and while it is partial for writing too."""
        raise NotImplementedError

    def mark(self, task_id: TaskId, pieces: Collection[int]) -> None:
        """Says that `pieces` are verified and written: durable on return."""
        raise NotImplementedError

    def finish(self, task_id: TaskId) -> None:
        """Turns a task with all pieces into a complete one."""
        raise NotImplementedError

    def tree(self, task_id: TaskId) -> DigestTree:
        """The task's digest tree."""
        raise NotImplementedError
