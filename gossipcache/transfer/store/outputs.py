"""Where exports leave hidden files, should they be cut off: a ledger of folders.

A hidden file may come back with a power cut long after it went, since neither its making nor its
removal is synced. So the folder is noted, durably, before the first one of a run is made there, and
stays noted until its names are durable. The next start looks there for names with the *mark* of
that run, which no other run of any node has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from itertools import count
from pathlib import PurePath
from threading import Lock

from gossipcache.env import Disk
from gossipcache.errors import GossipcacheError
from gossipcache.transfer.files.output import is_temporary
from gossipcache.transfer.files.paths import path_bytes, path_text
from gossipcache.transfer.store.catalogue import Catalogue


class Outputs:
    """The exports of one run, a `Ledger`, and the folders that earlier runs noted."""

    def __init__(self, disk: Disk, catalogue: Catalogue, mark: str) -> None:
        self._disk = disk
        self._catalogue = catalogue
        self._mark = mark
        self._numbers = count(1)
        self._lock = Lock()
        self._under_way: set[PurePath] = set()
        self._uses: dict[tuple[str, PurePath], int] = {
            (mark, PurePath(path_text(name))): 0 for mark, name in catalogue.folders()
        }
        """How many outputs this run began in each folder that is noted, by mark and path."""
        self._rested: dict[tuple[str, PurePath], int] = {}
        """The same when `tidy` came by, of the folders that no export was at work in."""

    def token(self) -> str:
        """A part of hidden names that nobody else has."""
        return f"{self._mark}-{next(self._numbers):x}"

    def note_output(self, path: PurePath) -> None:
        """See `note_outputs`."""
        self.note_outputs((path,))

    def forget_output(self, path: PurePath) -> None:
        """See `forget_outputs`."""
        self.forget_outputs((path,))

    def note_outputs(self, paths: Collection[PurePath]) -> None:
        """These hidden paths are about to be made. Raises `OSError`, `NoSpace`."""
        begun = Counter((self._mark, path.parent) for path in paths)
        with self._lock:
            fresh = [folder for mark, folder in begun if (mark, folder) not in self._uses]
            self._catalogue.note_folders(self._mark, [_named(folder) for folder in fresh])
            for key, outputs in begun.items():
                self._uses[key] = self._uses.get(key, 0) + outputs
            self._under_way.update(paths)

    def forget_outputs(self, paths: Iterable[PurePath]) -> None:
        """They are no more, as far as can be seen now."""
        with self._lock:
            self._under_way.difference_update(paths)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is noted."""
        return not self._uses

    def tidy(self) -> None:
        """To be called about once a minute: folders that no export was at work in meanwhile are
        synced and forgotten. (What stands in them is durable by then, so that no name comes before
        its content.) Waits for the disks of those folders."""
        with self._lock:
            idle = self._idle()
            rested = [key for key, uses in idle.items() if self._rested.get(key) == uses]
            self._rested = idle
        synced = [key for key in rested if _is_synced(self._disk, key[1])]
        with self._lock:
            still = self._idle()
            for mark, folder in [key for key in synced if still.get(key) == idle[key]]:
                with suppress(OSError, GossipcacheError):  # It stays noted: that does no harm.
                    self._catalogue.forget_folder(mark, _named(folder))
                    del self._uses[mark, folder]

    def _idle(self) -> dict[tuple[str, PurePath], int]:
        in_use = {(self._mark, path.parent) for path in self._under_way}
        return {key: uses for key, uses in self._uses.items() if key not in in_use}


def sweep_outputs(disk: Disk, catalogue: Catalogue) -> None:
    """Removes what earlier runs left in the folders of their exports."""
    for mark, name in catalogue.folders():
        with suppress(OSError):  # It may be read-only by now; it is not ours to insist.
            _sweep(disk, PurePath(path_text(name)), mark)
    for name in catalogue.outputs():
        path = PurePath(path_text(name))
        if is_temporary(path):
            try:
                disk.remove(path)
            except OSError:
                continue
        catalogue.forget_output(name)


def _sweep(disk: Disk, folder: PurePath, mark: str) -> None:
    if disk.stamp(folder) is None:
        return
    for path in (folder / name for name in disk.list_folder(folder)):
        if is_temporary(path, mark):
            disk.remove(path)


def _is_synced(disk: Disk, folder: PurePath) -> bool:
    """Makes the names in a folder durable; whether they are, or it is gone."""
    try:
        disk.sync_folder(folder)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, GossipcacheError):
        return False
    return True


def _named(folder: PurePath) -> bytes:
    return path_bytes(str(folder))
