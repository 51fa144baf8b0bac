"""One websocket connection between two nodes that have proved who they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import trio
from trio_websocket import (
    ConnectionClosed,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
    wrap_server_stream,
)

from gossipcache.env import ByteStream
from gossipcache.errors import GossipcacheError, NodeUnreachable, ProtocolError
from gossipcache.ids import NodeId, node_id_of
from gossipcache.link.bulk import RECEIVE_BYTES, BulkStream
from gossipcache.link.frames import MASK_BYTES
from gossipcache.link.handshake import Credentials, Established, Failed, Handshake, Send, Side
from gossipcache.link.interface import Peer
from gossipcache.link.tls import Tls, needs_tls
from gossipcache.messages.link import NONCE_BYTES, Purpose
from gossipcache.metrics import Metrics
from gossipcache.wire import MAX_MESSAGE_BYTES

HANDSHAKE_TIMEOUT_S = 5.0
GOODBYE_TIMEOUT_S = 0.5
RESOURCE = "/gossipcache"
_HOST = "gossipcache"
_MASKS_AT_ONCE = 64
"""To draw them one by one costs a system call for each message, in which another thread may take
the interpreter."""
_NORMAL, _GOING_AWAY = 1000, 1001
_BROKEN = (ConnectionClosed, HandshakeError, trio.BrokenResourceError, trio.ClosedResourceError)


@dataclass(frozen=True, slots=True)
class Terms:
    """What one node brings to every connection. `tls` is None with `--insecure-plaintext`."""

    credentials: Credentials
    tls: Tls | None
    entropy: Callable[[int], bytes]
    metrics: Metrics


class Connection:
    """An open connection to `peer`; what is sent and received are whole messages."""

    def __init__(
        self,
        socket: WebSocketConnection,
        stream: BulkStream,
        peer: Peer,
        purpose: Purpose,
        entropy: Callable[[int], bytes],
    ) -> None:
        self.peer, self.purpose, self.stream = peer, purpose, stream
        self.ended_in_order = False
        """Whether the remote said goodbye; what it had not answered then, it has not done."""
        self._socket = socket
        self._entropy = entropy
        self._random = b""
        """What was drawn for masks, and not used yet."""
        self._closed = False
        self._pings = 0

    @property
    def dialled(self) -> bool:
        """Whether this side dialled."""
        return bool(self._socket.is_client)

    async def send(self, *messages: bytes) -> None:
        """Sends messages. A cancellation may break the connection. Raises `NodeUnreachable`."""
        try:
            await self.stream.send_messages(messages, self._masks(len(messages)))
        except _BROKEN as error:
            raise self._unreachable() from error

    def post(self, message: bytes) -> bool:
        """Sends a message without waiting; False if it goes by the next `flush` only."""
        return self.stream.post((message,), self._masks(1))

    async def flush(self) -> None:
        """Returns when all that was posted has been sent. Raises `NodeUnreachable`."""
        await self.send()

    def _masks(self, count: int) -> Sequence[bytes]:
        if not self.dialled:
            return ()
        if len(self._random) < count * MASK_BYTES:
            self._random = self._entropy(max(count, _MASKS_AT_ONCE) * MASK_BYTES)
        used, self._random = self._random[: count * MASK_BYTES], self._random[count * MASK_BYTES :]
        return [used[at : at + MASK_BYTES] for at in range(0, len(used), MASK_BYTES)]

    async def receive(self) -> bytes:
        """The next message; raises as `PieceChannel.receive` does."""
        try:
            message = await self.stream.receive_message()
        except trio.EndOfChannel as error:
            raise self._end() from error
        if not message:
            raise ProtocolError("an empty message")
        return message

    async def ping(self) -> None:
        """Returns when the remote has answered. Raises `NodeUnreachable`."""
        self._pings += 1
        try:
            await self._socket.ping(self._pings.to_bytes(4, "big"))
        except _BROKEN as error:
            raise self._unreachable() from error

    async def aclose(self) -> None:
        """Says goodbye, and takes and gives nothing after it."""
        self._closed = True
        self.stream.forget_all()
        with trio.move_on_after(GOODBYE_TIMEOUT_S):
            try:
                await self.stream.say_goodbye(_NORMAL)
            except _BROKEN:
                pass

    def _end(self) -> Exception:
        """Why no further message comes."""
        if self._closed:
            return trio.ClosedResourceError("the connection was closed here")
        if self.stream.failure is not None:
            return self.stream.failure
        code = None if self._socket.closed is None else self._socket.closed.code
        if code in (_NORMAL, _GOING_AWAY):
            self.ended_in_order = True
            return trio.EndOfChannel()
        if code in (1002, 1003, 1007, 1009):
            return ProtocolError("the websocket protocol was violated")
        return self._unreachable()

    def _unreachable(self) -> NodeUnreachable:
        return NodeUnreachable(
            f"the connection to {self.peer.node_id.hex()} at {self.peer.remote} broke",
            "it is made anew when it is needed",
        )


Body = Callable[[Connection], Awaitable[None]]


async def run_connection(
    raw: ByteStream,
    side: Side,
    terms: Terms,
    body: Body,
    *,
    purpose: Purpose = "control",
    expected: NodeId | None = None,
) -> None:
    """Opens the connection on `raw` within 5 s, runs `body` over it, closes it in order.

    Raises the `GossipcacheError` that ended the opening or the body. Whatever the remote does,
    nothing else comes out.
    """
    opening = _Opening(raw, side, terms, purpose, expected)
    failure: GossipcacheError | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                await body(await opening.run(nursery))
            except GossipcacheError as error:
                failure = error
            except (*_BROKEN, trio.EndOfChannel, OSError) as error:
                failure = opening.broken(error)
            nursery.cancel_scope.cancel()
    except* Exception as group:
        # The websocket library lets some violations out of its reader.
        terms.metrics.count("link_websocket_errors")
        failure = failure or ProtocolError(f"a websocket error: {group.exceptions[0]!r}")
    finally:
        await opening.close()
    if failure is not None:
        raise failure


class _Opening:
    """The way from a raw stream to a `Connection`, and back."""

    def __init__(
        self, raw: ByteStream, side: Side, terms: Terms, purpose: Purpose, expected: NodeId | None
    ) -> None:
        self._raw, self._side, self._terms = raw, side, terms
        self._purpose, self._expected = purpose, expected
        self._stream: BulkStream | None = None
        self._is_websocket = False

    async def run(self, nursery: trio.Nursery) -> Connection:
        with trio.move_on_after(HANDSHAKE_TIMEOUT_S) as scope:
            return await self._open(nursery, scope)
        stream = self._stream
        if stream is not None and stream.ended.is_set():
            raise self.broken(None)
        self._terms.metrics.count("link_rejected_timeout")
        raise NodeUnreachable(f"no handshake with {self._raw.remote} within 5 s")

    def broken(self, error: BaseException | None) -> GossipcacheError:
        """The error of a connection that ended before its work did."""
        if self._stream is not None and self._stream.failure is not None:
            return self._stream.failure
        cause = f" ({error})" if error is not None and str(error) else ""
        return NodeUnreachable(f"{self._raw.remote} closed the connection{cause}")

    async def close(self) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + GOODBYE_TIMEOUT_S):
            if self._stream is not None and self._is_websocket:
                try:
                    await self._stream.say_goodbye(_GOING_AWAY)
                    await self._stream.drain()
                except (*_BROKEN, OSError):
                    pass
        await trio.aclose_forcefully(self._raw)

    async def _open(self, nursery: trio.Nursery, scope: trio.CancelScope) -> Connection:
        raw, certificate_hash = self._raw, b""
        if self._terms.tls is not None and needs_tls(raw, self._side):
            raw, certificate_hash = await self._terms.tls.wrap(raw, self._side)
        pieces = self._side == "dialler" and self._purpose == "pieces"
        stream = self._stream = BulkStream(
            raw, self._terms.metrics, dialled=self._side == "dialler", pieces=pieces
        )
        # The library never tells that a stream ended before its websocket was open.
        nursery.start_soon(_cancel_when, stream.ended, scope)
        socket = await self._open_websocket(nursery, stream)
        self._is_websocket = True
        nursery.start_soon(_end_messages_with, socket, stream)
        found = await self._authenticate(socket, stream, certificate_hash)
        peer = Peer(
            node_id=node_id_of(found.public_key),
            public_key=found.public_key,
            roles=found.roles,
            protocol_version=found.protocol_version,
            remote=raw.remote,
        )
        return Connection(socket, stream, peer, found.purpose, self._terms.entropy)

    async def _open_websocket(
        self, nursery: trio.Nursery, stream: BulkStream
    ) -> WebSocketConnection:
        limits: dict[str, Any] = {
            "max_message_size": MAX_MESSAGE_BYTES,
            "receive_buffer_size": RECEIVE_BYTES,
        }
        any_stream = cast(Any, stream)
        if self._side == "dialler":
            return await wrap_client_stream(nursery, any_stream, _HOST, RESOURCE, **limits)
        request = await wrap_server_stream(nursery, any_stream, **limits)
        if request.path != RESOURCE:
            await request.reject(404)
            raise ProtocolError("a websocket for another resource")
        return await request.accept()

    async def _authenticate(
        self, socket: WebSocketConnection, stream: BulkStream, certificate_hash: bytes
    ) -> Established:
        handshake = Handshake(
            self._side,
            self._terms.credentials,
            self._terms.entropy(NONCE_BYTES),
            purpose=self._purpose,
            certificate_hash=certificate_hash,
            expected=self._expected,
        )
        effects = handshake.start()
        while True:
            for effect in effects:
                match effect:
                    case Send(data):
                        await socket.send_message(data)
                    case Failed(error):
                        self._terms.metrics.count(f"link_handshake_failed_{error.code}")
                        raise error
                    case Established():
                        return effect
            effects = handshake.receive(await stream.receive_message())


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def _end_messages_with(socket: WebSocketConnection, stream: BulkStream) -> None:
    """Waits for the end of the library's part, which hears of no message."""
    try:
        await socket.get_message()
    except ConnectionClosed:
        pass
    finally:
        stream.end_messages()
