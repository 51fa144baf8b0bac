"""The listing of a folder: what stands at the head of a tree's content.

Content of a tree = listing (canonical CBOR) + the bytes of its files in the order listed.
Paths are the bytes of the file system, relative, joined by `/`. Entries are sorted by their
path components, so that one folder has one listing; the tree's digest is that of the listing,
which holds the digests of the files. Folders are listed only if they are empty.

A listing comes from a remote: everything that could make an unpacked tree reach outside its
folder, or two entries meet in one place, is refused here, for both sides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Annotated, Literal

from blake3 import blake3
from msgspec import Meta

from gossipcache.env import DiskFile
from gossipcache.errors import IntegrityError, ProtocolError
from gossipcache.manifest import Count, Digest, Manifest
from gossipcache.wire import CompactRecord, decode, encode, encode_plain

MAX_LISTING_BYTES = 64 * 2**20
"""Some 700,000 files."""
MAX_ENTRIES = 2**20
MAX_PATH_BYTES = 4095
MAX_NAME_BYTES = 255
_BATCH_ENTRIES = 1000
_UNSIGNED, _BYTES, _FALSE, _TRUE = 0, 2, 0xF4, 0xF5
_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}

Path = Annotated[bytes, Meta(min_length=1, max_length=MAX_PATH_BYTES)]


class FileEntry(CompactRecord, frozen=True, tag=0):
    """A regular file; `digest` is BLAKE3-256 of its bytes."""

    path: Path
    size: Count
    executable: bool
    digest: Digest


class FolderEntry(CompactRecord, frozen=True, tag=1):
    """An empty folder."""

    path: Path


class LinkEntry(CompactRecord, frozen=True, tag=2):
    """A symbolic link. `target` is relative and leads to a place inside the tree."""

    path: Path
    target: Path


TreeEntry = FileEntry | FolderEntry | LinkEntry


class Listing(CompactRecord, frozen=True, dict=True):
    """All entries of a tree."""

    version: Literal[1]
    entries: tuple[TreeEntry, ...]

    def files(self) -> Iterator[FileEntry]:
        """The files, in the order of their bytes in the content."""
        return (entry for entry in self.entries if isinstance(entry, FileEntry))

    @cached_property
    def content_size(self) -> int:
        """Length of all files together, in bytes."""
        return sum(entry.size for entry in self.files())


def listing_of(entries: Iterable[TreeEntry]) -> Listing:
    """The one listing with `entries`. Raises `ProtocolError` if they cannot be a tree."""
    listing = Listing(1, tuple(sorted(entries, key=_order)))
    _check(listing)
    return listing


def encode_listing(listing: Listing) -> bytes:
    """The listing's exact bytes. Raises `ProtocolError` if it is too long."""
    encoded = encode(listing)
    if len(encoded) > MAX_LISTING_BYTES:
        raise ProtocolError(f"a listing of {len(encoded)} bytes, the limit is {MAX_LISTING_BYTES}")
    return encoded


def decode_listing(data: bytes) -> Listing:
    """The listing in `data`. Raises `ProtocolError` for one that is not canonical or not safe.

    Bytes of the same length can take a hundred times their size once they are decoded, so they
    are decoded in batches, whose entries are counted and measured before.
    """
    if len(data) > MAX_LISTING_BYTES:
        raise ProtocolError(f"a listing of {len(data)} bytes, the limit is {MAX_LISTING_BYTES}")
    entries: list[TreeEntry] = []
    at = 0
    try:
        count, at = _listing_head(data)
        while len(entries) < count:
            batch, start = min(_BATCH_ENTRIES, count - len(entries)), at
            for _ in range(batch):
                at = _entry_end(data, at)
            # An array of the batch alone: two bytes always suffice for its length.
            part = encode_plain([0] * batch)[:-batch] + data[start:at]
            entries += decode(part, list[TreeEntry], MAX_LISTING_BYTES)
    except IndexError:
        at = -1
    if at != len(data):
        raise ProtocolError("a listing that ends too early or too late")
    listing = Listing(1, tuple(entries))
    _check(listing)
    return listing


def _listing_head(data: bytes) -> tuple[int, int]:
    """How many entries there are, and where the first begins. Raises `IndexError`."""
    count, at = _number(data, 2)
    if data[:2] != b"\x82\x01" or data[2] >> 5 != 4 or count > MAX_ENTRIES:
        raise ProtocolError("not a listing, or one with too many entries")
    return count, at


def _entry_end(data: bytes, at: int) -> int:
    """Where the entry at `at` ends. Raises `ProtocolError` if it has parts that no entry has,
    and `IndexError`."""
    head, at = data[at], at + 1
    if not 0x82 <= head <= 0x85:
        raise ProtocolError("a listing with something that is no entry")
    for _ in range(head - 0x80):
        kind = data[at] >> 5
        if kind in (_UNSIGNED, _BYTES):
            number, at = _number(data, at)
            at += number if kind == _BYTES else 0
        elif data[at] in (_FALSE, _TRUE):
            at += 1
        else:
            raise ProtocolError("an entry of a listing with a part of another kind")
    return at


def _number(data: bytes, at: int) -> tuple[int, int]:
    """The number in the head (RFC 8949, section 3) at `at`, and where the head ends. Raises
    `ProtocolError`, `IndexError`."""
    info = data[at] & 0x1F
    if info < 24:
        return info, at + 1
    if info not in _WIDTHS or at + 1 + _WIDTHS[info] > len(data):
        raise IndexError
    end = at + 1 + _WIDTHS[info]
    number = int.from_bytes(data[at + 1 : end], "big")
    if number < (24 if info == 24 else 1 << 4 * _WIDTHS[info]):
        raise ProtocolError("a number in a listing that is not in its shortest form")
    return number, end


def listing_digest(data: bytes) -> str:
    """The hex digits of a tree's digest: BLAKE3-256 of its listing."""
    return blake3(data).hexdigest()


def read_listing(file: DiskFile, manifest: Manifest) -> Listing:
    """The listing at the head of a tree's content. Raises `IntegrityError`."""
    if manifest.listing_size > MAX_LISTING_BYTES:
        raise IntegrityError(f"a listing of {manifest.listing_size} bytes is too long")
    return checked_listing(file.read_at(0, manifest.listing_size), manifest)


def checked_listing(raw: bytes, manifest: Manifest) -> Listing:
    """The listing in `raw`, if it is the one of the manifest. Raises `IntegrityError`."""
    if f"tree:{listing_digest(raw)}" != manifest.digest:
        raise IntegrityError("a tree's listing is not the one its digest names")
    try:
        listing = decode_listing(raw)
    except ProtocolError as error:
        raise IntegrityError(f"a tree's listing is not valid: {error}") from error
    if manifest.listing_size + listing.content_size != manifest.size:
        raise IntegrityError("a tree's listing does not fit its size")
    return listing


def _order(entry: TreeEntry) -> list[bytes]:
    return entry.path.split(b"/")


def _check(listing: Listing) -> None:
    if len(listing.entries) > MAX_ENTRIES:
        raise ProtocolError(f"a tree of more than {MAX_ENTRIES} entries")
    before: list[bytes] = []
    for entry in listing.entries:
        parts = _order(entry)
        for part in parts:
            _check_name(part, entry.path)
        if before and parts <= before:
            raise ProtocolError(f"a listing out of order, or with {entry.path!r} twice")
        # Sorted by components, what lies below an entry comes right after it.
        if before and parts[: len(before)] == before:
            raise ProtocolError(f"{entry.path!r} lies below an entry that is no folder")
        if isinstance(entry, LinkEntry):
            _check_link(entry, depth=len(parts) - 1)
        before = parts


def _check_name(name: bytes, path: bytes) -> None:
    if name in (b"", b".", b"..") or b"\0" in name or len(name) > MAX_NAME_BYTES:
        raise ProtocolError(f"{path!r} is not a plain relative path")


def _check_link(entry: LinkEntry, depth: int) -> None:
    """`..` may stand at the head of a target only: behind a name, which may be a link itself,
    it could lead anywhere. So every target lies inside, through whatever links it goes."""
    if entry.target.startswith(b"/") or b"\0" in entry.target:
        raise ProtocolError(f"the link {entry.path!r} does not lead to a place inside the tree")
    ups, below = 0, False
    for part in entry.target.split(b"/"):
        if part in (b"", b"."):
            continue
        if part != b"..":
            below = True
        elif below or ups == depth:
            raise ProtocolError(f"the link {entry.path!r} does not lead to a place inside the tree")
        else:
            ups += 1
