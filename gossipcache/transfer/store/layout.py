"""Where things stand in the store's folder, and what a start finds there.

```
format.json              format version, default quota
index                    journal: entries, tombstones, folders that exports write to
tasks/ab/abcd…/data      content of the task whose id begins with ab (hex)
tasks/ab/abcd…/manifest  signed header and piece digests
tasks/ab/abcd….packed    both in one file: content, manifest, its length in four bytes (format 2)
packs/N                  many such files, each from a multiple of 4 KiB on, and a list of them
staging/N                imports and downloads being set up; emptied at each start
trash/N                  removed tasks; emptied at each start
```
Nothing that a user or a remote chose is part of a path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import PurePath

import msgspec

from gossipcache.env import Disk, DiskFile
from gossipcache.errors import IntegrityError, VersionUnsupported
from gossipcache.ids import TASK_ID_BYTES, TaskId
from gossipcache.transfer.store.index import Place, SealedManifest, StoredTask

FORMAT_VERSION = 3
"""2: a task may stand in one file; 3: many may. A store of an earlier format becomes one of this
as it stands."""
PACKED = ".packed"
_LENGTH_BYTES = 4
_BLOCK_BYTES = 4096
_LIST_MARK = b"gcpk"
_LIST_END_BYTES = _LENGTH_BYTES + len(_LIST_MARK)
_DEFAULT_QUOTA_SHARE = 0.8
_MAX_FORMAT_BYTES = 4096


class StoreFormat(msgspec.Struct, frozen=True):
    """`format.json`. Fields of newer versions are not read."""

    format: int
    default_quota_bytes: int = 0
    """0 where a user has written the file anew: what is there, and a part of what is free."""


class Layout:
    """The paths below one store's root."""

    def __init__(self, disk: Disk, root: PurePath) -> None:
        self._disk = disk
        self.root = root
        self.index = root / "index"
        self.staging = root / "staging"
        self.trash = root / "trash"
        self.tasks = root / "tasks"
        self.packs = root / "packs"

    def task(self, task_id: TaskId) -> PurePath:
        """The folder of a task."""
        name = task_id.hex()
        return self.tasks.joinpath(name[:2], name)

    def pack(self, number: int) -> PurePath:
        """The pack of that number."""
        return self.packs / str(number)

    def packed(self, task_id: TaskId) -> PurePath:
        """The one file of a packed task that has one."""
        name = task_id.hex()
        return self.tasks.joinpath(name[:2], name + PACKED)

    def data(self, task: StoredTask) -> PurePath:
        """The file that holds a task's content; if it is packed, somewhere in it."""
        if task.place is not None:
            return self.pack(task.place.pack)
        return self.packed(task.task_id) if task.packed else self.task(task.task_id) / "data"

    def manifest(self, task_id: TaskId) -> PurePath:
        """The file with the `SealedManifest` of a task that is not packed."""
        name = task_id.hex()
        return self.tasks.joinpath(name[:2], name, "manifest")

    def prepare(self) -> StoreFormat:
        """Makes what is missing and empties what a former run left half done.

        Raises `VersionUnsupported` for the store of a newer program, which stays untouched.
        """
        found = self._format()
        for folder in (self.staging, self.trash):
            self._disk.remove(folder)
            self._disk.make_folder(folder)
        return found

    def _format(self) -> StoreFormat:
        path = self.root / "format.json"
        if self._disk.stamp(path) is None:
            return self._made(path)
        file = self._disk.open(path, "read")
        try:
            found = msgspec.json.decode(file.read_at(0, _MAX_FORMAT_BYTES), type=StoreFormat)
        except msgspec.DecodeError as error:
            raise IntegrityError(
                f"{path} is damaged: {error}",
                f'write {{"format": {FORMAT_VERSION}}} into it, or move the store away',
            ) from error
        finally:
            file.close()
        if found.format > FORMAT_VERSION:
            raise VersionUnsupported(
                f"the store {self.root} has format {found.format}, "
                f"this program knows up to {FORMAT_VERSION}"
            )
        if self._disk.stamp(self.packs) is None:
            self._disk.make_folder(self.packs)
            self._disk.sync_folder(self.root)
        if found.format < FORMAT_VERSION:
            found = msgspec.structs.replace(found, format=FORMAT_VERSION)
            write_file(self._disk, path, msgspec.json.encode(found))
        return found

    def _made(self, path: PurePath) -> StoreFormat:
        for number in range(256):
            self._disk.make_folder(self.tasks / f"{number:02x}")
        self._disk.sync_folder(self.tasks)
        self._disk.make_folder(self.packs)
        made = StoreFormat(FORMAT_VERSION, self.spare_bytes())
        write_file(self._disk, path, msgspec.json.encode(made))
        self._disk.sync_folder(self.root.parent)
        return made

    def spare_bytes(self) -> int:
        """What a store may take of the room that is free."""
        return int(self._disk.free_bytes(self.root) * _DEFAULT_QUOTA_SHARE)

    def folders(self) -> Iterator[tuple[PurePath, str]]:
        """What stands under `tasks`: each fan-out folder with a name in it."""
        for fan in self._disk.list_folder(self.tasks):
            parent = self.tasks / fan
            for name in self._disk.list_folder(parent):
                yield parent, name

    def sealed(self, task_id: TaskId, *, packed: bool = False) -> SealedManifest:
        """What stands beside the content of a task that is in no pack. Raises `IntegrityError`."""
        return self._sealed(self.packed(task_id) if packed else self.manifest(task_id), packed)

    def sealed_in(self, place: Place) -> SealedManifest:
        """What stands beside a task's content in a pack. Raises `IntegrityError`."""
        return self._sealed(self.pack(place.pack), True, place)

    def sealed_of(self, task: StoredTask) -> SealedManifest:
        """What stands beside a task's content, wherever that is. Raises `IntegrityError`."""
        if task.place is not None:
            return self.sealed_in(task.place)
        return self.sealed(task.task_id, packed=task.packed)

    def _sealed(self, path: PurePath, packed: bool, place: Place | None = None) -> SealedManifest:
        try:
            with closing(self._disk.open(path, "read")) as file:
                raw = _manifest_in(file, packed, place)
            return msgspec.msgpack.decode(raw, type=SealedManifest)
        except (OSError, msgspec.DecodeError) as error:
            raise IntegrityError(
                f"{path} cannot be read: {error}", "run `gossipcache verify`"
            ) from error


def _manifest_in(file: DiskFile, packed: bool, place: Place | None) -> bytes:
    first, end = 0, file.size()
    if place is not None:
        first, end = place.start, place.start + place.length
    if not packed:
        return file.read_at(first, end)
    end = max(first, end - _LENGTH_BYTES)
    length = int.from_bytes(file.read_at(end, _LENGTH_BYTES), "big")
    start = max(first, end - length)
    return file.read_at(start, end - start)


def padded(length: int) -> int:
    """What so many bytes take in a pack, and of the disk."""
    return length + -length % _BLOCK_BYTES


def list_of(places: Iterable[tuple[int, int]]) -> bytes:
    """What ends a pack: where each task in it begins, and its length."""
    listed = msgspec.msgpack.encode(tuple(places))
    return b"".join((listed, len(listed).to_bytes(_LENGTH_BYTES, "big"), _LIST_MARK))


def listed_places(disk: Disk, path: PurePath) -> tuple[tuple[int, int], ...]:
    """The places that the list of the pack at `path` names; none if it cannot be read."""
    try:
        with closing(disk.open(path, "read")) as file:
            listed_at = list_start(file)
            raw = file.read_at(listed_at, file.size() - listed_at)[:-_LIST_END_BYTES]
        listed = msgspec.msgpack.decode(raw, type=tuple[tuple[int, int], ...])
    except (OSError, msgspec.DecodeError):
        return ()
    return tuple((at, length) for at, length in listed if 0 <= at <= at + length <= listed_at)


def list_start(file: DiskFile) -> int:
    """Where the list at the end of a pack begins; 0 if there is none."""
    end = max(0, file.size() - _LIST_END_BYTES)
    tail = file.read_at(end, _LIST_END_BYTES)
    if tail[_LENGTH_BYTES:] != _LIST_MARK:
        return 0
    return max(0, end - int.from_bytes(tail[:_LENGTH_BYTES], "big"))


def pack_number(name: str) -> int | None:
    """The number of the pack whose file has this name, if it is one's."""
    return int(name) if name.isdecimal() and str(int(name)) == name else None


def packed_bytes(data: bytes, sealed: SealedManifest) -> bytes:
    """A packed task as it stands in its file, or in a pack."""
    manifest = msgspec.msgpack.encode(sealed)
    return b"".join((data, manifest, len(manifest).to_bytes(_LENGTH_BYTES, "big")))


def write_file(disk: Disk, path: PurePath, data: bytes) -> None:
    """Puts `data` at `path`, whole or not at all, durable on return."""
    new_path = path.with_name(path.name + ".new")
    disk.remove(new_path)
    file = disk.open(new_path, "create")
    try:
        file.write_at(0, data)
        file.sync()
    finally:
        file.close()
    disk.rename(new_path, path)
    disk.sync_folder(path.parent)


def task_named(fan: str, name: str) -> TaskId | None:
    """The task whose folder or file is `name` in the fan-out folder `fan`, if it is one's."""
    name = name.removesuffix(PACKED)
    try:
        task_id = bytes.fromhex(name)
    except ValueError:
        return None
    whole = len(task_id) == TASK_ID_BYTES and task_id.hex() == name and name[:2] == fan
    return TaskId(task_id) if whole else None
