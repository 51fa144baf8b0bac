"""What the services see of the connections between nodes.

`gossipcache.link.pool.LinkPool` is the implementation; services are written, and tested with
fakes, against these protocols.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from gossipcache.env import DiskFile
from gossipcache.ids import Address, NodeId
from gossipcache.wire import Message

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)


@dataclass(frozen=True, slots=True)
class Peer:
    """The authenticated node at the other end of a connection."""

    node_id: NodeId
    public_key: bytes
    roles: frozenset[str]
    protocol_version: int
    remote: Address


Handler = Callable[[Peer, M], Awaitable[Message | None]]
"""Answers one request. A `GossipcacheError` it raises is sent to the caller by its code and
raised there again; None answers a notification."""


Pay = Callable[[int], Awaitable[None]]
"""Returns when so many bytes may be sent."""


Arrived = Callable[[], None]
"""Told, on the event loop, that a piece stands whole in its buffer."""


class PieceChannel(Protocol):
    """A connection of its own for pieces, so that bulk data never delays a control message."""

    peer: Peer

    @property
    def received_bytes(self) -> int:
        """Bytes that have come in so far, those of an unfinished piece too: tells slow from
        stalled."""

    async def send(self, message: Message) -> None:
        """Sends one message (at most 66 KiB encoded)."""

    def post(self, message: Message) -> bool:
        """Sends one message without waiting; False if it goes by the next `flush` only."""

    async def flush(self) -> None:
        """Returns when all that was posted has been sent."""

    async def receive(self) -> Message:
        """The next message, in the order sent.

        Raises `trio.EndOfChannel` when the other side closed in order, `NodeUnreachable` when
        the connection broke, `ProtocolError` when it sent garbage (the channel is then closed).
        """

    def expect(self, request_id: int, buffer: memoryview, arrived: Arrived) -> None:
        """Registers where the bytes of the piece `request_id` are to be received, and who is told
        when they have; before `receive` returns a message that was sent after the piece.

        A piece whose id is not registered, or whose length is not the buffer's, is a
        `ProtocolError` of the sender.
        """

    def forget(self, request_id: int) -> None:
        """Withdraws `expect`; the piece, should it still come, is discarded."""

    async def send_piece(
        self,
        request_id: int,
        file: DiskFile,
        offset: int,
        count: int,
        pay: Pay | None = None,
    ) -> None:
        """Sends `count` bytes of `file` as the piece `request_id`, by sendfile where it can.

        With `pay` in slices, each of which goes when `pay(size_bytes)` has returned."""

    async def aclose(self) -> None:
        """Closes the channel, in order if it can."""


ChannelHandler = Callable[[PieceChannel], Awaitable[None]]


class Links(Protocol):
    """Request, reply and notification between this node and any other.

    Connections are dialled on demand, kept, and used in both directions: a message to a node
    that has dialled us goes over its connection.
    """

    def handle(self, kind: type[M], handler: Handler[M]) -> None:
        """Names who answers messages of `kind`; once each, before the node serves."""

    def handle_channels(self, handler: ChannelHandler) -> None:
        """Names who serves inbound piece channels; it runs until the channel ends."""

    async def request(self, node: NodeId, message: Message, reply: type[R], timeout_s: float) -> R:
        """Sends `message` to `node` and returns its answer.

        Raises the error the remote answered with, `TimedOut`, or `NodeUnreachable`.
        """

    async def request_address(
        self, address: Address, message: Message, reply: type[R], timeout_s: float
    ) -> tuple[Peer, R]:
        """The same to whoever listens at `address`: for seeds, whose id is not known yet."""

    async def notify(self, node: NodeId, message: Message) -> None:
        """Sends `message` without waiting for an answer. Raises `NodeUnreachable`."""

    async def open_channel(self, node: NodeId) -> PieceChannel:
        """Dials a new piece channel to `node`. Raises `NodeUnreachable`."""
