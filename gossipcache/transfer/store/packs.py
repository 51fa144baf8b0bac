"""Packs: files in which many small tasks stand one after the other, and what becomes of them.

A task that goes leaves a hole, so that its room is free at once; with the last one the file goes.
No place in a pack is ever written twice, and no number is given to a second pack while a task
names it: whatever still names a place finds what was there, or zeros.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import closing, suppress

from gossipcache.env import Buffer, Disk, DiskFile
from gossipcache.errors import GossipcacheError
from gossipcache.transfer.store.index import Place, StoredTask
from gossipcache.transfer.store.layout import Layout, list_start, pack_number, padded

MAX_OPEN = 32
"""Packs that are kept open for one reader: where each task has its own, a round reads hundreds."""


class Packs:
    """The packs of one store. Any number of workers may call it at once."""

    def __init__(self, disk: Disk, layout: Layout, tasks: Iterable[StoredTask]) -> None:
        """`tasks`: all that are there. What no task names is freed."""
        self._disk = disk
        self._layout = layout
        self._lock = threading.Lock()
        self._places: Counter[int] = Counter()
        """How many tasks stand in each."""
        self._can_punch: bool | None = None
        named: dict[int, list[Place]] = {}
        for task in tasks:
            if task.place is not None:
                named.setdefault(task.place.pack, []).append(task.place)
        there = {name: pack_number(name) for name in disk.list_folder(layout.packs)}
        self._last = max([0, *named, *(one for one in there.values() if one is not None)])
        for name, number in there.items():
            if number is None or number not in named:
                disk.remove(layout.packs / name)
            else:
                self._places[number] = len(named[number])
                self._free_between(number, named[number])

    def next(self) -> int:
        """The number of a new pack."""
        with self._lock:
            self._last += 1
            return self._last

    def can_punch(self, file: DiskFile) -> bool:
        """Whether holes can be made in `file`, which is empty, and thus in each of this store."""
        if self._can_punch is None:
            self._can_punch = file.punch(0, 1)
        return self._can_punch

    def note(self, number: int, count: int) -> None:
        """So many tasks stand in a new pack."""
        with self._lock:
            self._places[number] = count

    def release(self, places: Iterable[Place]) -> None:
        """Frees what nobody reads any more."""
        for place in places:
            with self._lock:
                self._places[place.pack] -= 1
                is_last = self._places[place.pack] <= 0
                if is_last:
                    del self._places[place.pack]
            path = self._layout.pack(place.pack)
            if is_last:
                self._disk.remove(path)
                continue
            # The next start makes a hole that fails.
            with (
                suppress(OSError, GossipcacheError),
                closing(self._disk.open(path, "write")) as file,
            ):
                file.punch(place.start, padded(place.length))

    def _free_between(self, number: int, named: list[Place]) -> None:
        """Makes holes where no task stands: a crash may have come between a removal and its hole.
        No list is asked where that is, for it may have rotted."""
        path, at = self._layout.pack(number), 0
        with suppress(OSError, GossipcacheError), closing(self._disk.open(path, "write")) as file:
            for place in sorted(named, key=lambda place: place.start):
                if at < place.start:
                    file.punch(at, place.start - at)
                at = place.start + padded(place.length)
            if at < (end := list_start(file)):
                file.punch(at, end - at)


class OpenPacks:
    """Packs that are read from again and again for a while; `close` is due. Not shared."""

    def __init__(self, disk: Disk, layout: Layout) -> None:
        self._disk = disk
        self._layout = layout
        self._files: dict[int, DiskFile] = {}

    def read(self, place: Place, size: int) -> bytes:
        """The first `size` bytes of a place, fewer only where the pack ends. Raises `OSError`."""
        file = self._files.get(place.pack)
        if file is None:
            if len(self._files) == MAX_OPEN:
                self.close()
            file = self._files[place.pack] = self._disk.open(self._layout.pack(place.pack), "read")
        return file.read_at(place.start, size)

    def close(self) -> None:
        """Releases the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()


class Part:
    """The content of one packed task, as a file that is read only."""

    def __init__(self, file: DiskFile, task: StoredTask) -> None:
        self.file = file
        """Where it stands among others."""
        self.start = task.start
        self.task_id = task.task_id
        self._size = task.size

    def read_at(self, offset: int, count: int) -> bytes:
        """As of any file."""
        return self.file.read_at(self.start + offset, max(0, min(count, self._size - offset)))

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """As of any file."""
        left = max(0, self._size - offset)
        return self.file.read_into(self.start + offset, buffer[:left])

    def size(self) -> int:
        """As of any file."""
        return max(0, min(self.file.size() - self.start, self._size))

    def sync(self) -> None:
        """As of any file."""
        self.file.sync()

    def fileno(self) -> None:
        """There is none: its offsets would not be those of the content."""

    def close(self) -> None:
        """As of any file."""
        self.file.close()

    def write_at(self, offset: int, data: Buffer) -> None:
        """Never done: a packed task is complete."""
        raise self._read_only()

    def write_past_cache(self, offset: int, data: Buffer) -> None:
        """As `write_at`."""
        raise self._read_only()

    def allocate(self, size: int) -> None:
        """As `write_at`."""
        raise self._read_only()

    def truncate(self, size: int) -> None:
        """As `write_at`."""
        raise self._read_only()

    def punch(self, offset: int, count: int) -> bool:
        """As `write_at`."""
        raise self._read_only()

    def _read_only(self) -> PermissionError:
        return PermissionError(f"the packed task {self.task_id.hex()} is not written to")
