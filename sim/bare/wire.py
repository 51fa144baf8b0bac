"""How messages travel between bare nodes: as their real bytes, or as themselves.

The stand-ins save the time of encoding, sealing and signing. Each is as long as the real thing,
and what it carries is the same; `tests/sim/bare` holds them to it.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any, Protocol

import msgspec

from gossipcache.cluster import SEAL_OVERHEAD_BYTES, Cluster
from gossipcache.dht.membership.member import Verifier
from gossipcache.errors import IntegrityError
from gossipcache.identity import Identity, Signed, verify
from gossipcache.ids import node_id_of
from gossipcache.messages.gossip import Datagram
from gossipcache.wire import decode, encode
from sim.bare.length import length_of

_DATAGRAM: Any = Datagram


class Wire(Protocol):
    """What stands between cores and the network."""

    def seal(self, message: Datagram, rng: random.Random) -> tuple[Any, int]:
        """A datagram as it travels, and its length in bytes."""

    def open(self, sealed: Any) -> Datagram:
        """The message in a datagram. Raises `IntegrityError` or `ProtocolError`."""

    def length(self, message: msgspec.Struct) -> int:
        """The length of a message of a link, without its envelope."""

    def identity(self, seed: bytes) -> Identity:
        """A node's key."""

    def verifier(self, cluster_id: bytes, remembered: int) -> Verifier:
        """Checks what such keys signed."""

    def check(self, signed: Signed, domain: bytes) -> bytes:
        """What they signed for a domain. Raises `IntegrityError`."""


class RealWire:
    """Encodes, seals and signs as whole nodes do."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def seal(self, message: Datagram, rng: random.Random) -> tuple[bytes, int]:
        """The exact bytes."""
        data = self._cluster.seal(encode(message), rng.randbytes)
        return data, len(data)

    def open(self, sealed: bytes) -> Datagram:
        """Opens and decodes."""
        message: Datagram = decode(self._cluster.open(sealed), _DATAGRAM)
        return message

    def length(self, message: msgspec.Struct) -> int:
        """Of the encoded message."""
        return len(encode(message))

    def identity(self, seed: bytes) -> Identity:
        """Ed25519."""
        return Identity(seed)

    def verifier(self, cluster_id: bytes, remembered: int) -> Verifier:
        """Ed25519."""
        return Verifier(cluster_id, remembered)

    def check(self, signed: Signed, domain: bytes) -> bytes:
        """Ed25519."""
        return verify(signed, domain)


class StandInWire:
    """Hands messages over as they are; keyed hashes stand for signatures."""

    def seal(self, message: Datagram, rng: random.Random) -> tuple[Datagram, int]:
        """The message, with the length that it would have."""
        return message, length_of(message) + SEAL_OVERHEAD_BYTES

    def open(self, sealed: Datagram) -> Datagram:
        """The message."""
        return sealed

    def length(self, message: msgspec.Struct) -> int:
        """By the rule of its class."""
        return length_of(message)

    def identity(self, seed: bytes) -> Identity:
        """See `StandInIdentity`."""
        return StandInIdentity(seed)

    def verifier(self, cluster_id: bytes, remembered: int) -> Verifier:
        """See `StandInVerifier`."""
        return StandInVerifier(cluster_id, remembered)

    def check(self, signed: Signed, domain: bytes) -> bytes:
        """Computes one signature."""
        _check(signed, domain)
        return signed.payload


class StandInIdentity(Identity):
    """A key whose signature is a hash keyed by its public half: as long as Ed25519's, and void
    for any other statement, domain or key. Whoever wants to can forge it; no bare node does."""

    def __init__(self, seed: bytes) -> None:
        self.public_key = hashlib.blake2b(seed, digest_size=32, person=b"public").digest()
        self.node_id = node_id_of(self.public_key)

    def sign(self, domain: bytes, payload: bytes) -> Signed:
        """`payload` signed for `domain`."""
        return Signed(payload, self.public_key, _signature(self.public_key, domain, payload))


class StandInVerifier(Verifier):
    """Checks what a `StandInIdentity` signed."""

    def verify(self, signed: Signed, domain: bytes) -> None:
        """Computes one signature. Raises `IntegrityError` unless it holds."""
        _check(signed, domain)


def _check(signed: Signed, domain: bytes) -> None:
    if signed.signature != _signature(signed.key, domain, signed.payload):
        raise IntegrityError("a signature does not match")


def _signature(public_key: bytes, domain: bytes, payload: bytes) -> bytes:
    state = hashlib.blake2b(domain, key=public_key, digest_size=64, person=b"signature")
    state.update(b"\0" + payload)
    return state.digest()
