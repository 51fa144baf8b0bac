"""Piece channels in memory, and `Links` that dial them. Every message is encoded on its way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import trio

from gossipcache.env import DiskFile
from gossipcache.errors import NodeUnreachable, ProtocolError
from gossipcache.ids import Address, NodeId
from gossipcache.link.interface import Arrived, ChannelHandler, Pay, Peer
from gossipcache.messages.pieces import PieceMessage
from gossipcache.pacing import SLICE_BYTES
from gossipcache.wire import Message, decode, encode

_MESSAGES: Any = PieceMessage
Item = bytes | tuple[int, bytes]
"""An encoded message, or a piece with its request id."""


@dataclass(frozen=True)
class PieceArrived:
    """What `FakeChannel.receive` gives for a piece of which nobody wants to be told."""

    request_id: int
    size: int


@dataclass
class Wire:
    """How one node's sending is disturbed. `tamper` changes the bytes of a piece."""

    piece_s: float = 0.0
    """How long one piece takes."""
    tamper: Callable[[bytes], bytes] = bytes
    frozen: bool = False


def peer_of(node: NodeId) -> Peer:
    """`node` as the other end of a channel sees it."""
    return Peer(node, bytes(32), frozenset(("peer",)), 1, Address("127.0.0.1", 1))


class FakeChannel:
    """One end of a piece channel."""

    def __init__(
        self,
        peer: Peer,
        wire: Wire,
        outgoing: trio.MemorySendChannel[Item],
        incoming: trio.MemoryReceiveChannel[Item],
    ) -> None:
        self.peer = peer
        self.received_bytes = 0
        self.sent: list[Message] = []
        self.pieces_sent: list[int] = []
        """Request ids, in order."""
        self._wire = wire
        self._outgoing = outgoing
        self._incoming = incoming
        self._expected: dict[int, tuple[memoryview, Arrived | None]] = {}
        self._forgotten: set[int] = set()
        self._posted: list[Message] = []
        self._sending = trio.Lock()

    async def send(self, message: Message) -> None:
        async with self._sending:
            await self._send(encode(message))
        self.sent.append(message)

    def post(self, message: Message) -> bool:
        self._posted.append(message)
        return False

    async def flush(self) -> None:
        while self._posted:
            await self.send(self._posted.pop(0))

    async def _send(self, item: Item) -> None:
        if self._wire.frozen:
            await trio.sleep_forever()
        try:
            await self._outgoing.send(item)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise NodeUnreachable("the channel broke") from error

    async def receive(self) -> Any:
        while True:
            try:
                item = await self._incoming.receive()
            except trio.ClosedResourceError as error:
                raise NodeUnreachable("the channel broke") from error
            self.received_bytes += len(item)
            if isinstance(item, bytes):
                message: Message = decode(item, _MESSAGES)
                return message
            if (arrived := self._take(*item)) is not None:
                return arrived

    def _take(self, request_id: int, data: bytes) -> PieceArrived | None:
        if request_id in self._forgotten:
            self._forgotten.remove(request_id)
            return None
        buffer, arrived = self._expected.pop(request_id, (b"", None))
        if not isinstance(buffer, memoryview) or len(buffer) != len(data):
            raise ProtocolError("a piece that was not asked for")
        buffer[:] = data
        if arrived is None:
            return PieceArrived(request_id, len(data))
        arrived()
        return None

    def expect(self, request_id: int, buffer: memoryview, arrived: Arrived | None = None) -> None:
        self._expected[request_id] = buffer, arrived

    def forget(self, request_id: int) -> None:
        if self._expected.pop(request_id, None) is not None:
            self._forgotten.add(request_id)

    async def send_piece(
        self,
        request_id: int,
        file: DiskFile,
        offset: int,
        count: int,
        pay: Pay | None = None,
    ) -> None:
        data = file.read_at(offset, count)
        assert len(data) == count
        async with self._sending:
            for start in range(0, count, SLICE_BYTES) if pay is not None else ():
                assert pay is not None
                await pay(min(SLICE_BYTES, count - start))
            await trio.sleep(self._wire.piece_s)
            await self._send((request_id, self._wire.tamper(data)))
        self.pieces_sent.append(request_id)

    async def aclose(self) -> None:
        await self._outgoing.aclose()
        await self._incoming.aclose()


def channel_pair(
    child: NodeId, parent: NodeId, wire: Wire | None = None
) -> tuple[FakeChannel, FakeChannel]:
    """The child's and the parent's end of a channel; `wire` is the parent's."""
    up_send, up_receive = trio.open_memory_channel[Item](math.inf)
    down_send, down_receive = trio.open_memory_channel[Item](1)
    return (
        FakeChannel(peer_of(parent), Wire(), up_send, down_receive),
        FakeChannel(peer_of(child), wire or Wire(), down_send, up_receive),
    )


@dataclass
class _Served:
    handler: ChannelHandler
    wire: Wire
    channels: list[tuple[FakeChannel, FakeChannel]]


class ChannelBoard:
    """All nodes that serve piece channels; lives in `nursery`."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._served: dict[NodeId, _Served] = {}
        self.dialled: list[NodeId] = []

    def serve(self, node: NodeId, handler: ChannelHandler, wire: Wire | None = None) -> Wire:
        """`node` answers from now on; returns what disturbs its sending."""
        served = self._served[node] = _Served(handler, wire or Wire(), [])
        return served.wire

    async def kill(self, node: NodeId) -> None:
        """`node` is dead: its channels break, nobody reaches it."""
        for child, parent in self._served.pop(node).channels:
            await child.aclose()
            await parent.aclose()

    def parent_ends(self, node: NodeId) -> list[FakeChannel]:
        """The ends of all channels that were opened to `node`, on its side."""
        return [parent for _, parent in self._served[node].channels]

    async def dial(self, child: NodeId, node: NodeId) -> FakeChannel:
        """A new channel from `child` to `node`."""
        self.dialled.append(node)
        await trio.lowlevel.checkpoint()
        served = self._served.get(node)
        if served is None:
            raise NodeUnreachable("the connection was refused")
        pair = channel_pair(child, node, served.wire)
        served.channels.append(pair)
        self._nursery.start_soon(served.handler, pair[1])
        return pair[0]


class ChannelLinks:
    """Implements `link.interface.Links` as far as downloads need it."""

    def __init__(self, board: ChannelBoard, me: NodeId) -> None:
        self._board = board
        self._me = me

    async def open_channel(self, node: NodeId) -> FakeChannel:
        return await self._board.dial(self._me, node)

    async def request(self, *_: object) -> NoReturn:
        raise NotImplementedError

    request_address = notify = request

    def handle(self, *_: object) -> NoReturn:
        raise NotImplementedError

    handle_channels = handle
