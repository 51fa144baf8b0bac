"""Nodes that consist of nothing but a `LinkPool` on loopback."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import PurePath

import trio

from gossipcache.admission import Admission
from gossipcache.cluster import LOOPBACK, Cluster
from gossipcache.config import NodeConfig
from gossipcache.env import ByteStream, Env, Network
from gossipcache.errors import NotPermitted
from gossipcache.identity import Identity
from gossipcache.ids import Address, NodeId
from gossipcache.link.interface import Peer
from gossipcache.link.pool import LinkPool
from gossipcache.machine import real_env
from gossipcache.metrics import Metrics
from gossipcache.network import TrioNetwork
from gossipcache.wire import Message

LOCALHOST = Address("127.0.0.1", 0)


class Ask(Message, frozen=True, kw_only=True, tag="test_ask"):
    """A request for the tests."""

    text: str


class Answer(Message, frozen=True, kw_only=True, tag="test_answer"):
    """Its answer."""

    text: str


def open_to_all(cluster: Cluster) -> Admission:
    """Who judges nodes in a cluster without an operator: nobody."""
    return Admission(cluster, lambda: 0.0)


@dataclass
class LinkNode:
    """A pool with what it knows and what it has seen."""

    identity: Identity
    pool: LinkPool
    metrics: Metrics
    addresses: dict[NodeId, Address]
    address: Address | None = None
    refused: list[NodeId] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    started: trio.Event = field(default_factory=trio.Event)
    cancelled: trio.Event = field(default_factory=trio.Event)

    @property
    def node_id(self) -> NodeId:
        return self.identity.node_id

    def knows(self, other: LinkNode) -> None:
        assert other.address is not None
        self.addresses[other.node_id] = other.address

    async def ask(self, other: LinkNode, text: str = "hi", timeout_s: float = 5.0) -> str:
        ask = Ask(text=text)
        return (await self.pool.request(other.node_id, ask, Answer, timeout_s)).text

    async def answer(self, _peer: Peer, ask: Ask) -> Answer:
        if ask.text == "forbidden":
            raise NotPermitted("this is forbidden", "ask for something else")
        if ask.text == "crash":
            raise RuntimeError("a bug")
        if ask.text == "sleep":
            self.started.set()
            try:
                await trio.sleep_forever()
            finally:
                self.cancelled.set()
        self.told.append(ask.text)
        return Answer(text=ask.text.upper())


def make_node(
    number: int, *, cluster: Cluster = LOOPBACK, env: Env | None = None, plaintext: bool = False
) -> LinkNode:
    """A node with its own key; `number` makes it."""
    identity = Identity(bytes([number]) * 32)
    config = NodeConfig(
        home=PurePath("/nowhere"), name=f"n{number}", listen=LOCALHOST, plaintext=plaintext
    )
    metrics = Metrics()
    addresses: dict[NodeId, Address] = {}
    refused: list[NodeId] = []
    pool = LinkPool(
        env or real_env(), config, identity, cluster, metrics, addresses.get, refused.append
    )
    node = LinkNode(identity, pool, metrics, addresses, refused=refused)
    pool.handle(Ask, node.answer)
    return node


@asynccontextmanager
async def serving(*nodes: LinkNode, network: Network | None = None) -> AsyncIterator[None]:
    """All `nodes` serve, and know each other."""
    ports = []
    async with trio.open_nursery() as nursery:
        for node in nodes:
            port = await (network or TrioNetwork()).bind(LOCALHOST)
            ports.append(port)
            node.address = port.address
            await nursery.start(node.pool.serve, port)
        for node in nodes:
            for other in nodes:
                if other is not node:
                    node.knows(other)
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        for port in ports:
            await port.aclose()


async def dial(node: LinkNode) -> ByteStream:
    """A raw stream to a node's port, as a stranger has it."""
    assert node.address is not None
    return await TrioNetwork().dial(node.address)


def env_over(network: Network) -> Env:
    """The machine's seams, but for the network."""
    return dataclasses.replace(real_env(), network=network)
