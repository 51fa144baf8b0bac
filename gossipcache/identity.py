"""Who a node is: its Ed25519 key, and statements signed by it.

A statement is signed and verified over its *exact bytes*, prefixed by a domain, and kept
opaque until the signature has been checked (RFC 8032; PyNaCl).

Manifests that are made together may be signed together, up to 16 at once: the root of a Merkle tree
over them is signed, and the signature of each is followed by the way from it to the root
(`_root`). So each still proves by itself who signed it, to anybody.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated

import nacl.exceptions
import nacl.signing
from msgspec import Meta

from gossipcache.errors import IntegrityError
from gossipcache.ids import NodeId, node_id_of
from gossipcache.wire import MAX_MESSAGE_BYTES, CompactRecord

SEED_BYTES = 32
SIGNATURE_BYTES = 64
BATCH_DOMAIN = b"gossipcache/batch/1"
MAX_BATCH_DEPTH = 4
MAX_BATCH = 2**MAX_BATCH_DEPTH
"""Statements under one signature: a sixteenth of its price is less than the rest of the work, and a
longer way would have to be kept with each."""
_HASH_BYTES = 32
_NOTHING = bytes(_HASH_BYTES)
"""In the place of a statement, to fill a tree."""
_LEAF = b"gossipcache/leaf"
_NODE = b"gossipcache/node"
_MAX_SIGNATURE_BYTES = SIGNATURE_BYTES + 1 + MAX_BATCH_DEPTH * _HASH_BYTES

PublicKey = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
MaybeShared = Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=_MAX_SIGNATURE_BYTES)]


class Signed(CompactRecord, frozen=True):
    """`payload` (CBOR, exact bytes) as signed by the holder of `key`. A signature that a manifest
    shares with others is followed by its place among them (one byte) and the hashes beside its
    way to the root."""

    payload: Annotated[bytes, Meta(max_length=MAX_MESSAGE_BYTES)]
    key: PublicKey
    signature: MaybeShared

    @property
    def signer(self) -> NodeId:
        """The id of the node that claims to have signed; true only after `verify`."""
        return node_id_of(self.key)


class Identity:
    """A node's private key."""

    def __init__(self, seed: bytes) -> None:
        """`seed`: 32 secret random bytes."""
        self._key = nacl.signing.SigningKey(seed)
        self.public_key = bytes(self._key.verify_key)
        self.node_id = node_id_of(self.public_key)

    def sign(self, domain: bytes, payload: bytes) -> Signed:
        """`payload` signed for `domain`; a signature for one domain is void in another."""
        signature = self._key.sign(_domained(domain, payload)).signature
        return Signed(payload, self.public_key, signature)

    def sign_all(self, domain: bytes, payloads: Sequence[bytes]) -> list[Signed]:
        """The same for many, by fewer signatures; each is verified alone, by `verify_shared`."""
        signed: list[Signed] = []
        for at in range(0, len(payloads), MAX_BATCH):
            signed += self._sign_together(domain, payloads[at : at + MAX_BATCH])
        return signed

    def _sign_together(self, domain: bytes, payloads: Sequence[bytes]) -> Iterator[Signed]:
        if len(payloads) == 1:
            yield self.sign(domain, payloads[0])
            return
        levels = _tree([_leaf(domain, payload) for payload in payloads])
        signature = self.sign(BATCH_DOMAIN, levels[-1][0]).signature
        for place, payload in enumerate(payloads):
            beside = [level[place >> up ^ 1] for up, level in enumerate(levels[:-1])]
            shared = b"".join((signature, bytes((place,)), *beside))
            yield Signed(payload, self.public_key, shared)


def verify(signed: Signed, domain: bytes) -> bytes:
    """The payload, if its own signature holds for `domain`. Raises `IntegrityError`."""
    _check(signed.key, _domained(domain, signed.payload), signed.signature)
    return signed.payload


def verify_shared(signed: Signed, domain: bytes) -> bytes:
    """The same where statements may have been signed together. Raises `IntegrityError`."""
    if len(signed.signature) == SIGNATURE_BYTES:
        return verify(signed, domain)
    signature, way = signed.signature[:SIGNATURE_BYTES], signed.signature[SIGNATURE_BYTES:]
    _check_root(signed.key, _root(_leaf(domain, signed.payload), way), signature)
    return signed.payload


def _check(key: bytes, message: bytes, signature: bytes) -> None:
    try:
        nacl.signing.VerifyKey(key).verify(message, signature)
    except (nacl.exceptions.CryptoError, ValueError) as error:
        raise IntegrityError("a signature does not match") from error


@lru_cache(maxsize=256)
def _check_root(key: bytes, root: bytes, signature: bytes) -> None:
    # Only what holds is remembered: an error is not.
    _check(key, _domained(BATCH_DOMAIN, root), signature)


def _root(leaf: bytes, way: bytes) -> bytes:
    """The root that `way` leads to from a leaf: its place among the leaves, then the hash beside
    it on each level. A bit of the place tells on which side the hash stands."""
    depth, rest = divmod(len(way) - 1, _HASH_BYTES)
    place = way[0]
    if rest or not 1 <= depth <= MAX_BATCH_DEPTH or place >> depth:
        raise IntegrityError("a shared signature of a wrong form")
    for up in range(depth):
        beside = way[1 + up * _HASH_BYTES : 1 + (up + 1) * _HASH_BYTES]
        leaf = _node(beside, leaf) if place >> up & 1 else _node(leaf, beside)
    return leaf


def _tree(leaves: list[bytes]) -> list[list[bytes]]:
    """All levels of the tree over `leaves`, two at least, filled up to a power of two."""
    leaves += [_NOTHING] * ((1 << (len(leaves) - 1).bit_length()) - len(leaves))
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([_node(below[at], below[at + 1]) for at in range(0, len(below), 2)])
    return levels


def _leaf(domain: bytes, payload: bytes) -> bytes:
    return blake2b(_domained(domain, payload), digest_size=_HASH_BYTES, person=_LEAF).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return blake2b(left + right, digest_size=_HASH_BYTES, person=_NODE).digest()


def _domained(domain: bytes, payload: bytes) -> bytes:
    return len(domain).to_bytes(2, "big") + domain + payload
