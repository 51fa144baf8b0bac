"""What admits a node to a cluster: its id, its shared secret, and who its operator is.

The keyring holds one key, or two while a rotation is under way: everything is sealed with the
first and opened with either. Without a secret (loopback only) datagrams are not sealed and
the handshake's MAC is keyed by zeros, so that the code path stays one.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import nacl.exceptions
import nacl.secret

from gossipcache.errors import IntegrityError

SECRET_BYTES = 32
CLUSTER_ID_BYTES = 8
SEAL_OVERHEAD_BYTES = 24 + 16
"""Nonce and Poly1305 tag that sealing adds to a datagram."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster's id (8 bytes), its secrets (32 bytes each, the one in use first; none on
    loopback), and the public key of its operator (none: nobody needs tickets)."""

    cluster_id: bytes
    secrets: tuple[bytes, ...] = ()
    operator_key: bytes = b""

    @property
    def has_secret(self) -> bool:
        """Whether a node needs a secret to be admitted."""
        return bool(self.secrets)

    def seal(self, datagram: bytes, entropy: Callable[[int], bytes]) -> bytes:
        """`datagram` encrypted and authenticated with the first secret (XSalsa20-Poly1305)."""
        if not self.secrets:
            return datagram
        nonce = entropy(nacl.secret.SecretBox.NONCE_SIZE)
        return bytes(_box(self.secrets[0]).encrypt(datagram, nonce))

    def open(self, sealed: bytes) -> bytes:
        """The datagram in `sealed`. Raises `IntegrityError` if no secret opens it."""
        if not self.secrets:
            return sealed
        for secret in self.secrets:
            try:
                return _box(secret).decrypt(sealed)
            except (nacl.exceptions.CryptoError, ValueError, TypeError):
                continue
        raise IntegrityError("a datagram that no cluster secret opens")

    def mac(self, transcript: bytes) -> bytes:
        """A proof (32 bytes) of knowing the first secret, bound to `transcript`."""
        return _mac(self.secrets[0] if self.secrets else bytes(SECRET_BYTES), transcript)

    def check_mac(self, transcript: bytes, proof: bytes) -> bool:
        """Whether `proof` was made with one of the secrets; compared in constant time."""
        accepted = self.secrets or (bytes(SECRET_BYTES),)
        return any(hmac.compare_digest(_mac(secret, transcript), proof) for secret in accepted)


LOOPBACK = Cluster(b"loopback")
"""The cluster of nodes without a secret, which listen on loopback only."""


def cluster_from_secret(
    secret: bytes, older: bytes | None = None, cluster_id: bytes | None = None
) -> Cluster:
    """The cluster of `secret`; its id comes from the first secret unless `cluster_id` is given."""
    secrets = (secret,) if older is None else (secret, older)
    return Cluster(cluster_id or _derived(secret, b"cluster-id")[:CLUSTER_ID_BYTES], secrets)


@lru_cache(maxsize=16)
def _box(secret: bytes) -> nacl.secret.SecretBox:
    return nacl.secret.SecretBox(_derived(secret, b"datagram"))


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return hashlib.blake2b(purpose, key=secret, digest_size=32, person=b"gossipcache/1").digest()


def _mac(secret: bytes, transcript: bytes) -> bytes:
    return hashlib.blake2b(transcript, key=_derived(secret, b"handshake"), digest_size=32).digest()
