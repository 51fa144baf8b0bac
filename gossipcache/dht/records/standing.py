"""What stands about a task: a value with a total, commutative merge (a join semilattice).

Two keepers that merge the same entries, in any order and however often, hold the same value
(state-based CRDT: Shapiro et al., 2011). The higher generation wins; within a generation a
tombstone beats manifests. Two manifests of one generation can only come of a partition: both
are kept, so that readers see the fork and do not follow one side by chance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from gossipcache.errors import IntegrityError, ProtocolError
from gossipcache.identity import Signed
from gossipcache.ids import TaskId
from gossipcache.manifest import (
    MAX_MANIFEST_BYTES,
    MAX_TOMBSTONE_BYTES,
    Manifest,
    SignedManifest,
    SignedTombstone,
    Tombstone,
    open_manifest,
    open_tombstone,
    verified_manifest,
)
from gossipcache.messages.records import MAX_FORK, VERSION_BYTES, RecordEntry
from gossipcache.wire import decode

MAX_CHECKED = 1024
"""How many checked manifests are remembered, of 4 KiB at most each."""
MAX_VERIFIED = 32 * 1024
"""Of how many it is remembered, by a digest, that the signature holds."""


@dataclass(frozen=True)
class Standing:
    """The last known generation of a task: its manifests (one, or a fork), or its tombstone."""

    task_id: TaskId
    generation: int
    manifests: tuple[SignedManifest, ...]
    """By digest of the content, each digest once; empty if deleted."""
    tombstone: SignedTombstone | None = None

    @cached_property
    def version(self) -> bytes:
        """A digest (16 bytes) that two equal values share."""
        state = hashlib.blake2b(digest_size=VERSION_BYTES)
        for signed in (*(one.signed for one in self.manifests), *self._tombstone_parts()):
            for part in (signed.payload, signed.key, signed.signature):
                state.update(len(part).to_bytes(4, "big") + part)
        return state.digest()

    def _tombstone_parts(self) -> tuple[Signed, ...]:
        if self.tombstone is None:
            return ()
        return (self.tombstone.signed, self.tombstone.manifest.signed)

    @property
    def manifest(self) -> SignedManifest | None:
        """The manifest, if there is one and no fork."""
        return self.manifests[0] if len(self.manifests) == 1 else None

    def is_live(self, wall_s: float) -> bool:
        """Whether the task exists at `wall_s`: not deleted and not expired."""
        return bool(self.unexpired(wall_s))

    def unexpired(self, wall_s: float) -> tuple[SignedManifest, ...]:
        """The manifests whose time has not run out at `wall_s`."""
        return tuple(
            one
            for one in self.manifests
            if one.manifest.expires_at is None or wall_s < one.manifest.expires_at
        )

    @property
    def entry(self) -> RecordEntry:
        """Its form on the wire and in the journal."""
        if self.tombstone is not None:
            return RecordEntry(
                manifests=(self.tombstone.manifest.signed,), tombstone=self.tombstone.signed
            )
        return RecordEntry(manifests=tuple(one.signed for one in self.manifests))


def standing_manifest(signed: SignedManifest) -> Standing:
    """The value that a single manifest makes."""
    return Standing(signed.task_id, signed.manifest.generation, (signed,))


def standing_tombstone(signed: SignedTombstone) -> Standing:
    """The value that a tombstone makes."""
    return Standing(signed.task_id, signed.tombstone.generation, (), signed)


def merge(one: Standing, other: Standing) -> Standing:
    """The join of two values of one task."""
    if one == other:
        return one
    if one.generation != other.generation:
        return max(one, other, key=lambda standing: standing.generation)
    buried = [standing for standing in (one, other) if standing.tombstone is not None]
    if buried:
        return min(buried, key=lambda standing: standing.version)
    manifests = _distinct((*one.manifests, *other.manifests))
    return Standing(one.task_id, one.generation, manifests)


def _distinct(manifests: Iterable[SignedManifest]) -> tuple[SignedManifest, ...]:
    """One manifest a content, the least by name; the least contents if there are too many."""
    manifests = tuple(manifests)
    if len(manifests) == 1:
        return manifests
    by_digest: dict[str, SignedManifest] = {}
    for manifest in sorted(manifests, key=lambda one: (one.name, one.signed.signature)):
        by_digest.setdefault(manifest.manifest.digest, manifest)
    return tuple(by_digest[digest] for digest in sorted(by_digest)[:MAX_FORK])


class Opener:
    """Checks what comes from other nodes.

    The manifests checked last are remembered by their exact bytes: the keepers of a task all
    send the same one, and a write brings it twice. Of many more it is remembered that their
    signatures hold.
    """

    def __init__(self, cluster_id: bytes) -> None:
        self._cluster_id = cluster_id
        self._checked: dict[Signed, SignedManifest] = {}
        self._verified: dict[bytes, None] = {}

    def open(self, entry: RecordEntry, task_id: TaskId | None = None) -> Standing:
        """The value in `entry`, every signature checked, and that it is of `task_id`. Not to be
        called from workers.

        Raises `IntegrityError`, `ProtocolError`.
        """
        return self._open(entry, task_id, self._manifest)

    def _manifest(self, signed: Signed) -> SignedManifest:
        checked = self._checked.get(signed)
        if checked is None:
            checked = self._anew(signed)
            self.remember(checked)
        return checked

    def remember(self, checked: SignedManifest) -> None:
        """Takes a manifest that was checked, or signed by this node itself."""
        if len(self._checked) >= MAX_CHECKED:
            del self._checked[next(iter(self._checked))]
        self._checked[checked.signed] = checked
        if len(self._verified) >= MAX_VERIFIED:
            del self._verified[next(iter(self._verified))]
        self._verified[_digest(checked.signed)] = None

    def lacking(self, entries: Iterable[RecordEntry]) -> list[Signed]:
        """The manifests in the entries that are not remembered."""
        return [one for each in entries for one in each.manifests if one not in self._checked]

    def check_all(self, manifests: Iterable[Signed]) -> list[SignedManifest]:
        """Those that are valid; for workers too."""
        checked = []
        for signed in manifests:
            with suppress(IntegrityError, ProtocolError):
                checked.append(self._anew(signed))
        return checked

    def _open(
        self,
        entry: RecordEntry,
        task_id: TaskId | None,
        open_one: Callable[[Signed], SignedManifest],
    ) -> Standing:
        if entry.tombstone is None:
            standing = _joined([open_one(one) for one in entry.manifests])
        elif len(entry.manifests) == 1:
            standing = standing_tombstone(
                open_tombstone(entry.tombstone, entry.manifests[0], self._cluster_id)
            )
        else:
            raise IntegrityError("a tombstone that comes with several manifests")
        if task_id is not None and standing.task_id != task_id:
            raise IntegrityError("an entry of another task than was asked for")
        return standing

    def open_all(self, entries: Iterable[RecordEntry]) -> list[Standing]:
        """The values in the entries that are valid; for workers too."""
        opened = []
        for entry in entries:
            try:
                opened.append(self._open(entry, None, self._anew))
            except (IntegrityError, ProtocolError):
                continue
        return opened

    def _anew(self, signed: Signed) -> SignedManifest:
        if _digest(signed) in self._verified:
            return verified_manifest(signed, self._cluster_id)
        return open_manifest(signed, self._cluster_id)


def _digest(signed: Signed) -> bytes:
    """Of the exact bytes, key and signature too, each where nothing else can stand."""
    length = len(signed.signature).to_bytes(2, "big")
    state = hashlib.blake2b(length + signed.signature + signed.key, digest_size=16)
    state.update(signed.payload)
    return state.digest()


def trusted_entry(entry: RecordEntry) -> Standing:
    """The value in an entry that was checked before it was stored. Raises `ProtocolError`."""
    manifests = [
        SignedManifest(signed, decode(signed.payload, Manifest, MAX_MANIFEST_BYTES))
        for signed in entry.manifests
    ]
    if entry.tombstone is not None:
        tombstone = decode(entry.tombstone.payload, Tombstone, MAX_TOMBSTONE_BYTES)
        return standing_tombstone(SignedTombstone(entry.tombstone, manifests[0], tombstone))
    return _joined(manifests)


def _joined(manifests: list[SignedManifest]) -> Standing:
    first = manifests[0]
    if len(manifests) > 1 and any(
        one.task_id != first.task_id or one.manifest.generation != first.manifest.generation
        for one in manifests
    ):
        raise IntegrityError("an entry whose manifests are not of one task and generation")
    return Standing(first.task_id, first.manifest.generation, _distinct(manifests))
