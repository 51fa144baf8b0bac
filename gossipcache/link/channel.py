"""A piece channel: a connection of its own that carries pieces and the words about them."""

from __future__ import annotations

from typing import Any

import trio

from gossipcache.env import DiskFile
from gossipcache.errors import NodeUnreachable, ProtocolError
from gossipcache.link.connection import Connection
from gossipcache.link.interface import Arrived, Pay
from gossipcache.link.piece import is_piece
from gossipcache.messages.pieces import PieceMessage
from gossipcache.wire import MAX_MESSAGE_BYTES, Message, decode, encode

_MESSAGES: Any = PieceMessage


class Channel:
    """Implements `gossipcache.link.interface.PieceChannel` over one connection."""

    def __init__(self, connection: Connection) -> None:
        self.peer = connection.peer
        self._connection = connection
        self._stream = connection.stream
        self._closed = trio.Event()

    @property
    def received_bytes(self) -> int:
        """Bytes that have come in so far."""
        return self._stream.received_bytes

    async def send(self, message: Message) -> None:
        """Sends one message. Raises `NodeUnreachable`, or `ProtocolError` if it is too large."""
        await self._connection.send(_encoded(message))

    def post(self, message: Message) -> bool:
        """Sends one message without waiting; see `PieceChannel.post`."""
        return self._connection.post(_encoded(message))

    async def flush(self) -> None:
        """Returns when all that was posted has been sent. Raises `NodeUnreachable`."""
        await self._connection.flush()

    async def receive(self) -> Message:
        """The next message; see `PieceChannel.receive`."""
        try:
            while True:
                data = await self._connection.receive()
                if not is_piece(data):
                    message: Message = decode(data, _MESSAGES)
                    return message
                self._stream.accept_small(data)
        except ProtocolError:
            await self.aclose()
            raise

    def expect(self, request_id: int, buffer: memoryview, arrived: Arrived) -> None:
        """Registers where the bytes of the piece `request_id` are to be received."""
        self._stream.expect(request_id, buffer, arrived)

    def forget(self, request_id: int) -> None:
        """Withdraws `expect`. Of a piece that is under way some bytes may be written to the buffer
        for a moment yet."""
        self._stream.forget(request_id)

    async def send_piece(
        self,
        request_id: int,
        file: DiskFile,
        offset: int,
        count: int,
        pay: Pay | None = None,
    ) -> None:
        """Sends a piece; only the parent, who was dialled, may. Raises `NodeUnreachable`."""
        if self._connection.dialled:
            raise ProtocolError("only the side that was dialled sends pieces")
        try:
            await self._stream.send_piece(request_id, file, offset, count, pay)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise NodeUnreachable(
                f"a piece was not sent to {self.peer.remote} ({error})"
            ) from error

    async def aclose(self) -> None:
        """Closes the channel; no buffer is written to after this."""
        try:
            await self._connection.aclose()
        finally:
            self._closed.set()

    async def wait_ended(self) -> None:
        """Returns when either side has closed the channel."""
        async with trio.open_nursery() as nursery:
            for event in (self._closed, self._stream.ended):
                nursery.start_soon(_cancel_after, event, nursery.cancel_scope)


def _encoded(message: Message) -> bytes:
    data = encode(message)
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a message of {len(data)} bytes for a piece channel")
    return data


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
