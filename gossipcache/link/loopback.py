"""Links that also reach the node itself.

A node is often a keeper of its own tasks. Its services address every keeper alike; what is for
the node itself is answered in place here, without a connection.
"""

from __future__ import annotations

from typing import Any, TypeVar

import trio

from gossipcache.errors import NodeUnreachable, ProtocolError, TimedOut
from gossipcache.ids import Address, NodeId
from gossipcache.link.interface import ChannelHandler, Handler, Links, Peer, PieceChannel
from gossipcache.wire import Message

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)


class LoopbackLinks:
    """Implements `Links`: `me` is served by this node's own handlers, all others by `links`."""

    def __init__(self, links: Links, me: Peer) -> None:
        self._links = links
        self._me = me
        self._handlers: dict[type[Message], Handler[Any]] = {}

    def handle(self, kind: type[M], handler: Handler[M]) -> None:
        """Names who answers messages of `kind`, from this node and from others."""
        self._handlers[kind] = handler
        self._links.handle(kind, handler)

    def handle_channels(self, handler: ChannelHandler) -> None:
        """Names who serves inbound piece channels; a node opens none to itself."""
        self._links.handle_channels(handler)

    async def request(self, node: NodeId, message: Message, reply: type[R], timeout_s: float) -> R:
        """Sends `message` to `node` and returns its answer; see `Links.request`."""
        if node != self._me.node_id:
            return await self._links.request(node, message, reply, timeout_s)
        with trio.move_on_after(timeout_s):
            answer = await self._call(message)
            if not isinstance(answer, reply):
                raise ProtocolError(f"an answer of kind {type(answer).__name__}")
            return answer
        raise TimedOut(f"this node did not answer itself within {timeout_s:g} s")

    async def request_address(
        self, address: Address, message: Message, reply: type[R], timeout_s: float
    ) -> tuple[Peer, R]:
        """Asks whoever listens at `address`."""
        return await self._links.request_address(address, message, reply, timeout_s)

    async def notify(self, node: NodeId, message: Message) -> None:
        """Sends `message` to `node` without waiting for an answer."""
        if node == self._me.node_id:
            await self._call(message)
        else:
            await self._links.notify(node, message)

    async def open_channel(self, node: NodeId) -> PieceChannel:
        """Dials a new piece channel to another node."""
        return await self._links.open_channel(node)

    async def _call(self, message: Message) -> Message | None:
        handler = self._handlers.get(type(message))
        if handler is None:
            raise NodeUnreachable("this node does not have the role that is asked for")
        await trio.lowlevel.checkpoint()
        return await handler(self._me, message)
