"""Small tasks that come whole, many at a time: all in one file, each manifest behind its content.

What a file of its own costs a file system is more than all else that is done with a small task,
most of all when it is made durable. Whatever writes to the content of a task, or gives its file
away, has it unpacked into a folder first (`Intake.unpack`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePath

from msgspec.structs import replace

from gossipcache.env import Disk, DiskFile
from gossipcache.errors import IntegrityError, NoSpace
from gossipcache.ids import TaskId
from gossipcache.manifest import SignedManifest
from gossipcache.transfer.digest_tree import DigestTree
from gossipcache.transfer.store.catalogue import Catalogue
from gossipcache.transfer.store.index import Entry, Place, entry_of, sealed_of
from gossipcache.transfer.store.layout import Layout, list_of, packed_bytes, padded
from gossipcache.transfer.store.packs import Packs
from gossipcache.transfer.store.staging import Arriving, Budget, Folders

AHEAD_BYTES = 2**20
"""So much is written, and room for it set aside, at a time."""


@dataclass(slots=True)
class _Pack:
    """A pack in the staging area, with what is yet to be written to it."""

    path: PurePath
    file: DiskFile
    parts: list[bytes] = field(default_factory=list)
    parts_bytes: int = 0
    written_bytes: int = 0
    places: list[tuple[int, int]] = field(default_factory=list)
    number: int = 0
    """What it is called in the store, once it is there."""

    def add(self, record: bytes) -> int:
        """Puts `record` at its end; returns where that is. Raises `NoSpace`, `OSError`, and
        `record` is not in it."""
        if self.parts_bytes >= AHEAD_BYTES:
            self._write()
        start = self.written_bytes + self.parts_bytes
        self.places.append((start, len(record)))
        self._put(record)
        self._put(bytes(padded(len(record)) - len(record)))
        return start

    def finish(self) -> None:
        """Ends it with the list of what is in it, and writes it; not synced."""
        self._put(list_of(self.places))
        self._write()

    def _put(self, part: bytes) -> None:
        self.parts.append(part)
        self.parts_bytes += len(part)

    def _write(self) -> None:
        self.file.write_at(self.written_bytes, b"".join(self.parts))
        self.written_bytes += self.parts_bytes
        self.parts_bytes = 0
        self.parts.clear()


@dataclass(frozen=True, slots=True)
class _Packed:
    """A task in a pack, and the entry that it is to have but for the pack's number."""

    pack: _Pack
    start: int
    length: int
    entry: Entry

    @property
    def place(self) -> Place:
        return Place(self.pack.number, self.start, self.length)


class Packing:
    """Small tasks on their way into the store together; `discard` is due in any case."""

    def __init__(
        self,
        disk: Disk,
        layout: Layout,
        catalogue: Catalogue,
        packs: Packs,
        budget: Budget,
        staging: Folders,
        arriving: Arriving,
        wall_time: Callable[[], float],
    ) -> None:
        self._disk = disk
        self._layout = layout
        self._catalogue = catalogue
        self._store = packs
        self._budget = budget
        self._staging = staging
        self._arriving = arriving
        self._wall_time = wall_time
        self._reserved_bytes = 0
        self._spare_bytes = 0
        """Set aside ahead of what comes."""
        self._packed: dict[TaskId, _Packed] = {}
        self._packs: list[_Pack] = []
        self._is_shared = True
        """Whether one is for all of them."""

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
        self._reserve(len(data))
        record = packed_bytes(data, sealed_of(signed, tree))
        entry = replace(
            entry_of(signed.signed, signed.manifest, self._wall_time()),
            finished=True,
            digest_checked=True,
            pinned=pinned,
            published=published,
            disk_bytes=padded(len(record)),
            packed=True,
        )
        pack = self._pack()
        start = pack.add(record)
        if not self._is_shared:
            pack.finish()
            pack.file.close()
        self._packed[signed.task_id] = _Packed(pack, start, len(record), entry)

    def _reserve(self, size_bytes: int) -> None:
        if size_bytes > self._spare_bytes:
            try:
                self._set_aside(size_bytes + AHEAD_BYTES)
            except NoSpace:
                self._set_aside(size_bytes)
        self._spare_bytes -= size_bytes

    def _set_aside(self, size_bytes: int) -> None:
        self._budget.reserve(size_bytes)
        self._reserved_bytes += size_bytes
        self._spare_bytes += size_bytes

    def _pack(self) -> _Pack:
        """The one to add to: each task has its own where no holes can be made."""
        if self._packs and self._is_shared:
            return self._packs[0]
        path = self._staging.next()
        pack = _Pack(path, self._disk.open(path, "create"))
        self._packs.append(pack)
        self._is_shared = self._store.can_punch(pack.file)
        return pack

    def adopt(self) -> list[TaskId]:
        """Makes tasks of them, durable on return, and returns which are: of the others something
        stands here already, or comes at the same time, or is known to be deleted."""
        with self._arriving.of(self._packed, self._is_new) as coming:
            if coming:
                self._install()
            with self._arriving.moving:
                # What came in another way meanwhile has moved this out of its way.
                taken = [task_id for task_id in coming if self._is_new(task_id)]
                self._catalogue.put_all({one: self._entry(one) for one in taken})
        for task_id in taken:
            del self._packed[task_id]
        return taken

    def _install(self) -> None:
        """Puts the packs in the store, durably."""
        packs = {one.pack.path: one.pack for one in self._packed.values()}
        for pack in packs.values():
            if self._is_shared:
                pack.finish()
            number = self._store.next()
            self._disk.rename(pack.path, self._layout.pack(number))
            pack.number = number
            self._store.note(number, len(pack.places))
        if self._is_shared:
            self._packs[0].file.sync()
            self._disk.sync_folder(self._layout.packs)
        else:
            places = [self._layout.pack(pack.number) for pack in packs.values()]
            self._disk.sync_all([*places, self._layout.packs])

    def _entry(self, task_id: TaskId) -> Entry:
        packed = self._packed[task_id]
        return replace(packed.entry, place=packed.place)

    def _is_new(self, task_id: TaskId) -> bool:
        dead = self._catalogue.dead_generation(task_id)
        return (
            self._catalogue.find(task_id) is None and dead < self._packed[task_id].entry.generation
        )

    def discard(self) -> None:
        """Removes what was not adopted; a second call does nothing."""
        self._budget.release(self._reserved_bytes)
        self._reserved_bytes = self._spare_bytes = 0
        self._store.release(one.place for one in self._packed.values() if one.pack.number)
        for pack in self._packs:
            pack.file.close()
            if not pack.number:
                self._disk.remove(pack.path)
        self._packed.clear()
        self._packs.clear()
