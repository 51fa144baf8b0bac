"""Giving a tree back: as a folder, or as a tar stream that is the same for every node."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import PurePath

from blake3 import blake3

from gossipcache.env import Disk, DiskFile
from gossipcache.errors import IntegrityError
from gossipcache.manifest import Manifest
from gossipcache.transfer.files.chunks import (
    CHUNK_BYTES,
    OnProgress,
    chunks,
    ignore_progress,
    write_sparse,
)
from gossipcache.transfer.files.output import Ledger, Place
from gossipcache.transfer.files.paths import path_text
from gossipcache.transfer.files.syncing import sync_output
from gossipcache.transfer.files.tree import (
    FileEntry,
    FolderEntry,
    LinkEntry,
    Listing,
    read_listing,
)


class OutputTree:
    """A folder to be exported: unpacked under a hidden name beside its target."""

    def __init__(
        self,
        disk: Disk,
        target: PurePath,
        *,
        token: str,
        ledger: Ledger,
        umask: int = 0o077,
        overwrite: bool = False,
    ) -> None:
        """Raises `Conflict` and `UsageError` as `Place` does."""
        self._disk = disk
        self._umask = umask
        self._place = Place(disk, target, ledger, token, overwrite)
        self._root = self._place.temporary
        self._modes: dict[PurePath, int] = {}
        """Of all that was made; what it is made of comes first."""

    def unpack(
        self, data: DiskFile, manifest: Manifest, progress: OnProgress = ignore_progress
    ) -> None:
        """Writes all that the content in `data` lists, each file checked against its digest.

        Raises `IntegrityError`, `NoSpace`.
        """
        listing = read_listing(data, manifest)
        offset = manifest.listing_size
        self._disk.make_folder(self._root)
        folders = self._make_folders(listing)
        buffer = memoryview(bytearray(CHUNK_BYTES))
        for entry in listing.files():
            self._write(data, offset, entry, buffer)
            offset += entry.size
            progress(offset)
        for link in listing.entries:
            if isinstance(link, LinkEntry):
                self._disk.symlink(path_text(link.target), self._path(link.path))
        self._modes.update(dict.fromkeys(reversed(folders), 0o777))

    def _make_folders(self, listing: Listing) -> list[PurePath]:
        folders = {self._root: None}
        for entry in listing.entries:
            path = self._path(entry.path)
            own = [path] if isinstance(entry, FolderEntry) else []
            above = [parent for parent in path.parents if self._root in parent.parents]
            for folder in (*reversed(above), *own):
                if folder not in folders:
                    self._disk.make_folder(folder)
                    folders[folder] = None
        return list(folders)

    def _write(self, data: DiskFile, offset: int, entry: FileEntry, buffer: memoryview) -> None:
        path, state, at = self._path(entry.path), blake3(), 0
        with closing(self._disk.open(path, "create")) as file:
            file.truncate(entry.size)
            for chunk in chunks(data, offset, entry.size, buffer):
                state.update(chunk)
                write_sparse(file.write_at, at, chunk)
                at += len(chunk)
        if state.digest() != entry.digest:
            raise IntegrityError(f"a file in the tree is not what the listing says: {entry.path!r}")
        self._modes[path] = 0o777 if entry.executable else 0o666

    def _path(self, relative: bytes) -> PurePath:
        return self._root / path_text(relative)

    def commit(self, *, sync: bool = False) -> None:
        """The tree stands at its target; what stood there is gone as a whole. With `sync` it is
        durable on return, and whole or not there at all whenever the power fails.

        Raises `Conflict` if something has come there meanwhile; the output is then gone.
        """
        try:
            if sync:
                # After all are written: most files then find that nothing is left to do.
                sync_output(self._disk, self._root)
            # Only now, for a umask may leave nobody the right to read.
            for path, mode in self._modes.items():
                self._disk.set_mode(path, mode & ~self._umask)
            self._place.put_folder()
            if sync:
                self._place.sync()
        finally:
            self.abort()

    def abort(self) -> None:
        """Removes the temporary folder; after a commit nothing, or the replaced tree."""
        with suppress(FileNotFoundError):
            self._place.clear()


@dataclass(frozen=True, slots=True)
class ContentRange:
    """`size` bytes of the task's content from `offset` on."""

    offset: int
    size: int


def tar_parts(listing: Listing, listing_size: int) -> Iterator[bytes | ContentRange]:
    """A POSIX (pax) tar archive of the tree: bytes to emit, and ranges of the content.

    Times, owners and the umask play no part: every node gives the same bytes.
    """
    offset, total = listing_size, 0
    for entry in listing.entries:
        header = _header(entry)
        total += len(header)
        yield header
        if isinstance(entry, FileEntry) and entry.size:
            yield ContentRange(offset, entry.size)
            padding = -entry.size % tarfile.BLOCKSIZE
            offset, total = offset + entry.size, total + entry.size + padding
            if padding:
                yield bytes(padding)
    total += 2 * tarfile.BLOCKSIZE
    yield bytes(2 * tarfile.BLOCKSIZE + -total % tarfile.RECORDSIZE)


def tar_size(listing: Listing) -> int:
    """Length of the archive in bytes."""
    return sum(
        part.size if isinstance(part, ContentRange) else len(part) for part in tar_parts(listing, 0)
    )


def _header(entry: FileEntry | FolderEntry | LinkEntry) -> bytes:
    info = tarfile.TarInfo(path_text(entry.path))
    info.mode = 0o644
    if isinstance(entry, FileEntry):
        info.size = entry.size
        info.mode = 0o755 if entry.executable else 0o644
    elif isinstance(entry, FolderEntry):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    else:
        info.type, info.mode = tarfile.SYMTYPE, 0o777
        info.linkname = path_text(entry.target)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
