"""Making outputs durable that stand already: contents first, then the names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from functools import partial
from pathlib import PurePath

from gossipcache.env import Disk
from gossipcache.errors import GossipcacheError

_FEW = 8
"""So many files are synced one by one; more by one wait for their whole file system."""


def sync_output(disk: Disk, path: PurePath) -> None:
    """Makes the contents of the file or folder at `path` durable, and the names in it; its own
    name becomes so with its folder. What is there no more needs nothing. Raises `OSError`,
    `NoSpace`."""
    try:
        _sync_each(disk, path)
    except PermissionError:
        # By the user's umask this node may not read it; its whole file system is synced then.
        disk.sync_all([path.parent])


def _sync_each(disk: Disk, path: PurePath) -> None:
    folders, left = [], [path]
    while left:
        each = left.pop()
        stamp = disk.stamp(each)
        with suppress(FileNotFoundError):
            if stamp is not None and stamp.kind == "directory":
                folders.append(each)
                left += [each / name for name in disk.list_folder(each)]
            elif stamp is not None and stamp.kind == "file":
                with closing(disk.open(each, "read")) as file:
                    file.sync()
    for folder in reversed(folders):
        with suppress(FileNotFoundError):
            disk.sync_folder(folder)


def sync_outputs(disk: Disk, paths: Iterable[PurePath]) -> list[Exception]:
    """Makes many outputs durable with few waits, names and all; returns what failed."""
    failed: list[Exception] = []
    there = {path: stamp for path in paths if (stamp := disk.stamp(path)) is not None}
    files = [path for path, stamp in there.items() if stamp.kind == "file"]
    folders = list(dict.fromkeys(path.parent for path in there))
    alone = list(there)
    if len(files) > _FEW:
        _attempt(failed, lambda: disk.sync_all(files))
        alone = [path for path, stamp in there.items() if stamp.kind != "file"]
    for path in alone:
        _attempt(failed, partial(sync_output, disk, path))
    if len(folders) > _FEW:
        _attempt(failed, lambda: disk.sync_all(folders))
    else:
        for folder in folders:
            _attempt(failed, partial(disk.sync_folder, folder))
    return failed


def _attempt(failed: list[Exception], work: Callable[[], None]) -> None:
    try:
        work()
    except (OSError, GossipcacheError) as error:
        failed.append(error)
