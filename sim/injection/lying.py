"""Piece channels of parents that lie: what a child is told is not what the store has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio

from gossipcache.env import DiskFile
from gossipcache.errors import NodeUnreachable
from gossipcache.link.bulk import frame_header
from gossipcache.link.channel import Channel
from gossipcache.link.interface import Arrived, Pay, Peer
from gossipcache.link.piece import piece_prefix
from gossipcache.messages.pieces import PieceQueued, PieceRefused, RequestPiece, TaskOpened
from gossipcache.node.node import Node
from gossipcache.wire import Message


class LyingChannel:
    """A `PieceChannel` that is honest; liars override what they lie about."""

    def __init__(self, true: Channel, lies: list[str]) -> None:
        self.peer: Peer = true.peer
        self.true = true
        self.lies = lies
        """What was ever said that is not so."""

    @property
    def received_bytes(self) -> int:
        """As the true channel says."""
        return self.true.received_bytes

    async def send(self, message: Message) -> None:
        """Sends `message`."""
        await self.true.send(message)

    def post(self, message: Message) -> bool:
        """Sends `message` now or by the next `flush`."""
        return self.true.post(message)

    async def flush(self) -> None:
        """As on the true channel."""
        await self.true.flush()

    async def receive(self) -> Message:
        """The next message."""
        return await self.true.receive()

    def expect(self, request_id: int, buffer: memoryview, arrived: Arrived) -> None:
        """As on the true channel."""
        self.true.expect(request_id, buffer, arrived)

    def forget(self, request_id: int) -> None:
        """As on the true channel."""
        self.true.forget(request_id)

    async def send_piece(
        self,
        request_id: int,
        file: DiskFile,
        offset: int,
        count: int,
        pay: Pay | None = None,
    ) -> None:
        """Sends a piece."""
        await self.true.send_piece(request_id, file, offset, count, pay)

    async def aclose(self) -> None:
        """Closes the channel."""
        await self.true.aclose()


class Truncating(LyingChannel):
    """Sends the first half of each piece and hangs up."""

    async def send_piece(
        self,
        request_id: int,
        file: DiskFile,
        offset: int,
        count: int,
        pay: Pay | None = None,
    ) -> None:
        """Sends what a parent that dies in the midst of a piece does."""
        self.lies.append(f"half of the piece at {offset}")
        prefix = piece_prefix(request_id, count)
        half = file.read_at(offset, count // 2)
        stream = self.true._stream
        await stream.send_all(frame_header(len(prefix) + count) + prefix + half)
        await stream.aclose()
        raise NodeUnreachable("the liar hung up")


class WrongLength(LyingChannel):
    """Sends each piece a byte too short."""

    async def send_piece(
        self,
        request_id: int,
        file: DiskFile,
        offset: int,
        count: int,
        pay: Pay | None = None,
    ) -> None:
        """Sends a frame that is whole, of a piece that is not."""
        self.lies.append(f"a short piece at {offset}")
        await self.true.send_piece(request_id, file, offset, count - 1, pay)


class Boasting(LyingChannel):
    """Says that it has every piece, and refuses every other one that it is asked for."""

    async def send(self, message: Message) -> None:
        """Turns "I have some pieces" into "I have all"."""
        if isinstance(message, TaskOpened) and not message.complete:
            message = TaskOpened(complete=True)
        await self.true.send(message)

    async def send_piece(
        self,
        request_id: int,
        file: DiskFile,
        offset: int,
        count: int,
        pay: Pay | None = None,
    ) -> None:
        """Sends a piece, or says that it is not there."""
        if request_id % 2:
            self.lies.append(f"no piece at {offset}")
            await self.true.send(PieceRefused(request_id=request_id, code="not_found"))
        else:
            await self.true.send_piece(request_id, file, offset, count, pay)


class Mute(LyingChannel):
    """Accepts, and never says a word."""

    async def send(self, message: Message) -> None:
        """Says nothing, for as long as the child has patience."""
        self.lies.append(type(message).__name__)
        await trio.sleep_forever()

    async def send_piece(
        self,
        request_id: int,
        file: DiskFile,
        offset: int,
        count: int,
        pay: Pay | None = None,
    ) -> None:
        """Sends nothing either."""
        await trio.sleep_forever()


class Promising(LyingChannel):
    """Says of each piece that its turn comes in a minute, for ever."""

    def __init__(self, true: Channel, lies: list[str]) -> None:
        super().__init__(true, lies)
        self._asked: int | None = None

    async def receive(self) -> Message:
        """Keeps requests to itself, and answers each two seconds."""
        while True:
            with trio.move_on_after(2.0):
                message = await self.true.receive()
                if not isinstance(message, RequestPiece):
                    return message
                self._asked = message.request_id
            if self._asked is not None:
                self.lies.append(f"soon the piece asked for by {self._asked}")
                await self.true.send(PieceQueued(request_id=self._asked, wait_ms=60_000))


def served_through(
    node: Node, liar: Callable[[Channel, list[str]], LyingChannel], lies: list[str]
) -> Callable[[], None]:
    """From now on `node` serves its piece channels through `liar`; what is returned ends that."""
    pool: Any = node.services.links._links  # type: ignore[attr-defined]
    honest = pool._channel_handler

    async def serve(channel: Channel) -> None:
        await honest(liar(channel, lies))

    pool._channel_handler = serve

    def repent() -> None:
        pool._channel_handler = honest

    return repent
