"""Small tasks that come whole, many at a time: each in one file, the manifest behind the content.

A folder with two files costs a file system three times what one file does, most of all when it
is made durable. Whatever writes to the content of a task, or gives its file away, has it unpacked
into a folder first (`Intake.unpack`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import PurePath

from msgspec.structs import replace

from gossipcache.env import Disk
from gossipcache.errors import IntegrityError
from gossipcache.ids import TaskId
from gossipcache.manifest import SignedManifest
from gossipcache.transfer.digest_tree import DigestTree
from gossipcache.transfer.store.catalogue import Catalogue
from gossipcache.transfer.store.index import Entry, entry_of, sealed_of
from gossipcache.transfer.store.layout import Layout, packed_bytes
from gossipcache.transfer.store.staging import Arriving, Budget, Folders

_BLOCK_BYTES = 4096


@dataclass(frozen=True, slots=True)
class _Packed:
    """A file in the staging area, written but not synced, and the entry that it is to have."""

    path: PurePath
    entry: Entry


class Packing:
    """Small tasks on their way into the store together; `discard` is due in any case."""

    def __init__(
        self,
        disk: Disk,
        layout: Layout,
        catalogue: Catalogue,
        budget: Budget,
        staging: Folders,
        arriving: Arriving,
        wall_time: Callable[[], float],
    ) -> None:
        self._disk = disk
        self._layout = layout
        self._catalogue = catalogue
        self._budget = budget
        self._staging = staging
        self._arriving = arriving
        self._wall_time = wall_time
        self._reserved_bytes = 0
        self._packed: dict[TaskId, _Packed] = {}

    def __contains__(self, task_id: TaskId) -> bool:
        """Whether it was added."""
        return task_id in self._packed

    def add(
        self,
        signed: SignedManifest,
        tree: DigestTree,
        data: bytes,
        *,
        pinned: bool = False,
        published: bool = False,
    ) -> None:
        """One more, of which nothing was added before. `published`: its record stands.

        Raises `NoSpace`, and `IntegrityError` if manifest and content do not fit.
        """
        manifest = signed.manifest
        if len(data) != manifest.size or tree.root != manifest.root:
            raise IntegrityError("the manifest does not fit the content")
        self._budget.reserve(len(data))
        self._reserved_bytes += len(data)
        content = packed_bytes(data, sealed_of(signed, tree))
        entry = replace(
            entry_of(signed, self._wall_time()),
            finished=True,
            digest_checked=True,
            pinned=pinned,
            published=published,
            disk_bytes=len(content) + -len(content) % _BLOCK_BYTES,
            packed=True,
        )
        path = self._staging.next()
        with closing(self._disk.open(path, "create")) as file:
            self._packed[signed.task_id] = _Packed(path, entry)
            file.write_at(0, content)

    def adopt(self) -> list[TaskId]:
        """Makes tasks of them, durable on return, and returns which are: of the others something
        stands here already, or comes at the same time, or is known to be deleted."""
        with self._arriving.of(self._packed, self._is_new) as coming:
            places = {task_id: self._layout.packed(task_id) for task_id in coming}
            for task_id, place in places.items():
                self._disk.rename(self._packed[task_id].path, place)
            folders = dict.fromkeys(place.parent for place in places.values())
            self._disk.sync_all([*places.values(), *folders])
            with self._arriving.moving:
                # What came in another way meanwhile has moved this out of its way.
                taken = [task_id for task_id in coming if self._is_new(task_id)]
                self._catalogue.put_all({one: self._packed[one].entry for one in taken})
        for task_id in taken:
            del self._packed[task_id]
        return taken

    def _is_new(self, task_id: TaskId) -> bool:
        dead = self._catalogue.dead_generation(task_id)
        return (
            self._catalogue.find(task_id) is None and dead < self._packed[task_id].entry.generation
        )

    def discard(self) -> None:
        """Removes what was not adopted; a second call does nothing."""
        self._budget.release(self._reserved_bytes)
        self._reserved_bytes = 0
        for packed in self._packed.values():
            self._disk.remove(packed.path)
        self._packed.clear()
