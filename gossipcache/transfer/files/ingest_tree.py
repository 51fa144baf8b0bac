"""Reading a folder into the store: the listing first, then the files' bytes in its order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import PurePath

from blake3 import blake3

from gossipcache.env import Disk, FileStamp
from gossipcache.errors import ProtocolError, UsageError
from gossipcache.transfer.digest_tree import DIGEST_BYTES, DigestTree
from gossipcache.transfer.files.chunks import (
    CHUNK_BYTES,
    OnProgress,
    chunks,
    ignore_progress,
    write_sparse,
)
from gossipcache.transfer.files.ingest import (
    Ingested,
    PieceHasher,
    changed,
    followed,
    open_source,
)
from gossipcache.transfer.files.paths import path_bytes, path_text
from gossipcache.transfer.files.tree import (
    FileEntry,
    FolderEntry,
    LinkEntry,
    Listing,
    TreeEntry,
    encode_listing,
    listing_digest,
    listing_of,
)
from gossipcache.transfer.store.staging import Staging

_UNKNOWN = bytes(DIGEST_BYTES)


def ingest_tree(
    disk: Disk,
    staging: Staging,
    path: PurePath,
    *,
    piece_size: int,
    progress: OnProgress = ignore_progress,
) -> Ingested:
    """Takes in the folder at `path`: names, bytes, the executable bit, empty folders, and
    relative links that stay inside.

    Raises `SourceChanged`, `NoSpace`, and `UsageError` for anything else that is in it.
    """
    path = followed(disk, path)
    found = dict(_walk(disk, path, b""))
    # A digest has the same length whatever it is: so the listing's length is known beforehand.
    draft = _listing(entry for entry, _ in found.values())
    listing_size = len(encode_listing(draft))
    size = listing_size + draft.content_size
    staging.reserve(size)
    writer = _Writer(disk, staging, listing_size, size, piece_size, progress)
    with closing(writer):
        entries = [
            _ingested(disk, path, entry, found[entry.path][1], writer)
            if isinstance(entry, FileEntry)
            else entry
            for entry in draft.entries
        ]
        _check_unchanged(disk, path, found)
        listing = encode_listing(_listing(entries))
        tree = writer.finish(listing)
    return Ingested(
        size=size,
        piece_size=piece_size,
        tree=tree,
        blake3=None,
        listing_size=listing_size,
        listing_digest=listing_digest(listing),
    )


class _Writer:
    """Writes the content behind a listing that is still to come, and hashes the pieces that do
    not overlap it on the way."""

    def __init__(
        self,
        disk: Disk,
        staging: Staging,
        listing_size: int,
        size: int,
        piece_size: int,
        progress: OnProgress,
    ) -> None:
        self._file = disk.open(staging.data, "create")
        self._file.truncate(size)
        self._head_size = min(-(-listing_size // piece_size) * piece_size, size)
        self._at = listing_size
        self._tail = PieceHasher(piece_size)
        self._piece_size = piece_size
        self._progress = progress

    def write(self, chunk: memoryview) -> None:
        write_sparse(self._file.write_at, self._at, chunk)
        self._tail.update(chunk[max(0, self._head_size - self._at) :])
        self._at += len(chunk)
        self._progress(self._at)

    def finish(self, listing: bytes) -> DigestTree:
        self._file.write_at(0, listing)
        head, buffer = PieceHasher(self._piece_size), memoryview(bytearray(CHUNK_BYTES))
        for chunk in chunks(self._file, 0, self._head_size, buffer):
            head.update(chunk)
        return DigestTree(head.digests() + self._tail.digests())

    def close(self) -> None:
        self._file.close()


def _listing(entries: Iterator[TreeEntry] | list[TreeEntry]) -> Listing:
    try:
        return listing_of(entries)
    except ProtocolError as error:
        raise UsageError(f"this folder cannot be imported: {error.message}") from error


def _walk(
    disk: Disk, folder: PurePath, prefix: bytes
) -> Iterator[tuple[bytes, tuple[TreeEntry, FileStamp]]]:
    """Each entry below `folder` by its path, with the stamp it has before it is read."""
    pending = [(folder, prefix)]
    while pending:
        here, above = pending.pop()
        for name in disk.list_folder(here):
            path = here / name
            relative = above + path_bytes(name)
            stamp = disk.stamp(path)
            if stamp is None:
                raise changed(path)
            if stamp.kind == "directory" and disk.list_folder(path):
                pending.append((path, relative + b"/"))
            else:
                yield relative, (_entry(disk, path, relative, stamp), stamp)


def _entry(disk: Disk, path: PurePath, relative: bytes, stamp: FileStamp) -> TreeEntry:
    if stamp.kind == "directory":
        return FolderEntry(relative)
    if stamp.kind == "link":
        return LinkEntry(relative, path_bytes(disk.read_symlink(path)))
    if stamp.kind == "file":
        return FileEntry(relative, stamp.size, bool(stamp.mode & 0o100), _UNKNOWN)
    raise UsageError(
        f"{path} is neither file, folder nor link", "remove it, or import a folder without it"
    )


def _ingested(
    disk: Disk, root: PurePath, entry: FileEntry, stamp: FileStamp, writer: _Writer
) -> FileEntry:
    path = root / path_text(entry.path)
    state, buffer, done = blake3(), memoryview(bytearray(min(CHUNK_BYTES, entry.size or 1))), 0
    with closing(open_source(disk, path)) as file:
        while done < entry.size:
            wanted = buffer[: min(len(buffer), entry.size - done)]
            if file.read_into(done, wanted) != len(wanted):
                raise changed(path)
            state.update(wanted)
            writer.write(wanted)
            done += len(wanted)
        if file.size() != entry.size:
            raise changed(path)
    if disk.stamp(path) != stamp:
        raise changed(path)
    return FileEntry(entry.path, entry.size, entry.executable, state.digest())


def _check_unchanged(
    disk: Disk, path: PurePath, found: dict[bytes, tuple[TreeEntry, FileStamp]]
) -> None:
    again = dict(_walk(disk, path, b""))
    for relative in sorted(found.keys() | again.keys()):
        if found.get(relative) != again.get(relative):
            raise changed(path / path_text(relative))
