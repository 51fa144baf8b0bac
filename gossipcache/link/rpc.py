"""Requests, replies and notices multiplexed over one control connection. Sans-IO.

Each side numbers its own requests. What comes in is judged here: which handler it is for, how
many requests may run at once, whether a reply is still waited for. The shell
(`gossipcache.link.control`) moves bytes and runs handlers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from gossipcache.errors import Busy, GossipcacheError, ProtocolError, from_code
from gossipcache.messages.link import (
    Body,
    Cancel,
    Envelope,
    Failure,
    Notice,
    Reply,
    Request,
)
from gossipcache.wire import MAX_MESSAGE_BYTES, Message, decode, encode

MAX_CALLS = 256
"""Requests of the remote that run at once on one connection; further ones are `Busy`."""
MAX_PENDING = 4096
"""Own requests that wait for an answer on one connection."""

_ENVELOPES: Any = Envelope
Kinds = dict[str, type[Message]]


@dataclass(frozen=True, slots=True)
class Call:
    """The remote asks `message`; answer by `reply` or `fail`."""

    call_id: int
    message: Message


@dataclass(frozen=True, slots=True)
class Told:
    """The remote told `message`."""

    message: Message


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The remote no longer waits for the answer to `call_id`."""

    call_id: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The own request `call_id` was answered."""

    call_id: int
    message: Message


@dataclass(frozen=True, slots=True)
class Failed:
    """The own request `call_id` failed."""

    call_id: int
    error: GossipcacheError


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes of one message for the remote."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Dropped:
    """Something was ignored; `reason` is for counting."""

    reason: str


Effect = Call | Told | Abandoned | Answered | Failed | Send | Dropped


def tag_of(kind: type[Message]) -> str:
    """The tag that stands for `kind` on the wire."""
    return str(kind.__struct_config__.tag)


class RpcCore:
    """The state of one connection's requests."""

    def __init__(self, kinds: Kinds) -> None:
        """`kinds`: the messages that have a handler, by tag; may grow until it is first used."""
        self._kinds = kinds
        self._last_id = 0
        self._pending: dict[int, type[Message]] = {}
        self._calls: dict[int, bool] = {}
        """The remote's requests whose work here is not done, and whether an answer is wanted."""

    @property
    def busy(self) -> bool:
        """Whether a request runs in either direction."""
        return bool(self._pending or self._calls)

    def request(self, message: Message, reply: type[Message]) -> tuple[int, bytes]:
        """A new request: its id, and its bytes. Raises `Busy` or `ProtocolError` (too large)."""
        if len(self._pending) >= MAX_PENDING:
            raise Busy("too many requests to one node are waiting")
        call_id = self._last_id + 1
        data = _bounded(Request(id=call_id, body=_body(message)))
        self._last_id = call_id
        self._pending[call_id] = reply
        return call_id, data

    def notice(self, message: Message) -> bytes:
        """The bytes of a notice. Raises `ProtocolError` if it is too large."""
        return _bounded(Notice(body=_body(message)))

    def abandon(self, call_id: int) -> list[Effect]:
        """Nobody waits for `call_id` any more."""
        if self._pending.pop(call_id, None) is None:
            return []
        return [Send(encode(Cancel(id=call_id)))]

    def reply(self, call_id: int, message: Message | None) -> list[Effect]:
        """The handler's answer to the remote's request `call_id`; it counts until `done`."""
        if message is None:
            return self.fail(call_id, GossipcacheError("the node gave no answer"))
        try:
            data = _bounded(Reply(id=call_id, body=_body(message)))
        except ProtocolError as error:
            return self.fail(call_id, error)
        return self._wanted(call_id, data)

    def fail(self, call_id: int, error: GossipcacheError) -> list[Effect]:
        """The handler's error for the remote's request `call_id`."""
        return self._wanted(call_id, _failure(call_id, error))

    def done(self, call_id: int) -> None:
        """The answer to `call_id` is on its way, or its work has ended without one. Until then
        it counts against the limit, abandoned or not: a remote that reads no answers, or takes
        its requests back, cannot heap up work."""
        self._calls.pop(call_id, None)

    def receive(self, data: bytes) -> list[Effect]:
        """One message. Raises `ProtocolError`, after which the connection must end."""
        envelope: Envelope = decode(data, _ENVELOPES)
        match envelope:
            case Request():
                return self._on_request(envelope)
            case Notice():
                return self._on_notice(envelope)
            case Cancel(id=call_id):
                if not self._calls.get(call_id):
                    return []
                self._calls[call_id] = False
                return [Abandoned(call_id)]
            case Reply() | Failure():
                return self._on_answer(envelope)

    def _on_request(self, request: Request) -> list[Effect]:
        if request.id in self._calls:
            raise ProtocolError("a request id that is in use")
        if len(self._calls) >= MAX_CALLS:
            error = Busy("the node runs too many requests of this connection")
            return [Dropped("busy"), Send(_failure(request.id, error))]
        try:
            message = self._typed(request.body)
        except ProtocolError as error:
            return [Dropped("message"), Send(_failure(request.id, error))]
        self._calls[request.id] = True
        return [Call(request.id, message)]

    def _on_notice(self, notice: Notice) -> list[Effect]:
        try:
            return [Told(self._typed(notice.body))]
        except ProtocolError:
            return [Dropped("message")]

    def _on_answer(self, answer: Reply | Failure) -> list[Effect]:
        if answer.id > self._last_id:
            raise ProtocolError("an answer to a request that was never made")
        kind = self._pending.pop(answer.id, None)
        if kind is None:
            return [Dropped("late_answer")]
        if isinstance(answer, Failure):
            error = from_code(answer.code, answer.message, answer.hint)
            return [Failed(answer.id, error)]
        try:
            return [Answered(answer.id, _converted(answer.body, kind))]
        except ProtocolError as error:
            return [Failed(answer.id, error)]

    def _typed(self, body: Body) -> Message:
        tag = body.get("t")
        kind = self._kinds.get(tag) if isinstance(tag, str) else None
        if kind is None:
            raise ProtocolError(f"this node does not answer {str(tag)[:32]!r}")
        return _converted(body, kind)

    def _wanted(self, call_id: int, data: bytes) -> list[Effect]:
        return [Send(data)] if self._calls.get(call_id) else []


def _body(message: Message) -> Body:
    body: Body = msgspec.to_builtins(message, builtin_types=(bytes,))
    return body


def _converted(body: Body, kind: type[Message]) -> Message:
    try:
        return msgspec.convert(body, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ProtocolError(f"a message that does not fit: {error}") from error


def _bounded(envelope: Message) -> bytes:
    data = encode(envelope)
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a message of {len(data)} bytes, the limit is {MAX_MESSAGE_BYTES}")
    return data


def _failure(call_id: int, error: GossipcacheError) -> bytes:
    return encode(
        Failure(
            id=call_id,
            code=error.code,
            message=error.message[:1024],
            hint=(error.hint or "")[:1024],
        )
    )
