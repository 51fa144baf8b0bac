"""Who uses a task, and taking away what nobody may find any more."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from gossipcache.env import Disk
from gossipcache.ids import TaskId
from gossipcache.transfer.store.index import Place
from gossipcache.transfer.store.layout import Layout
from gossipcache.transfer.store.packs import Packs
from gossipcache.transfer.store.staging import Folders


class Removal:
    """Folders go to the trash by a rename, so that a task is gone at once for whoever looks; what
    is in a pack stays there. The bytes go after the last user that may have them open has left."""

    def __init__(self, disk: Disk, layout: Layout, packs: Packs) -> None:
        self._disk = disk
        self._packs = packs
        self._layout = layout
        self._trash = Folders(layout.trash)
        self._state = threading.Lock()
        self._users: dict[TaskId, int] = {}
        self._doomed: dict[str | Place, TaskId] = {}
        """In the trash by name, or in a pack."""

    @contextmanager
    def using(self, task_id: TaskId) -> Iterator[None]:
        """Counts a user of the task."""
        with self._state:
            self._users[task_id] = self._users.get(task_id, 0) + 1
        try:
            yield
        finally:
            with self._state:
                self._users[task_id] -= 1
                if not self._users[task_id]:
                    del self._users[task_id]

    def in_use(self) -> Collection[TaskId]:
        """The tasks that have users now."""
        with self._state:
            return frozenset(self._users)

    def take_away(self, task_id: TaskId, place: Place | None) -> None:
        """Moves what stands of the task, its folder or its one file, to the trash; `place` is its
        own in a pack."""
        for path in (self._layout.task(task_id), self._layout.packed(task_id)):
            if self._disk.stamp(path) is None:
                continue
            doomed = self._trash.next()
            self._disk.rename(path, doomed)
            with self._state:
                self._doomed[doomed.name] = task_id

        self.leave(task_id, place)

    def leave(self, task_id: TaskId, place: Place | None) -> None:
        """The task stands in its place in a pack no more, if it had one."""
        if place is not None:
            with self._state:
                self._doomed[place] = task_id

    def tidy(self) -> None:
        """Removes what nobody uses any more; called after each removal and at times between."""
        with self._state:
            going = [name for name, task in self._doomed.items() if task not in self._users]
            for name in going:
                del self._doomed[name]
        for name in going:
            if isinstance(name, str):
                self._disk.remove(self._layout.trash / name)
        self._packs.release(place for place in going if isinstance(place, Place))
