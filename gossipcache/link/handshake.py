"""The mutual signed challenge that opens every connection. Sans-IO.

    dialler                         acceptor
       | Hello ------------------------> |
       | <----------------- Hello, Proof |
       | Proof ------------------------> |
       | <---------------------- Welcome |

Both sign the transcript (a hash of the exact bytes of both hellos and of the acceptor's TLS
certificate) for their own side, and authenticate it with the cluster's secret; fresh nonces
make each transcript new, so a recorded proof is worth nothing. A wrong cluster, secret or
signature is refused in the same words, so that a stranger learns nothing from the refusal.
The model is SIGMA (Krawczyk, 2003) without its key exchange, which TLS gives.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from gossipcache.admission import Admission
from gossipcache.cluster import Cluster
from gossipcache.errors import (
    GossipcacheError,
    IntegrityError,
    NodeUnreachable,
    NotPermitted,
    ProtocolError,
    VersionUnsupported,
    from_code,
)
from gossipcache.identity import Identity, Signed, verify
from gossipcache.ids import NodeId, node_id_of
from gossipcache.messages.link import (
    MAX_HANDSHAKE_BYTES,
    NONCE_BYTES,
    Hello,
    Proof,
    Purpose,
    Refusal,
    RefusalCode,
    Welcome,
)
from gossipcache.wire import PROTOCOL_MAX, PROTOCOL_MIN, decode, decode_plain, encode

Side = Literal["dialler", "acceptor"]
_DOMAIN = b"gossipcache/handshake/1/"
_MESSAGES: Any = Hello | Proof | Welcome | Refusal


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one node shows to every other."""

    identity: Identity
    cluster: Cluster
    roles: frozenset[str]
    admission: Admission
    """Says which roles the other side gets."""
    ticket: bytes = b""
    protocol_min: int = PROTOCOL_MIN
    protocol_max: int = PROTOCOL_MAX


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes of one message for the other side."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Established:
    """The other side is who it says; `roles` are those that it may have."""

    public_key: bytes
    roles: frozenset[str]
    protocol_version: int
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class Failed:
    """The handshake ended without trust. `error` is for the caller of the dial or the log."""

    error: GossipcacheError


Effect = Send | Established | Failed


class Handshake:
    """One side of one handshake; after `Established` or `Failed` it takes nothing more."""

    def __init__(
        self,
        side: Side,
        credentials: Credentials,
        nonce: bytes,
        *,
        purpose: Purpose = "control",
        certificate_hash: bytes = b"",
        expected: NodeId | None = None,
    ) -> None:
        """`nonce`: 32 fresh random bytes. `certificate_hash`: SHA-256 of the acceptor's TLS
        certificate, empty without TLS. `purpose` and `expected` (the id that must answer) are
        the dialler's."""
        if len(nonce) != NONCE_BYTES:
            raise ValueError("a nonce of the wrong length")
        self._side, self._credentials, self._nonce = side, credentials, nonce
        self._purpose, self._expected = purpose, expected
        self._certificate_hash = certificate_hash
        self._own_hello = b""
        self._their_hello = b""
        self._their: Hello | None = None
        self._their_proof = False
        self._roles: frozenset[str] = frozenset()
        self._version = 0
        self._ended = False

    def start(self) -> list[Effect]:
        """What goes out first."""
        return [self._send_hello()] if self._side == "dialler" else []

    def receive(self, data: bytes) -> list[Effect]:
        """One message from the other side."""
        if self._ended:
            raise RuntimeError("the handshake has ended")
        try:
            effects = self._on_message(data)
        except GossipcacheError as error:
            self._ended = True
            return [refusal(error), Failed(error)]
        self._ended = any(isinstance(effect, Established | Failed) for effect in effects)
        return effects

    def _on_message(self, data: bytes) -> list[Effect]:
        if len(data) > MAX_HANDSHAKE_BYTES:
            raise ProtocolError("a handshake message above 4 KiB")
        if self._their is None:
            self._negotiate_version(data)
        match decode(data, _MESSAGES):
            case Hello() as hello if self._their is None:
                return self._on_hello(hello, data)
            case Proof() as proof if self._their is not None and not self._their_proof:
                return self._on_proof(proof, self._their)
            case Welcome() if self._side == "dialler" and self._their_proof and self._their:
                return [self._established(self._their)]
            case Refusal(code=code, message=message):
                return [Failed(from_code(code, f"the node refused: {message}"))]
            case _:
                raise ProtocolError("a handshake message out of order")

    def _negotiate_version(self, data: bytes) -> None:
        """Finds the common version before the rest of the hello is judged by this one."""
        plain = decode_plain(data, MAX_HANDSHAKE_BYTES)
        if not isinstance(plain, dict) or plain.get("t") != "hello":
            return
        theirs = plain.get("protocol_min"), plain.get("protocol_max")
        if not (isinstance(theirs[0], int) and isinstance(theirs[1], int)):
            raise ProtocolError("a hello without protocol versions")
        ours = self._credentials.protocol_min, self._credentials.protocol_max
        self._version = min(ours[1], theirs[1])
        if self._version < max(ours[0], theirs[0]):
            raise VersionUnsupported(
                f"this node speaks protocol {ours[0]} to {ours[1]}, "
                f"the other {theirs[0]} to {theirs[1]}",
                "upgrade the older of the two nodes",
            )

    def _on_hello(self, hello: Hello, data: bytes) -> list[Effect]:
        identity = self._credentials.identity
        if hmac.compare_digest(hello.key, identity.public_key):
            raise ProtocolError("the other side has this node's own key", "check the address")
        if self._expected is not None and node_id_of(hello.key) != self._expected:
            raise NodeUnreachable("another node answers at this address")
        self._their, self._their_hello = hello, data
        if self._side == "dialler":
            return []
        self._purpose = hello.purpose
        return [self._send_hello(), self._send_proof()]

    def _on_proof(self, proof: Proof, their: Hello) -> list[Effect]:
        other: Side = "acceptor" if self._side == "dialler" else "dialler"
        cluster = self._credentials.cluster
        transcript = self._transcript()
        # All are computed before any is judged: time must not tell which one failed.
        checks = (
            hmac.compare_digest(their.cluster_id, cluster.cluster_id),
            cluster.check_mac(_domain(other) + transcript, proof.mac),
            _is_signed(Signed(transcript, their.key, proof.signature), _domain(other)),
            their.purpose == self._purpose,
        )
        if not all(checks):
            raise NotPermitted(
                "the nodes are not admitted to one cluster",
                "check that both have the same cluster secret",
            )
        self._roles = self._credentials.admission.grant(
            node_id_of(their.key), frozenset(their.roles), their.ticket
        )
        self._their_proof = True
        if self._side == "dialler":
            return [self._send_proof()]
        return [Send(encode(Welcome())), self._established(their)]

    def _established(self, their: Hello) -> Established:
        return Established(their.key, self._roles, self._version, self._purpose)

    def _send_hello(self) -> Send:
        credentials = self._credentials
        self._own_hello = encode(
            Hello(
                protocol_min=credentials.protocol_min,
                protocol_max=credentials.protocol_max,
                cluster_id=credentials.cluster.cluster_id,
                key=credentials.identity.public_key,
                nonce=self._nonce,
                roles=tuple(sorted(credentials.roles)),
                purpose=self._purpose,
                ticket=credentials.ticket,
            )
        )
        return Send(self._own_hello)

    def _send_proof(self) -> Send:
        transcript, domain = self._transcript(), _domain(self._side)
        signature = self._credentials.identity.sign(domain, transcript).signature
        mac = self._credentials.cluster.mac(domain + transcript)
        return Send(encode(Proof(signature=signature, mac=mac)))

    def _transcript(self) -> bytes:
        hellos = [self._own_hello, self._their_hello]
        if self._side == "acceptor":
            hellos.reverse()
        state = hashlib.blake2b(_DOMAIN, digest_size=32)
        for part in (*hellos, self._certificate_hash):
            state.update(len(part).to_bytes(4, "big") + part)
        return state.digest()


def refusal(error: GossipcacheError) -> Send:
    """The message that tells the other side why it is turned away."""
    code = error.code if error.code in get_args(RefusalCode) else "protocol"
    return Send(encode(Refusal(code=cast(RefusalCode, code), message=error.message[:256])))


def _domain(side: Side) -> bytes:
    return _DOMAIN + side.encode()


def _is_signed(signed: Signed, domain: bytes) -> bool:
    try:
        verify(signed, domain)
    except IntegrityError:
        return False
    return True
