"""HTTP/1.1 (RFC 9112) on Trio streams by h11: just what the control API needs.

A request whose client goes away is cancelled, wherever its handler stands: once the body has
been read, the connection is watched for its end. Chosen over a web framework because none
that runs on Trio leaves asyncio out of the process.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

import h11
import trio

from gossipcache.errors import GossipcacheError, Interrupted, UsageError, from_os_error

MAX_HEAD_BYTES = 32 * 1024
MAX_TARGET_BYTES = 16 * 1024
MAX_JSON_BYTES = 64 * 1024
MAX_CONNECTIONS = 256
RECEIVE_BYTES = 256 * 1024
IDLE_TIMEOUT_S = 60.0
HEAD_TIMEOUT_S = 10.0
"""How long a connection over TCP, whose token is not known yet, may take for its first head."""
GOODBYE_S = 0.5
"""How long a stopping server tries to tell a client so."""
DRAIN_S = 1.0
"""How long an unread body is read on after an early answer, so that the answer arrives."""

_log = logging.getLogger("gossipcache.control")

_CLIENT_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError)

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request. `path` holds the decoded segments, so that a `/` in a cid is data."""

    method: str
    path: tuple[str, ...]
    query: dict[str, str]
    headers: dict[str, str]
    is_local: bool
    """It came over the Unix socket, so from this user, who may name files."""


class Exchange:
    """One request and its answer."""

    def __init__(self, wire: _Wire, request: Request) -> None:
        self._wire = wire
        self.request = request
        self.body_done = trio.Event()
        self.started = False
        self.ends_in_line = False
        """Whether an error may still be told, by the last line of the answer."""

    async def read_some(self) -> bytes:
        """The next part of the request's body; b"" at its end."""
        while not self.body_done.is_set():
            event = await self._wire.next_event()
            if isinstance(event, h11.EndOfMessage):
                self.body_done.set()
            elif not isinstance(event, h11.Data):
                raise trio.BrokenResourceError("the client went away")
            elif event.data:
                return bytes(event.data)
        return b""

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The request's body as it arrives."""
        await self._wire.invite_body()
        while part := await self.read_some():
            yield part

    async def read_body(self, limit_bytes: int = MAX_JSON_BYTES) -> bytes:
        """The whole body. Raises `UsageError` beyond the limit."""
        await self._wire.invite_body()
        whole = bytearray()
        while part := await self.read_some():
            whole += part
            if len(whole) > limit_bytes:
                raise UsageError(
                    "the request's body is too large", f"send at most {limit_bytes // 1024} KiB"
                )
        return bytes(whole)

    async def respond(self, status: int, data: bytes, headers: Headers) -> None:
        """A whole answer at once."""
        self.started = True
        length = ("content-length", str(len(data)))
        events: list[h11.Event] = [h11.Response(status_code=status, headers=[*headers, length])]
        if self.request.method != "HEAD":
            events.append(h11.Data(data=data))
        await self._wire.send(*events, h11.EndOfMessage())

    async def start(self, status: int, headers: Headers, *, in_lines: bool = False) -> None:
        """The head of an answer; without a content-length it is sent in chunks."""
        self.started, self.ends_in_line = True, in_lines
        await self._wire.send(h11.Response(status_code=status, headers=list(headers)))

    async def write(self, data: bytes) -> None:
        """A part of the answer's body."""
        if data:
            await self._wire.send(h11.Data(data=data))

    async def finish(self) -> None:
        """The end of the answer."""
        await self._wire.send(h11.EndOfMessage())

    async def watch(self, cancel: Callable[[], None]) -> None:
        """Calls `cancel` when the client goes away after it has sent its request."""
        await self.body_done.wait()
        if await self._wire.read_ahead() == b"":
            cancel()

    async def drain(self) -> None:
        """Reads on what the handler left unread of the body, for a moment."""
        with trio.move_on_after(DRAIN_S):
            while await self.read_some():
                pass


Handler = Callable[[Exchange], Awaitable[None]]
ErrorHandler = Callable[[Exchange, GossipcacheError], Awaitable[None]]


class HttpServer:
    """Serves `handler` on listeners until cancelled; `on_error` answers what it raises."""

    def __init__(self, handler: Handler, on_error: ErrorHandler) -> None:
        self._handler = handler
        self._on_error = on_error
        self._slots = trio.CapacityLimiter(MAX_CONNECTIONS)

    async def serve(
        self, listener: trio.SocketListener, *, is_local: bool, task_status: trio.TaskStatus[None]
    ) -> None:
        """Accepts connections on `listener`; says so by `task_status`."""

        async def connection(stream: trio.SocketStream) -> None:
            # Waiting costs a descriptor: strangers may not hold more of them than there are slots.
            if not is_local and not self._slots.available_tokens:
                await trio.aclose_forcefully(stream)
                return
            async with self._slots:
                await self._serve_connection(stream, is_local)

        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, connection, [listener])
            task_status.started()

    async def _serve_connection(self, stream: trio.SocketStream, is_local: bool) -> None:
        wire = _Wire(stream)
        try:
            limit_s = IDLE_TIMEOUT_S if is_local else HEAD_TIMEOUT_S
            while await self._serve_request(wire, is_local, limit_s):
                limit_s = IDLE_TIMEOUT_S
        except h11.RemoteProtocolError as error:
            await wire.refuse(error.error_status_hint)
        except _CLIENT_GONE:
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def _serve_request(self, wire: _Wire, is_local: bool, limit_s: float) -> bool:
        """Serves the next request, whose head must be here within `limit_s`; whether the
        connection is good for another."""
        event: object = None
        with trio.move_on_after(limit_s):
            event = await wire.next_event()
        if not isinstance(event, h11.Request):
            return False
        exchange = Exchange(wire, _request(event, is_local))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exchange.watch, nursery.cancel_scope.cancel)
            if not wire.has_body(event):
                await exchange.drain()
            await self._answer(exchange)
            nursery.cancel_scope.cancel()
        if nursery.cancel_scope.cancelled_caught and not wire.answered:
            return False
        await exchange.drain()
        return wire.start_next_cycle()

    async def _answer(self, exchange: Exchange) -> None:
        try:
            await self._answer_or_fail(exchange)
        except _CLIENT_GONE:
            _log.debug("a client went away")

    async def _answer_or_fail(self, exchange: Exchange) -> None:
        try:
            await self._handler(exchange)
        except GossipcacheError as error:
            await self._on_error(exchange, error)
        except _CLIENT_GONE:
            raise
        except OSError as error:
            _log.warning("the system refused", exc_info=error)
            await self._on_error(exchange, from_os_error(error))
        except Exception as error:
            _log.exception("a request failed")
            bug = GossipcacheError(f"the node met an unexpected {type(error).__name__}")
            await self._on_error(exchange, bug)
        except BaseException:  # cancelled, alone or as a group out of a nursery
            stopping = Interrupted("the node is stopping", "start it again and repeat the command")
            with trio.move_on_after(GOODBYE_S, shield=True), suppress(*_CLIENT_GONE):
                await self._on_error(exchange, stopping)
            raise


class _Wire:
    """An h11 connection over a stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)

    async def next_event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(bytes(await self._stream.receive_some(RECEIVE_BYTES)))
        return event

    async def read_ahead(self) -> bytes:
        """Waits for what comes after the request: b"" is the client's end."""
        try:
            data = bytes(await self._stream.receive_some(RECEIVE_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""
        self._http.receive_data(data)
        return data

    async def send(self, *events: h11.Event) -> None:
        """Sends all in one write, so that the other side wakes up once."""
        parts = [
            part for event in events for part in self._http.send_with_data_passthrough(event) or ()
        ]
        await self._stream.send_all(parts[0] if len(parts) == 1 else b"".join(parts))

    async def invite_body(self) -> None:
        if self._http.they_are_waiting_for_100_continue:
            await self.send(h11.InformationalResponse(status_code=100, headers=[]))

    async def refuse(self, status: int) -> None:
        """Answers what was no HTTP, if that is still possible."""
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        headers = [("content-length", "0"), ("connection", "close")]
        with trio.move_on_after(GOODBYE_S), suppress(*_CLIENT_GONE):
            await self.send(h11.Response(status_code=status, headers=headers))
            await self.send(h11.EndOfMessage())

    def has_body(self, head: h11.Request) -> bool:
        names = {bytes(name) for name, _ in head.headers}
        return bool(names & {b"content-length", b"transfer-encoding"})

    @property
    def answered(self) -> bool:
        return self._http.our_state in (h11.DONE, h11.MUST_CLOSE)

    def start_next_cycle(self) -> bool:
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True


def _request(head: h11.Request, is_local: bool) -> Request:
    if len(head.target) > MAX_TARGET_BYTES:
        raise h11.RemoteProtocolError("a target that is too long", error_status_hint=414)
    target, _, query = bytes(head.target).decode("ascii", "replace").partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=32)
        path = tuple(unquote(part, errors="strict") for part in target.strip("/").split("/"))
    except ValueError as error:
        raise h11.RemoteProtocolError("a malformed target") from error
    if len(dict(pairs)) != len(pairs):
        raise h11.RemoteProtocolError("a query with a repeated name")
    headers = {
        bytes(name).decode("ascii"): bytes(value).decode("latin-1") for name, value in head.headers
    }
    return Request(bytes(head.method).decode("ascii"), path, dict(pairs), headers, is_local)
