"""Reading content into the store: once, hashed while it is hot in the cache, and copied.

A file is cloned where the file system can, linked if asked, else copied chunk by chunk: one
thread reads and hashes the pieces, a second one hashes the whole, and a third one writes, a large
file past the page cache, so that little is left to wait for at the end. Runs of zeros are not
written, so that a sparse file stays sparse. Whatever changed while it was read is refused: what
is stored is what stood there at one moment.
"""

from __future__ import annotations

import errno
import hashlib
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import PurePath

from blake3 import blake3

from gossipcache.env import LARGE_FILE_BYTES, Buffer, Disk, DiskFile, FileStamp, Lanes, inline_lane
from gossipcache.errors import NotPermitted, SourceChanged, UsageError
from gossipcache.transfer.digest_tree import DigestTree
from gossipcache.transfer.files.chunks import (
    CHUNK_BYTES,
    LARGE_CHUNK_BYTES,
    OnProgress,
    ignore_progress,
    write_sparse,
)
from gossipcache.transfer.store.index import LinkStamp
from gossipcache.transfer.store.staging import Staging

SEVERAL_LANES_BYTES = 16 * 2**20
"""From this size on a file is worth several threads."""
_MAX_LINKS = 40


@dataclass(frozen=True)
class Ingested:
    """Content that stands in a staging folder, with all that its manifest says of it."""

    size: int
    piece_size: int
    tree: DigestTree
    blake3: str | None
    """BLAKE3-256 of the whole in hex; None if SHA-256 was asked for, and of a tree."""
    sha256: str | None = None
    listing_size: int = 0
    listing_digest: str | None = None
    """Of a tree: the digest of its listing, in hex."""
    linked: LinkStamp | None = None

    @property
    def digest(self) -> str:
        """The digest of the whole as it stands in a manifest, scheme and all."""
        if self.listing_digest is not None:
            return f"tree:{self.listing_digest}"
        return f"sha256:{self.sha256}" if self.sha256 else f"blake3:{self.blake3}"


class PieceHasher:
    """Digests of the pieces of a stream of bytes."""

    def __init__(self, piece_size: int) -> None:
        self._piece_size = piece_size
        self._piece = blake3()
        self._piece_bytes = 0
        self._digests = bytearray()

    def update(self, data: memoryview) -> None:
        """Takes in the next bytes."""
        while data:
            part = data[: self._piece_size - self._piece_bytes]
            self._piece.update(part)
            self._piece_bytes += len(part)
            data = data[len(part) :]
            if self._piece_bytes == self._piece_size:
                self._end_piece()

    def digests(self) -> bytes:
        """The digests of all pieces, the last short one too; ends the stream."""
        if self._piece_bytes:
            self._end_piece()
        return bytes(self._digests)

    def _end_piece(self) -> None:
        self._digests += self._piece.digest()
        self._piece, self._piece_bytes = blake3(), 0


class StreamIngest:
    """Takes in content as it comes, of a length that need not be known.

    `feed` and `finish` run in workers, one at a time; `close` is due in any case.
    """

    def __init__(self, disk: Disk, staging: Staging, *, want_sha256: bool, piece_size: int) -> None:
        self._staging = staging
        self._file = disk.open(staging.data, "create")
        self._hashing = _Hashing(want_sha256, piece_size)

    def feed(self, data: Buffer) -> None:
        """The next bytes. Raises `NoSpace`."""
        view = memoryview(data).cast("B")
        self._staging.reserve(len(view))
        for at in range(0, len(view), CHUNK_BYTES):
            chunk = view[at : at + CHUNK_BYTES]
            self._file.write_at(self._hashing.size, chunk)
            self._hashing.update(chunk)

    def finish(self) -> Ingested:
        """All that is to be said of the whole."""
        self.close()
        return self._hashing.result()

    def close(self) -> None:
        """Releases the file; a second call does nothing."""
        self._file.close()


class _Hashing:
    def __init__(self, want_sha256: bool, piece_size: int) -> None:
        self._piece_size = piece_size
        self._pieces = PieceHasher(piece_size)
        self._sha256 = hashlib.sha256() if want_sha256 else None
        self._blake3 = None if want_sha256 else blake3()
        self.size = 0

    def update(self, data: memoryview) -> None:
        self.update_pieces(data)
        self.update_whole(data)

    def update_pieces(self, data: memoryview) -> None:
        self._pieces.update(data)
        self.size += len(data)

    def update_whole(self, data: memoryview) -> None:
        for state in (self._sha256, self._blake3):
            if state is not None:
                state.update(data)

    def result(self, linked: LinkStamp | None = None) -> Ingested:
        return Ingested(
            size=self.size,
            piece_size=self._piece_size,
            tree=DigestTree(self._pieces.digests()),
            blake3=self._blake3.hexdigest() if self._blake3 else None,
            sha256=self._sha256.hexdigest() if self._sha256 else None,
            linked=linked,
        )


def ingest_file(
    disk: Disk,
    staging: Staging,
    path: PurePath,
    *,
    piece_size: int,
    link: bool = False,
    want_sha256: bool = False,
    lanes: Lanes = inline_lane,
    progress: OnProgress = ignore_progress,
) -> Ingested:
    """Takes in the file at `path`, through symbolic links. With `link` the store gets a hard
    link to it instead of a copy.

    Raises `SourceChanged`, `NoSpace`, and `UsageError` if it is no readable regular file or
    cannot be linked. What `progress` raises ends the work.
    """
    path = followed(disk, path)
    before = regular_file(disk, path)
    if link:
        _link(disk, path, staging.data)
        before = regular_file(disk, path)
    else:
        staging.reserve(min(before.size, before.blocks_bytes))
    hashing = _Hashing(want_sha256, piece_size)
    if link or disk.clone(path, staging.data):
        with closing(open_source(disk, staging.data)) as file:
            _read(disk, file, None, before.size, hashing, lanes, progress)
    else:
        with (
            closing(open_source(disk, path)) as file,
            closing(disk.open(staging.data, "create")) as copy,
        ):
            copy.truncate(before.size)
            _read(disk, file, copy, before.size, hashing, lanes, progress)
            if file.size() != before.size:
                raise changed(path)
    if hashing.size != before.size or disk.stamp(path) != before:
        raise changed(path)
    return hashing.result(LinkStamp.of(before) if link else None)


def ingest_small(
    disk: Disk, path: PurePath, before: FileStamp, *, piece_size: int, want_sha256: bool
) -> tuple[bytes, Ingested]:
    """`ingest_file` for a file, with its stamp, that is read into memory in one go."""
    with closing(open_source(disk, path)) as file:
        data = file.read_at(0, before.size + 1)
    if len(data) != before.size or disk.stamp(path) != before:
        raise changed(path)
    if 0 < len(data) <= piece_size and not want_sha256:
        # The whole is one piece, and has its digest.
        digest = blake3(data).digest()
        return data, Ingested(len(data), piece_size, DigestTree(digest), digest.hex())
    hashing = _Hashing(want_sha256, piece_size)
    hashing.update(memoryview(data))
    return data, hashing.result()


def _read(
    disk: Disk,
    file: DiskFile,
    copy: DiskFile | None,
    size: int,
    hashing: _Hashing,
    lanes: Lanes,
    progress: OnProgress,
) -> None:
    if size < SEVERAL_LANES_BYTES:
        lanes = inline_lane
    chunk_bytes = min(LARGE_CHUNK_BYTES, max(size, 1))
    buffers = cycle((disk.buffer(chunk_bytes), disk.buffer(chunk_bytes)))
    write = None
    if copy is not None:
        write = copy.write_past_cache if size >= LARGE_FILE_BYTES else copy.write_at
    with lanes() as whole, lanes() as writing:
        while hashing.size < size:
            offset = hashing.size
            # The other one is still being hashed and written beside.
            wanted = next(buffers)[: min(chunk_bytes, size - offset)]
            chunk = wanted[: file.read_into(offset, wanted)]
            if not chunk:
                break
            whole.do(partial(hashing.update_whole, chunk))
            if write is not None:
                writing.do(partial(write_sparse, write, offset, chunk))
            hashing.update_pieces(chunk)
            progress(hashing.size)
        whole.finish()
        writing.finish()


def digest_tree_of(disk: Disk, path: PurePath, piece_size: int) -> DigestTree:
    """The digest tree of the file at `path`, cut into pieces of `piece_size` bytes."""
    hasher, offset = PieceHasher(piece_size), 0
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with closing(open_source(disk, path)) as file:
        while count := file.read_into(offset, buffer):
            hasher.update(buffer[:count])
            offset += count
    return DigestTree(hasher.digests())


def followed(disk: Disk, path: PurePath) -> PurePath:
    """The path that `path` leads to when its last part is a symbolic link."""
    return found_at(disk, path)[0]


def found_at(disk: Disk, path: PurePath) -> tuple[PurePath, FileStamp | None]:
    """The same, with the stamp of what is there."""
    for _ in range(_MAX_LINKS):
        stamp = disk.stamp(path)
        if stamp is None or stamp.kind != "link":
            return path, stamp
        path = path.parent / disk.read_symlink(path)
    raise UsageError(f"{path} is a symbolic link that leads nowhere")


def regular_file(disk: Disk, path: PurePath) -> FileStamp:
    """The stamp of a regular file. Raises `UsageError` if there is none."""
    stamp = disk.stamp(path)
    if stamp is None:
        raise UsageError(f"{path} does not exist", "check the path")
    if stamp.kind != "file":
        raise UsageError(f"{path} is no regular file", "give a file, a folder, or - for stdin")
    return stamp


def open_source(disk: Disk, path: PurePath) -> DiskFile:
    """The file, for reading. Raises `NotPermitted`."""
    try:
        return disk.open(path, "read")
    except PermissionError as error:
        raise NotPermitted(
            f"{path} cannot be read ({error.strerror})", "check its owner and mode"
        ) from error
    except FileNotFoundError as error:
        raise changed(path) from error


def changed(path: PurePath) -> SourceChanged:
    """The error for a source that was written to."""
    return SourceChanged(f"{path} changed while it was read")


def _link(disk: Disk, path: PurePath, new: PurePath) -> None:
    try:
        disk.link(path, new)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        raise UsageError(
            f"{path} cannot be hard-linked into the store: {error.strerror}",
            "import without --link",
        ) from error
