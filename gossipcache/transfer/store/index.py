"""What the store knows of each task, and how it stands in the journal.

An `Entry` is one journal value, in MessagePack: it is read back by this machine only, 100,000
of them in a fraction of a second. The signed manifest stays opaque bytes until it is needed.
A `SealedManifest` stands beside the data of each task, so that a damaged index can be rebuilt.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import msgspec

from gossipcache.env import FileStamp
from gossipcache.identity import Signed
from gossipcache.ids import TaskId
from gossipcache.manifest import Manifest, SignedManifest, manifest_name
from gossipcache.transfer.digest_tree import DigestTree
from gossipcache.transfer.pieces import PieceSet
from gossipcache.wire import decode


class SealedManifest(msgspec.Struct, frozen=True, kw_only=True):
    """The file `manifest` in a task's folder: the signed header and all piece digests."""

    payload: bytes
    key: bytes
    signature: bytes
    digests: bytes


class LinkStamp(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a hard-linked file looked like when it was last verified."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, stamp: FileStamp) -> LinkStamp:
        """The part of `stamp` that must not change."""
        return cls(stamp.inode, stamp.size, stamp.mtime_ns, stamp.ctime_ns)


class Place(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a task stands in a pack: the pack's number, and which of its bytes."""

    pack: int
    start: int
    length: int


class Entry(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """One task as the journal has it. Sizes in bytes, times in seconds since 1970.

    It is written as an array: new fields come last, with a default.
    """

    payload: bytes
    key: bytes
    signature: bytes
    generation: int
    size: int
    piece_count: int
    have: bytes | None
    """The pieces that are durable, as a bitmap; None when all are."""
    finished: bool = False
    """All pieces are there, and the whole was accepted."""
    digest_checked: bool = False
    """The digest of the whole was computed and is the manifest's."""
    suspect: bool = False
    """The bytes may have changed: nothing of them counts until they are verified again."""
    published: bool = True
    pinned: bool = False
    expires_at: float | None = None
    last_use: float
    verified_at: float
    disk_bytes: int
    """What it takes of the disk; 0 when the bytes are the user's own file."""
    linked: LinkStamp | None = None
    copies: int | None = None
    """How many nodes should hold the task; None: the manifest says so (an older entry)."""
    replica: bool = False
    """It came because another node asked for a copy, and may go where there are too many."""
    written: bool = False
    """All pieces were verified and written, and the whole was accepted, but not all of that is
    durable. `finished` takes its place when it is, or the next start looks what there is."""
    packed: bool = False
    """Content and manifest stand one behind the other, instead of in a folder."""
    place: Place | None = None
    """Of a packed task: where; None if it has a file of its own (as in format 2)."""


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A snapshot of one task in the store."""

    task_id: TaskId
    entry: Entry

    @property
    def signed(self) -> SignedManifest:
        """Its manifest. The signature was checked before it was stored."""
        return _opened(self.entry.payload, self.entry.key, self.entry.signature)

    @property
    def manifest_name(self) -> bytes:
        """`signed.name`, without decoding the manifest."""
        return manifest_name(Signed(self.entry.payload, self.entry.key, self.entry.signature))

    @property
    def have(self) -> PieceSet:
        """The pieces that are there, verified."""
        return _all_of(self.entry.piece_count) if self.entry.written else self.durable

    @property
    def complete(self) -> bool:
        """Whether every piece is there and the whole was accepted."""
        return self.entry.finished or self.entry.written

    @property
    def durable(self) -> PieceSet:
        """The pieces that would survive a power loss."""
        entry = self.entry
        if entry.have is None:
            return _all_of(entry.piece_count)
        return PieceSet(entry.have, entry.piece_count)

    @property
    def settled(self) -> bool:
        """Whether all that is there is durable."""
        return not self.entry.written

    @property
    def suspect(self) -> bool:
        """Whether its bytes have to be verified again before any of them counts."""
        return self.entry.suspect

    @property
    def size(self) -> int:
        """Length of the content in bytes."""
        return self.entry.size

    @property
    def generation(self) -> int:
        """The manifest's generation."""
        return self.entry.generation

    @property
    def pinned(self) -> bool:
        """Whether it is never evicted."""
        return self.entry.pinned

    @property
    def copies(self) -> int:
        """How many nodes should hold it."""
        return self.entry.copies or self.signed.manifest.copies

    @property
    def replica(self) -> bool:
        """Whether it is here only because another node asked for a copy."""
        return self.entry.replica

    @property
    def published(self) -> bool:
        """Whether its record stands in the cluster."""
        return self.entry.published

    @property
    def last_use(self) -> float:
        """When it was last used, in seconds since 1970."""
        return self.entry.last_use

    @property
    def expires_at(self) -> float | None:
        """When its own time to live ends, in seconds since 1970."""
        return self.entry.expires_at

    @property
    def linked(self) -> LinkStamp | None:
        """Set if its bytes are shared with a file of the user by a hard link."""
        return self.entry.linked

    @property
    def packed(self) -> bool:
        """Whether content and manifest stand one behind the other, instead of in a folder."""
        return self.entry.packed

    @property
    def place(self) -> Place | None:
        """Where it stands in a pack, if it does."""
        return self.entry.place

    @property
    def start(self) -> int:
        """Where its content begins in the file that holds it."""
        return 0 if self.entry.place is None else self.entry.place.start

    @property
    def disk_bytes(self) -> int:
        """What it takes of the quota."""
        return self.entry.disk_bytes


def entry_of(signed: Signed, manifest: Manifest, now: float) -> Entry:
    """The entry of a task that has come at `now`, nothing being said of its content yet."""
    return Entry(
        payload=signed.payload,
        key=signed.key,
        signature=signed.signature,
        generation=manifest.generation,
        size=manifest.size,
        piece_count=manifest.piece_count,
        have=None,
        expires_at=manifest.expires_at,
        last_use=now,
        verified_at=now,
        disk_bytes=0,
        copies=manifest.copies,
    )


def sealed_of(signed: SignedManifest, tree: DigestTree) -> SealedManifest:
    """What stands beside the content of a task."""
    return SealedManifest(
        payload=signed.signed.payload,
        key=signed.signed.key,
        signature=signed.signed.signature,
        digests=tree.digests,
    )


# Decoded where they are needed, and kept for those that are needed again and again: a manifest
# takes several times the room of its entry.


@lru_cache(maxsize=1024)
def _opened(payload: bytes, key: bytes, signature: bytes) -> SignedManifest:
    return SignedManifest(Signed(payload, key, signature), decode(payload, Manifest))


@lru_cache(maxsize=1024)
def _all_of(piece_count: int) -> PieceSet:
    return PieceSet.full(piece_count)
