"""Where things stand in the store's folder, and what a start finds there.

```
format.json              format version, default quota
index                    journal: entries, tombstones, folders that exports write to
tasks/ab/abcd…/data      content of the task whose id begins with ab (hex)
tasks/ab/abcd…/manifest  signed header and piece digests
tasks/ab/abcd….packed    both in one file: content, manifest, its length in four bytes
staging/N                imports and downloads being set up; emptied at each start
trash/N                  removed tasks; emptied at each start
```
Nothing that a user or a remote chose is part of a path.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import PurePath

import msgspec

from gossipcache.env import Disk
from gossipcache.errors import IntegrityError, VersionUnsupported
from gossipcache.ids import TASK_ID_BYTES, TaskId
from gossipcache.transfer.store.index import SealedManifest

FORMAT_VERSION = 2
"""2: a task may stand in one file. A store of format 1 becomes one of 2 as it stands."""
PACKED = ".packed"
_LENGTH_BYTES = 4
_DEFAULT_QUOTA_SHARE = 0.8
_MAX_FORMAT_BYTES = 4096


class StoreFormat(msgspec.Struct, frozen=True):
    """`format.json`. Fields of newer versions are not read."""

    format: int
    default_quota_bytes: int = 0


class Layout:
    """The paths below one store's root."""

    def __init__(self, disk: Disk, root: PurePath) -> None:
        self._disk = disk
        self.root = root
        self.index = root / "index"
        self.staging = root / "staging"
        self.trash = root / "trash"
        self.tasks = root / "tasks"

    def task(self, task_id: TaskId) -> PurePath:
        """The folder of a task."""
        name = task_id.hex()
        return self.tasks.joinpath(name[:2], name)

    def packed(self, task_id: TaskId) -> PurePath:
        """The one file of a packed task."""
        name = task_id.hex()
        return self.tasks.joinpath(name[:2], name + PACKED)

    def data(self, task_id: TaskId, *, packed: bool) -> PurePath:
        """The file that holds a task's content; if it is packed, at its head."""
        if packed:
            return self.packed(task_id)
        name = task_id.hex()
        return self.tasks.joinpath(name[:2], name, "data")

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
                'write {"format": 1} into it, or move the store away',
            ) from error
        finally:
            file.close()
        if found.format > FORMAT_VERSION:
            raise VersionUnsupported(
                f"the store {self.root} has format {found.format}, "
                f"this program knows up to {FORMAT_VERSION}"
            )
        if found.format < FORMAT_VERSION:
            found = msgspec.structs.replace(found, format=FORMAT_VERSION)
            write_file(self._disk, path, msgspec.json.encode(found))
        return found

    def _made(self, path: PurePath) -> StoreFormat:
        for number in range(256):
            self._disk.make_folder(self.tasks / f"{number:02x}")
        self._disk.sync_folder(self.tasks)
        quota_bytes = int(self._disk.free_bytes(self.root) * _DEFAULT_QUOTA_SHARE)
        made = StoreFormat(FORMAT_VERSION, quota_bytes)
        write_file(self._disk, path, msgspec.json.encode(made))
        self._disk.sync_folder(self.root.parent)
        return made

    def folders(self) -> Iterator[tuple[PurePath, str]]:
        """What stands under `tasks`: each fan-out folder with a name in it."""
        for fan in self._disk.list_folder(self.tasks):
            parent = self.tasks / fan
            for name in self._disk.list_folder(parent):
                yield parent, name

    def sealed(self, task_id: TaskId, *, packed: bool) -> SealedManifest:
        """What stands beside a task's content. Raises `IntegrityError`."""
        path = self.packed(task_id) if packed else self.manifest(task_id)
        try:
            with closing(self._disk.open(path, "read")) as file:
                start, end = 0, file.size()
                if packed:
                    end = max(0, end - _LENGTH_BYTES)
                    length = int.from_bytes(file.read_at(end, _LENGTH_BYTES), "big")
                    start = max(0, end - length)
                raw = file.read_at(start, end - start)
            return msgspec.msgpack.decode(raw, type=SealedManifest)
        except (OSError, msgspec.DecodeError) as error:
            raise IntegrityError(
                f"{path} cannot be read: {error}", "run `gossipcache verify`"
            ) from error


def packed_bytes(data: bytes, sealed: SealedManifest) -> bytes:
    """The one file of a packed task."""
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
