"""Links between nodes in memory: every message is encoded and decoded on its way.

A `Switchboard` joins the nodes. `refuse(node)` makes it dead at once (connections are refused),
`silence(node)` frozen (requests time out), `revive(node)` undoes both. A node that is cut
reaches nobody either.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import msgspec
import trio

from gossipcache.errors import (
    GossipcacheError,
    NodeUnreachable,
    ProtocolError,
    TimedOut,
    from_code,
)
from gossipcache.identity import Identity
from gossipcache.ids import Address, NodeId
from gossipcache.link.interface import ChannelHandler, Handler, Peer, PieceChannel
from gossipcache.wire import Message, decode, encode

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)
LATENCY_S = 0.001


class Switchboard:
    """All the nodes that can reach each other."""

    def __init__(self) -> None:
        self._nodes: dict[NodeId, FakeLinks] = {}
        self._refusing: set[NodeId] = set()
        self._silent: set[NodeId] = set()
        self.sent: list[tuple[NodeId, NodeId, Message]] = []
        """Every message that was delivered: from, to, message."""

    def join(self, identity: Identity, roles: frozenset[str]) -> FakeLinks:
        """The links of one node; joining again takes the place of an earlier life."""
        peer = Peer(identity.node_id, identity.public_key, roles, 1, Address("127.0.0.1", 1))
        links = FakeLinks(self, peer)
        self._nodes[identity.node_id] = links
        return links

    def refuse(self, node: NodeId) -> None:
        self._refusing.add(node)

    def silence(self, node: NodeId) -> None:
        self._silent.add(node)

    def revive(self, node: NodeId) -> None:
        self._refusing.discard(node)
        self._silent.discard(node)

    async def deliver(self, sender: Peer, node: NodeId, message: Message) -> Message | None:
        await trio.sleep(LATENCY_S)
        ends = {sender.node_id, node}
        if ends & self._silent:
            await trio.sleep_forever()
        target = self._nodes.get(node)
        if ends & self._refusing or target is None:
            raise NodeUnreachable("the connection was refused")
        self.sent.append((sender.node_id, node, message))
        return await target.answer(sender, _copied(message))


class FakeLinks:
    """Implements `link.interface.Links`, without piece channels."""

    def __init__(self, board: Switchboard, me: Peer) -> None:
        self._board = board
        self._me = me
        self._handlers: dict[type[Message], Callable[[Peer, Any], Awaitable[Message | None]]] = {}

    def handle(self, kind: type[M], handler: Handler[M]) -> None:
        assert kind not in self._handlers, f"{kind} is handled twice"
        self._handlers[kind] = handler

    def replace(self, kind: type[M], handler: Handler[M]) -> None:
        """Makes the node answer `kind` in its own way, as a liar would."""
        self._handlers[kind] = handler

    def handle_channels(self, handler: ChannelHandler) -> None:
        raise NotImplementedError

    async def request(self, node: NodeId, message: Message, reply: type[R], timeout_s: float) -> R:
        with trio.move_on_after(timeout_s):
            answer = await self._board.deliver(self._me, node, message)
            assert answer is not None
            copied = _copied(answer)
            if not isinstance(copied, reply):
                raise ProtocolError(f"answered with {type(copied).__name__}")
            return copied
        raise TimedOut("no answer in time")

    async def request_address(
        self, address: Address, message: Message, reply: type[R], timeout_s: float
    ) -> tuple[Peer, R]:
        raise NotImplementedError

    async def notify(self, node: NodeId, message: Message) -> None:
        await self._board.deliver(self._me, node, message)

    async def open_channel(self, node: NodeId) -> PieceChannel:
        raise NotImplementedError

    async def answer(self, sender: Peer, message: Message) -> Message | None:
        handler = self._handlers.get(type(message))
        if handler is None:
            raise ProtocolError(f"nobody handles {type(message).__name__}")
        try:
            return await handler(sender, message)
        except GossipcacheError as error:
            raise from_code(error.code, error.message, error.hint) from None


def _copied(message: M) -> M:
    return cast(M, decode(encode(message), cast(type[msgspec.Struct], type(message))))
