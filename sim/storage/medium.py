"""What lies on a simulated disk: files, folders and links, each with what of it is durable.

A change is *pending* until its file or folder is synced. A power loss keeps, of each file, the
synced bytes plus an arbitrary choice of the pending writes, the last of them perhaps torn at a
sector; and of each folder the synced names plus the first few pending changes, in order. That
is what POSIX promises, no more: a new file's name needs a sync of its folder. One promise more
is kept, for every journaling file system does: a rename from folder to folder happens in both
or in neither.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Protocol

SECTOR_BYTES = 512
FIRST_INSTANT_NS = 1_700_000_000 * 10**9

WriteObserver = Callable[[str, int, int, bytes], None]
"""Called with (kind of change, inode number, offset, bytes) for each change of the medium."""


@dataclass(slots=True, eq=False)
class Inode:
    """What files, folders and links have in common."""

    number: int
    mode: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """Bytes written at an offset, not synced."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class PendingResize:
    """A new length, not synced."""

    size: int


@dataclass(slots=True, eq=False)
class FileInode(Inode):
    """A regular file; it lives while a name or an open file refers to it."""

    data: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[PendingWrite | PendingResize] = field(default_factory=list)
    names: int = 0
    rotten: list[range] = field(default_factory=list)
    """Offsets whose bytes are not what was written there, and were not overwritten since."""
    holes: list[range] = field(default_factory=list)
    """Whose room was given back."""

    def write(self, offset: int, data: bytes) -> None:
        """Puts `data` at `offset`."""
        if self.holes:
            self.holes = _without(self.holes, range(offset, offset + len(data)))
        change = PendingWrite(offset, data)
        _apply(self.data, change)
        self.pending.append(change)
        if self.rotten:
            self.rotten = _without(self.rotten, range(offset, offset + len(data)))

    def punch(self, offset: int, count: int) -> None:
        """Zeros these bytes and frees their room."""
        gone = range(offset, min(offset + count, len(self.data)))
        self.write(offset, bytes(len(gone)))
        if gone:
            self.holes = [*_without(self.holes, gone), gone]

    @property
    def room(self) -> int:
        """What it takes of the medium."""
        return len(self.data) - sum(map(len, self.holes))

    def rot(self, place: range) -> None:
        """The bytes at `place` are no longer what was written there."""
        if place:
            self.rotten.append(place)

    def is_rotten(self, offset: int, count: int) -> bool:
        """Whether one of `count` bytes from `offset` is not what was written there."""
        return any(each.start < offset + count and offset < each.stop for each in self.rotten)

    def resize(self, size: int) -> None:
        """Cuts or zero-fills to `size` bytes."""
        change = PendingResize(size)
        _apply(self.data, change)
        self.pending.append(change)

    def sync(self) -> None:
        """Makes all changes durable."""
        for change in self.pending:
            _apply(self.durable, change)
        self.pending.clear()

    def fail_sync(self) -> None:
        """The sync failed: the changes are still seen, but nothing will ever make them durable."""
        self.pending.clear()

    def lose_unsynced(self, rng: random.Random | None) -> int:
        """Power loss; the number of changes lost. Without `rng`, all of the pending ones."""
        lost = 0
        for change in self.pending:
            if rng is None or rng.random() < 0.5:
                lost += 1
            else:
                _apply(self.durable, _torn(change, rng))
        if lost:
            self.holes.clear()
        self.pending.clear()
        self.data = bytearray(self.durable)
        return lost


@dataclass(slots=True, eq=False)
class LinkInode(Inode):
    """A symbolic link; durable with its name."""

    target: str = ""


@dataclass(slots=True, eq=False)
class PendingNames:
    """Names set or (None) removed in a folder at once, not synced."""

    names: tuple[tuple[str, Inode | None], ...]
    twin: tuple[FolderInode, PendingNames] | None = None
    """What the same rename changes in the other folder."""


@dataclass(slots=True, eq=False)
class FolderInode(Inode):
    """A folder: names, and the changes to them that are not synced."""

    entries: dict[str, Inode] = field(default_factory=dict)
    durable: dict[str, Inode] = field(default_factory=dict)
    pending: list[PendingNames] = field(default_factory=list)

    def change(self, *names: tuple[str, Inode | None]) -> PendingNames:
        """Sets or removes names, atomically."""
        _set_names(self.entries, names)
        change = PendingNames(names)
        self.pending.append(change)
        return change

    def sync(self) -> None:
        """Makes the names durable."""
        self.commit(len(self.pending))

    def commit(self, count: int) -> None:
        """Makes the first `count` pending changes durable, and the other halves of renames."""
        done, self.pending = self.pending[:count], self.pending[count:]
        for change in done:
            _set_names(self.durable, change.names)
        for change in done:
            if change.twin is not None:
                folder, twin = change.twin
                if twin in folder.pending:
                    folder.commit(folder.pending.index(twin) + 1)

    def lose_unsynced(self) -> int:
        """Power loss in this folder alone; the number of changes lost."""
        lost = len(self.pending)
        self.pending.clear()
        self.entries = dict(self.durable)
        return lost


@dataclass(frozen=True, slots=True)
class DiskTiming:
    """How long operations take in virtual time."""

    operation_s: float = 20e-6
    sync_s: float = 1e-3
    bytes_per_s: float = 1e9


class Diversion(Protocol):
    """Something else happens instead of a write."""

    taken: bool
    """Whether it has happened."""

    def takes(self, inode: FileInode, offset: int, data: bytes) -> bool:
        """Whether this write was its case; what was to happen has happened then."""


@dataclass(slots=True)
class Defects:
    """The faults armed on a medium; they outlive the processes that meet them."""

    failing: dict[str, list[OSError]] = field(default_factory=dict)
    """What the next operations of each kind raise."""
    read_only: bool = False
    sync_delay_s: float = 0.0
    diversions: list[Diversion] = field(default_factory=list)
    """Asked in turn at each write; one that took a write is spent."""
    vanished: dict[PurePath, None] = field(default_factory=dict)
    """Files that are gone without anybody having removed them."""

    def divert(self, inode: FileInode, offset: int, data: bytes) -> bool:
        """Whether a diversion took this write."""
        for each in self.diversions:
            if each.takes(inode, offset, data):
                self.diversions.remove(each)
                return True
        return False


@dataclass(slots=True)
class Medium:
    """What outlives the process: the tree, its size limit, and the faults armed on it."""

    root: FolderInode
    capacity_bytes: int
    timing: DiskTiming
    next_inode: int = 2
    now_ns: int = FIRST_INSTANT_NS
    observer: WriteObserver | None = None
    defects: Defects = field(default_factory=Defects)

    def image(self) -> Medium:
        """A copy of what is durable now, on a sound medium."""
        root = copy.deepcopy(self.root)
        lose_unsynced(root, None)
        return Medium(
            root, self.capacity_bytes, self.timing, self.next_inode, self.now_ns, self.observer
        )


def lose_unsynced(root: FolderInode, rng: random.Random | None) -> int:
    """Power loss of the tree under `root`; the number of changes lost."""
    if rng is not None:
        for folder in _folders(root):
            folder.commit(rng.randint(0, len(folder.pending)))
    lost = 0
    seen: set[int] = set()
    waiting: list[FolderInode] = [root]
    while waiting:
        folder = waiting.pop()
        lost += folder.lose_unsynced()
        for _, inode in sorted(folder.entries.items()):
            if inode.number in seen:
                continue
            seen.add(inode.number)
            if isinstance(inode, FolderInode):
                waiting.append(inode)
            elif isinstance(inode, FileInode):
                lost += inode.lose_unsynced(rng)
    _count_names(root)
    return lost


def used_bytes(root: FolderInode) -> int:
    """Bytes of all files under `root`, hard links counted once."""
    return sum(inode.room for inode in files_in(root).values())


def _count_names(root: FolderInode) -> None:
    files = files_in(root)
    for file in files.values():
        file.names = 0
    for folder in _folders(root):
        for inode in folder.entries.values():
            if isinstance(inode, FileInode):
                inode.names += 1


def _folders(root: FolderInode) -> list[FolderInode]:
    found = [root]
    for folder in found:  # grows while it is walked
        found.extend(each for each in folder.entries.values() if isinstance(each, FolderInode))
    return found


def files_in(root: FolderInode) -> dict[int, FileInode]:
    """All files under `root` by inode number."""
    return {
        inode.number: inode
        for folder in _folders(root)
        for inode in folder.entries.values()
        if isinstance(inode, FileInode)
    }


def _set_names(entries: dict[str, Inode], names: tuple[tuple[str, Inode | None], ...]) -> None:
    for name, inode in names:
        if inode is None:
            entries.pop(name, None)
        else:
            entries[name] = inode


def _apply(content: bytearray, change: PendingWrite | PendingResize) -> None:
    size = change.size if isinstance(change, PendingResize) else change.offset
    if len(content) < size:
        content.extend(bytes(size - len(content)))
    if isinstance(change, PendingResize):
        del content[size:]
    else:
        content[change.offset : change.offset + len(change.data)] = change.data


def _without(places: list[range], gone: range) -> list[range]:
    """`places` less what lies in `gone`."""
    left: list[range] = []
    for each in places:
        parts = (
            range(each.start, min(each.stop, gone.start)),
            range(max(each.start, gone.stop), each.stop),
        )
        left += [part for part in parts if part]
    return left


def _torn(change: PendingWrite | PendingResize, rng: random.Random) -> PendingWrite | PendingResize:
    """A write may reach the medium only up to some sector."""
    if isinstance(change, PendingResize) or rng.random() < 0.5:
        return change
    sectors = len(change.data) // SECTOR_BYTES
    return PendingWrite(change.offset, change.data[: rng.randint(0, sectors) * SECTOR_BYTES])
