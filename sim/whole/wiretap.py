"""Reads what whole nodes send: opens sealed datagrams, and finds the messages in streams.

It only looks, and only when a report is made.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import cbor2

from gossipcache.cluster import Cluster
from gossipcache.errors import IntegrityError, ProtocolError
from gossipcache.identity import Signed
from gossipcache.ids import NodeId
from gossipcache.link.piece import is_piece
from gossipcache.messages.glances import AskGlance, Glance
from gossipcache.messages.gossip import Ack, Datagram, Gossip, MemberRecord, Ping, PingRequest
from gossipcache.wire import decode
from sim.chronicle import Chronicle, Message

_DATAGRAM: Any = Datagram | AskGlance | Glance
_HEAD_END = b"\r\n\r\n"
"""What ends the HTTP head that opens a websocket."""
_BINARY = 2
_ROUTINE = ("link-ping", "link-pong", "heartbeat", "heartbeat_reply", "request_piece")


class Wiretap:
    """Tells a chronicle what travels between whole nodes."""

    def __init__(
        self, chronicle: Chronicle, cluster: Cluster, name_of: Callable[[str], str]
    ) -> None:
        """`name_of` gives the machine of a node's id in hex or of an address's host."""
        self._chronicle = chronicle
        self._cluster = cluster
        self._name_of = name_of
        self._streams: dict[str, _Frames] = {}

    def arrived(self, kind: str, where: str, data: bytes, sent_s: float, now: float) -> None:
        """A datagram or a segment of a stream arrived; `where` is `source>target`."""
        source, _, target = where.partition(">")
        if kind == "datagram":
            messages = iter([self._datagram(data)])
        else:
            messages = self._streams.setdefault(where, _Frames()).feed(data)
        names = [self._name_of(address.rpartition(":")[0]) for address in (source, target)]
        for what, size, detail, is_routine in messages:
            self._chronicle.carried(
                Message(sent_s, now, names[0], names[1], what, size, detail, is_routine)
            )

    def _datagram(self, data: bytes) -> tuple[str, int, str, bool]:
        try:
            message = decode(self._cluster.open(data), _DATAGRAM)
        except (IntegrityError, ProtocolError):
            return "unreadable datagram", len(data), "", False
        if not isinstance(message, Gossip):
            return _in_words(message), len(data), "", True
        kind, detail, is_routine = told(message, lambda node: self._name_of(node.hex()))
        return kind, len(data), detail, is_routine


def told(message: Gossip, name_of: Callable[[NodeId], str]) -> tuple[str, str, bool]:
    """A datagram in words: its kind, what it says, and whether that is nothing new."""
    kind = _in_words(message)
    news = [_told(record) for record in message.records]
    news += [
        f"{name_of(NodeId(each.subject))} {each.verdict}, says {name_of(NodeId(each.accuser))}"
        for each in message.accusations
    ]
    about = [f"of {name_of(NodeId(message.target))}"] if isinstance(message, PingRequest) else []
    is_routine = isinstance(message, Ping | Ack) and not news
    return kind, ", ".join([*about, *news]), is_routine


def _in_words(message: Gossip | AskGlance | Glance) -> str:
    """`PingRequest` as "ping request"."""
    return re.sub(r"\B([A-Z])", r" \1", type(message).__name__).lower()


def _told(record: Signed) -> str:
    try:
        member = decode(record.payload, MemberRecord)
    except ProtocolError:
        return "an unreadable record"
    return f"{member.name} {member.phase} at {member.incarnation & 0xFFFFFFFF}"


class _Frames:
    """The messages in one direction of a websocket connection (RFC 6455)."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._is_open = False

    def feed(self, data: bytes) -> Iterator[tuple[str, int, str, bool]]:
        """What was completed by `data`: kind, size, detail, whether it is routine."""
        self._buffer += data
        if not self._is_open:
            end = self._buffer.find(_HEAD_END)
            if end < 0:
                return
            yield "websocket opening", end + len(_HEAD_END), "", False
            del self._buffer[: end + len(_HEAD_END)]
            self._is_open = True
        while (frame := self._next_frame()) is not None:
            opcode, payload = frame
            if opcode == _BINARY:
                yield _message(payload)

    def _next_frame(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        width = {126: 2, 127: 8}.get(buffer[1] & 0x7F, 0)
        masked = bool(buffer[1] & 0x80)
        start = 2 + width + (4 if masked else 0)
        size = int.from_bytes(buffer[2 : 2 + width], "big") if width else buffer[1] & 0x7F
        if len(buffer) < start + size:
            return None
        opcode, payload = buffer[0] & 0x0F, bytes(buffer[start : start + size])
        if masked:
            mask = itertools.cycle(buffer[start - 4 : start])
            payload = bytes(byte ^ key for byte, key in zip(payload, mask, strict=False))
        del buffer[: start + size]
        return opcode, payload


def _message(payload: bytes) -> tuple[str, int, str, bool]:
    if is_piece(payload):
        return "piece", len(payload), "", True
    try:
        value = cbor2.loads(payload)
    except (cbor2.CBORError, ValueError):
        return "unreadable message", len(payload), "", False
    if not isinstance(value, dict):
        return "message", len(payload), "", False
    envelope, body = value.get("t", "message"), value.get("body")
    kind = str(body.get("t", envelope)) if isinstance(body, dict) else str(envelope)
    detail = str(envelope) if isinstance(body, dict) else str(value.get("message", ""))
    return kind, len(payload), detail, kind in _ROUTINE
