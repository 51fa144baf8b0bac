"""What an export writes: whole and verified at its place, or nothing there at all.

An output grows under a hidden name beside its target and takes the target's name when it is
whole. Exports resume by the pieces in the store, not by this file: what a killed node leaves
is found by a ledger (`store.outputs`) and removed by the node's next start.

An output that stands survives the death of any process. Whether it has to survive a power cut as
well is asked by `sync`, before it takes its name; else `files.syncing` sees to that afterwards.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import PurePath
from typing import Protocol

from gossipcache.env import LARGE_FILE_BYTES, Buffer, Disk, DiskFile, FileStamp
from gossipcache.errors import Conflict, UsageError
from gossipcache.transfer.files.chunks import write_sparse

_PREFIX = ".gossipcache-"
_SUFFIX = ".part"
_NO_LINKS = frozenset(
    (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EINVAL, errno.EXDEV)
)
_NO_EXCHANGE = frozenset((errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP))


class Ledger(Protocol):
    """Remembers temporary paths across a crash; `store.outputs` has one."""

    def note_output(self, path: PurePath) -> None:
        """A temporary path is about to be made."""

    def forget_output(self, path: PurePath) -> None:
        """It is no more."""


def is_temporary(path: PurePath, mark: str = "") -> bool:
    """Whether `path` has the name of an unfinished output, whose token begins with `mark`."""
    return path.name.startswith(_PREFIX + mark) and path.name.endswith(_SUFFIX)


def temporary_of(target: PurePath, token: str) -> PurePath:
    """The hidden path beside `target`."""
    return target.with_name(f"{_PREFIX}{token}{_SUFFIX}")


class NotedBefore:
    """A `Ledger` for outputs that were noted all together, and will be forgotten so."""

    def note_output(self, path: PurePath) -> None:
        """It is noted already."""

    def forget_output(self, path: PurePath) -> None:
        """It stays noted for a moment."""


class Place:
    """A target and the hidden path beside it."""

    def __init__(
        self, disk: Disk, target: PurePath, ledger: Ledger, token: str, overwrite: bool
    ) -> None:
        """`token` is random text that no other export of any node has.

        Raises `Conflict` if something stands at `target` that may not be replaced.
        """
        self._disk = disk
        self._ledger = ledger
        self._overwrite = overwrite
        self._is_put = False
        """Whether nothing stands under the hidden name any more."""
        self.target = target
        self.temporary = temporary_of(target, token)
        self._check()
        ledger.note_output(self.temporary)

    def _check(self) -> FileStamp | None:
        folder = self.target.parent
        if (parent := self._disk.stamp(folder)) is None:
            raise UsageError(f"the folder {folder} does not exist", "make it first")
        if parent.kind not in ("directory", "link"):
            raise UsageError(f"{folder} is not a folder")
        return self._standing()

    def _standing(self) -> FileStamp | None:
        """What is at the target. Raises `Conflict` if it may not be replaced."""
        found = self._disk.stamp(self.target)
        if found is not None and not self._overwrite:
            raise _in_the_way(self.target)
        if found is not None and found.kind == "other":
            raise Conflict(f"{self.target} is not a file", "name another output")
        return found

    def put_file(self) -> None:
        """The temporary file becomes the target. Raises `Conflict`."""
        if self._overwrite:
            found = self._standing()
            if found is not None and found.kind == "directory":
                raise Conflict(f"{self.target} is a folder", "name a file in it")
            # Where both are links to one file, this does nothing.
            self._disk.rename(self.temporary, self.target)
        else:
            self._link_or_rename()
            self._is_put = True

    def _link_or_rename(self) -> None:
        # A link never replaces what somebody else put there in the meantime; a rename would.
        try:
            self._disk.link(self.temporary, self.target)
        except FileExistsError as error:
            raise _in_the_way(self.target) from error
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._check()
            self._disk.rename(self.temporary, self.target)
        else:
            self._disk.remove(self.temporary)

    def put_folder(self) -> None:
        """The temporary folder becomes the target; the old one goes, it is never merged."""
        if self._check() is None:
            try:
                self._disk.rename(self.temporary, self.target)
            except (FileExistsError, NotADirectoryError) as error:
                raise _in_the_way(self.target) from error
            except OSError as error:
                if error.errno == errno.ENOTEMPTY:
                    raise _in_the_way(self.target) from error
                raise
        else:
            self._swap()

    def _swap(self) -> None:
        try:
            self._disk.exchange(self.temporary, self.target)
        except OSError as error:
            if error.errno not in _NO_EXCHANGE:
                raise
            aside = self.temporary.with_name(f"{self.temporary.name}.old")
            self._disk.rename(self.target, aside)
            self._disk.rename(self.temporary, self.target)
            self._disk.rename(aside, self.temporary)

    def sync(self) -> None:
        """Makes the names durable."""
        self._disk.sync_folder(self.target.parent)

    def clear(self) -> None:
        """Removes what stands under the hidden name."""
        if not self._is_put:
            self._disk.remove(self.temporary)
        self._ledger.forget_output(self.temporary)


class OutputFile:
    """A file to be exported. `write` may come from several workers at once."""

    def __init__(
        self,
        disk: Disk,
        target: PurePath,
        *,
        size: int,
        token: str,
        ledger: Ledger,
        umask: int = 0o077,
        overwrite: bool = False,
        source: PurePath | None = None,
        sparse: bool = False,
        cache_bytes: int = 0,
    ) -> None:
        """Makes the temporary file with room for `size` bytes, or as a clone of `source` where
        the file system can (`cloned` tells). With `sparse` no room is set aside.
        A large one is written past the page cache, but for its first `cache_bytes`.

        Raises `Conflict`, `NoSpace`, `UsageError`, `OSError`.
        """
        self._disk = disk
        self._umask = umask
        self._place = Place(disk, target, ledger, token, overwrite)
        self._is_large = size >= LARGE_FILE_BYTES
        self._cache_bytes_left = cache_bytes
        self._file: DiskFile | None = None
        self.cloned = False
        """Whether the content of `source` is there already."""
        try:
            self.cloned = source is not None and disk.clone(source, self._place.temporary)
            self._file = disk.open(self._place.temporary, "write" if self.cloned else "create")
            if not self.cloned:
                (self._file.truncate if sparse else self._file.allocate)(size)
        except BaseException:
            self.abort()
            raise

    def write(self, offset: int, data: Buffer) -> None:
        """Puts verified bytes at their place."""
        assert self._file is not None
        is_cached = self.has_room_in_cache
        self._cache_bytes_left -= len(data) if self._is_large else 0
        (self._file.write_at if is_cached else self._file.write_past_cache)(offset, data)

    def write_sparse(self, offset: int, chunk: memoryview) -> None:
        """The same, leaving out zeros; for an output made `sparse`."""
        write_sparse(self.write, offset, chunk)

    @property
    def has_room_in_cache(self) -> bool:
        """Whether the next bytes go to the page cache."""
        return not self._is_large or self._cache_bytes_left > 0

    @property
    def temporary(self) -> PurePath:
        """Where it grows."""
        return self._place.temporary

    def seal(self) -> None:
        """All is written, with the mode that the user's umask gives: what is left is `put`."""
        assert self._file is not None
        self._disk.set_mode(self._place.temporary, 0o666 & ~self._umask)
        self._file.close()

    def put(self) -> None:
        """What was sealed stands at its target. Raises `Conflict`. `abort` is due in any case."""
        self._place.put_file()

    def commit(self, *, sync: bool = False) -> None:
        """The file stands at its target; with `sync` durable on return, and whole or not there
        at all whenever the power fails.

        Raises `Conflict` if something has come there meanwhile; the output is then gone.
        """
        assert self._file is not None
        try:
            if sync:
                self._file.sync()
            self.seal()
            self.put()
            if sync:
                self._place.sync()
        finally:
            self.abort()

    def abort(self) -> None:
        """Removes the temporary file; after a commit nothing is left to remove."""
        if self._file is not None:
            self._file.close()
        with suppress(FileNotFoundError):
            self._place.clear()


def link_out(
    disk: Disk,
    data: PurePath,
    target: PurePath,
    *,
    token: str,
    ledger: Ledger,
    overwrite: bool,
    sync: bool,
) -> None:
    """Makes `target` a hard link of the store's file `data`; to be called by `Store.share`.

    Raises `Conflict`, and `UsageError` across file systems.
    """
    place = Place(disk, target, ledger, token, overwrite)
    try:
        try:
            disk.link(data, place.temporary)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            raise UsageError(
                f"{target} cannot be a hard link of the cache's file: {error.strerror}",
                "export without --link",
            ) from error
        place.put_file()
        if sync:
            place.sync()
    finally:
        place.clear()


def _in_the_way(target: PurePath) -> Conflict:
    return Conflict(f"{target} exists", "use --overwrite, or another output")
