"""Who a node is: its Ed25519 key, and statements signed by it.

A statement is signed and verified over its *exact bytes*, prefixed by a domain, and kept
opaque until the signature has been checked (RFC 8032; PyNaCl).
"""

from __future__ import annotations

from typing import Annotated

import nacl.exceptions
import nacl.signing
from msgspec import Meta

from gossipcache.errors import IntegrityError
from gossipcache.ids import NodeId, node_id_of
from gossipcache.wire import MAX_MESSAGE_BYTES, CompactRecord

SEED_BYTES = 32

PublicKey = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]


class Signed(CompactRecord, frozen=True):
    """`payload` (CBOR, exact bytes) as signed by the holder of `key`."""

    payload: Annotated[bytes, Meta(max_length=MAX_MESSAGE_BYTES)]
    key: PublicKey
    signature: Signature

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


def verify(signed: Signed, domain: bytes) -> bytes:
    """The payload, if its signature holds for `domain`. Raises `IntegrityError`."""
    try:
        nacl.signing.VerifyKey(signed.key).verify(
            _domained(domain, signed.payload), signed.signature
        )
    except (nacl.exceptions.CryptoError, ValueError) as error:
        raise IntegrityError("a signature does not match") from error
    return signed.payload


def _domained(domain: bytes, payload: bytes) -> bytes:
    return len(domain).to_bytes(2, "big") + domain + payload
