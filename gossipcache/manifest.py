"""Manifest and tombstone: the two signed statements that make up a task's record.

A manifest is signed by the publisher, a tombstone by whoever deletes. Both are kept and sent
as `Signed` and verified over their exact bytes before they are decoded. A manifest is the
*header* only (at most 4 KiB): `root` commits to the digests of all pieces
(`transfer.digest_tree`), which holders serve by pages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

from msgspec import Meta

from gossipcache.errors import IntegrityError, ProtocolError
from gossipcache.identity import Identity, Signed, verify, verify_shared
from gossipcache.ids import (
    MAX_CID_BYTES,
    MAX_TAG_BYTES,
    NODE_ID_BYTES,
    TASK_ID_BYTES,
    NodeId,
    TaskId,
    task_id_of,
)
from gossipcache.wire import Record, decode, encode

MANIFEST_DOMAIN = b"gossipcache/manifest/1"
TOMBSTONE_DOMAIN = b"gossipcache/tombstone/1"
MAX_MANIFEST_BYTES = 4 * 1024
MAX_TOMBSTONE_BYTES = 8 * 1024

TaskIdBytes = Annotated[bytes, Meta(min_length=TASK_ID_BYTES, max_length=TASK_ID_BYTES)]
NodeIdBytes = Annotated[bytes, Meta(min_length=NODE_ID_BYTES, max_length=NODE_ID_BYTES)]
ClusterIdBytes = Annotated[bytes, Meta(min_length=8, max_length=8)]
Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Generation = Annotated[int, Meta(ge=1, le=2**63 - 1)]


class Manifest(Record, frozen=True, kw_only=True):
    """What a task's content is. Sizes in bytes, times in seconds since 1970."""

    version: Literal[1] = 1
    cluster_id: ClusterIdBytes
    task_id: TaskIdBytes
    cid: Annotated[str, Meta(min_length=1, max_length=MAX_CID_BYTES)]
    tag: Annotated[str, Meta(max_length=MAX_TAG_BYTES)]
    generation: Generation
    kind: Literal["file", "tree"]
    size: Count
    """Length of the content; of a tree: of its listing followed by all its files."""
    listing_size: Count
    """Length of a tree's listing at the head of the content; 0 for a file."""
    piece_size: Annotated[int, Meta(ge=1, le=16 * 2**20)]
    root: Digest
    """Root of the digest tree over the pieces."""
    digest: Annotated[str, Meta(pattern="^(sha256|blake3|tree):[0-9a-f]{64}$")]
    """Digest of the whole: `sha256:` if the cid is one, `tree:` of a tree, else `blake3:`."""
    created_at: Count
    expires_at: Count | None = None
    copies: Annotated[int, Meta(ge=1, le=1000)] = 1
    """How many nodes should hold all of it."""

    @property
    def piece_count(self) -> int:
        """Number of pieces; an empty file has none."""
        return -(-self.size // self.piece_size)

    def piece_length(self, index: int) -> int:
        """Length of piece `index`; only the last may be shorter than `piece_size`."""
        return min(self.piece_size, self.size - index * self.piece_size)

    @property
    def is_content_addressed(self) -> bool:
        """Whether the cid itself proves the bytes."""
        return self.cid == self.digest


@dataclass(frozen=True)
class SignedManifest:
    """A manifest whose signature, cluster and task id have been checked."""

    signed: Signed
    manifest: Manifest

    @property
    def publisher(self) -> NodeId:
        """The id of the node that signed it."""
        return self.signed.signer

    @cached_property
    def name(self) -> bytes:
        """BLAKE2b-256 of the exact header: tells this manifest from every other (32 bytes)."""
        return manifest_name(self.signed)

    @property
    def task_id(self) -> TaskId:
        """The task it describes."""
        return TaskId(self.manifest.task_id)


class Tombstone(Record, frozen=True, kw_only=True):
    """The deletion of one generation of a task."""

    version: Literal[1] = 1
    cluster_id: ClusterIdBytes
    task_id: TaskIdBytes
    generation: Generation
    """The generation it kills, with all before it."""
    manifest_name: Digest
    policy_number: Count
    """Number of the charter that the signer knew; 0: none."""
    deleted_at: Count


@dataclass(frozen=True)
class SignedTombstone:
    """A tombstone whose signature, cluster and embedded manifest have been checked."""

    signed: Signed
    manifest: SignedManifest
    tombstone: Tombstone

    @property
    def signer(self) -> NodeId:
        """The id of the node that deleted the task."""
        return self.signed.signer

    @property
    def task_id(self) -> TaskId:
        """The task it deletes."""
        return TaskId(self.tombstone.task_id)


def manifest_name(signed: Signed) -> bytes:
    """BLAKE2b-256 over the header's exact bytes and the publisher's key."""
    return hashlib.blake2b(signed.payload + signed.key, digest_size=32).digest()


def sign_manifest(manifest: Manifest, identity: Identity) -> SignedManifest:
    """`manifest` signed by its publisher."""
    return SignedManifest(identity.sign(MANIFEST_DOMAIN, encode(manifest)), manifest)


def sign_manifests(manifests: Sequence[Manifest], identity: Identity) -> list[SignedManifest]:
    """The same for many, by fewer signatures."""
    signed = identity.sign_all(MANIFEST_DOMAIN, [encode(manifest) for manifest in manifests])
    return [SignedManifest(*both) for both in zip(signed, manifests, strict=True)]


def open_manifest(signed: Signed, cluster_id: bytes) -> SignedManifest:
    """The manifest in `signed`, checked. Raises `IntegrityError` or `ProtocolError`."""
    verify_shared(signed, MANIFEST_DOMAIN)
    return verified_manifest(signed, cluster_id)


def verified_manifest(signed: Signed, cluster_id: bytes) -> SignedManifest:
    """The same where it is known that the signature of these very bytes holds."""
    manifest = decode(signed.payload, Manifest, MAX_MANIFEST_BYTES)
    if manifest.cluster_id != cluster_id:
        raise IntegrityError("a manifest of another cluster")
    if manifest.task_id != task_id_of(manifest.cid, manifest.tag):
        raise IntegrityError("a manifest whose task id is not that of its cid and tag")
    _check_shape(manifest)
    return SignedManifest(signed, manifest)


def _check_shape(manifest: Manifest) -> None:
    if (manifest.kind == "tree") != manifest.digest.startswith("tree:"):
        raise ProtocolError("a manifest whose digest is not of its kind")
    if manifest.listing_size > manifest.size or (manifest.kind == "file" and manifest.listing_size):
        raise ProtocolError("a manifest whose listing does not fit its content")
    scheme = manifest.cid.partition(":")[0]
    if is_digest_cid(manifest.cid) and manifest.cid != manifest.digest:
        raise IntegrityError(f"a manifest whose {scheme} cid is not the digest of its content")


def is_digest_cid(cid: str) -> bool:
    """Whether `cid` is `sha256:` or `tree:` with 64 hex digits, so that it names its content."""
    scheme, _, digits = cid.partition(":")
    return (
        scheme in ("sha256", "tree")
        and len(digits) == 64
        and all(digit in "0123456789abcdef" for digit in digits)
    )


def sign_tombstone(
    dead: SignedManifest, identity: Identity, *, policy_number: int, deleted_at: int
) -> SignedTombstone:
    """The deletion of `dead`."""
    tombstone = Tombstone(
        cluster_id=dead.manifest.cluster_id,
        task_id=dead.manifest.task_id,
        generation=dead.manifest.generation,
        manifest_name=dead.name,
        policy_number=policy_number,
        deleted_at=deleted_at,
    )
    signed = identity.sign(TOMBSTONE_DOMAIN, encode(tombstone))
    return SignedTombstone(signed, dead, tombstone)


def open_tombstone(signed: Signed, dead: Signed, cluster_id: bytes) -> SignedTombstone:
    """The tombstone in `signed`, checked against the manifest `dead` that it embeds.

    Raises `IntegrityError` or `ProtocolError`.
    """
    manifest = open_manifest(dead, cluster_id)
    tombstone = decode(verify(signed, TOMBSTONE_DOMAIN), Tombstone, MAX_TOMBSTONE_BYTES)
    if (
        tombstone.cluster_id != cluster_id
        or tombstone.task_id != manifest.manifest.task_id
        or tombstone.generation != manifest.manifest.generation
        or tombstone.manifest_name != manifest.name
    ):
        raise IntegrityError("a tombstone that does not fit the manifest it names")
    return SignedTombstone(signed, manifest, tombstone)
