"""What travels on a connection itself: the handshake, and the envelopes of requests.

Every message is canonical CBOR in one binary websocket message (RFC 6455). The handshake is
`Hello` from the dialler, `Hello` and `Proof` from the acceptor, `Proof` from the dialler and
`Welcome` from the acceptor; each of them is at most 4 KiB. After it, a control connection
carries the envelopes below, at most 66 KiB each.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from gossipcache.charter import SealedTicket
from gossipcache.identity import PublicKey, Signature
from gossipcache.wire import Message

MAX_HANDSHAKE_BYTES = 4096
NONCE_BYTES = 32
MAX_CALL_ID = 2**63 - 1

Purpose = Literal["control", "pieces"]
ProtocolVersion = Annotated[int, Meta(ge=1, le=2**16 - 1)]
RoleName = Annotated[str, Meta(min_length=1, max_length=32)]
RefusalCode = Literal["version", "not_permitted", "protocol", "busy", "unreachable"]
CallId = Annotated[int, Meta(ge=1, le=MAX_CALL_ID)]
Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
Body = dict[str, Any]


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """Who one side claims to be; sent once by each side, the dialler first.

    `purpose` is the dialler's; the acceptor repeats it. `ticket` is the operator's, in a cluster
    that has one; it is no secret, since it counts for its node only. A later protocol may add
    fields, but `protocol_min` and `protocol_max` keep their names and meaning for ever.
    """

    protocol_min: ProtocolVersion
    protocol_max: ProtocolVersion
    cluster_id: Annotated[bytes, Meta(min_length=1, max_length=32)]
    key: PublicKey
    nonce: Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    roles: Annotated[tuple[RoleName, ...], Meta(max_length=8)]
    purpose: Purpose
    ticket: SealedTicket = b""


class Proof(Message, frozen=True, kw_only=True, tag="proof"):
    """That the sender holds the key of its `Hello` and knows the cluster's secret.

    Both are over the transcript: the exact bytes of both hellos and the hash of the
    acceptor's TLS certificate.
    """

    signature: Signature
    mac: Digest


class Welcome(Message, frozen=True, kw_only=True, tag="welcome"):
    """The acceptor has checked the dialler's proof; the connection is open."""


class Refusal(Message, frozen=True, kw_only=True, tag="refusal"):
    """Why either side ends the handshake, told before it closes."""

    code: RefusalCode
    message: Annotated[str, Meta(max_length=256)]


class Request(Message, frozen=True, kw_only=True, tag="request"):
    """Asks for an answer to `body`. `id` is new among the sender's requests on this connection."""

    id: CallId
    body: Body


class Reply(Message, frozen=True, kw_only=True, tag="reply"):
    """The answer to the receiver's request `id`."""

    id: CallId
    body: Body


class Failure(Message, frozen=True, kw_only=True, tag="failure"):
    """The receiver's request `id` failed with the error of `code` (see `gossipcache.errors`)."""

    id: CallId
    code: Annotated[str, Meta(max_length=32)]
    message: Annotated[str, Meta(max_length=1024)]
    hint: Annotated[str, Meta(max_length=1024)]


class Notice(Message, frozen=True, kw_only=True, tag="notice"):
    """Tells `body` without asking for an answer."""

    body: Body


class Cancel(Message, frozen=True, kw_only=True, tag="cancel"):
    """Nobody waits for the answer to the sender's request `id` any more."""

    id: CallId


Envelope = Request | Reply | Failure | Notice | Cancel
