"""The membership shell: several services on one fake network and virtual time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import PurePath
from typing import Any

import pytest
import trio
import trio.testing

from gossipcache.cluster import Cluster, cluster_from_secret
from gossipcache.config import NodeConfig
from gossipcache.dht.membership.service import MembershipService
from gossipcache.env import DatagramRefused, Env
from gossipcache.errors import NodeUnreachable
from gossipcache.identity import Identity
from gossipcache.ids import Address, NodeId
from gossipcache.link.interface import Peer
from gossipcache.metrics import Metrics
from gossipcache.wire import Message
from tests.dht.membership.harness import identity, node_id

CLUSTER = cluster_from_secret(b"s" * 32)
OTHER_SECRET = cluster_from_secret(b"t" * 32)


def address(number: int) -> Address:
    return Address("10.0.0.1", 7000 + number)


class FakeNetwork:
    """Datagrams and links between the nodes that are up."""

    def __init__(self) -> None:
        self.nodes: dict[Address, Node] = {}


class FakeDatagrams:
    def __init__(self, network: FakeNetwork, own: Address) -> None:
        self._network, self._own = network, own
        self.deliver, self._inbound = trio.open_memory_channel[
            tuple[bytes, Address] | DatagramRefused
        ](1000)

    def send_to(self, data: bytes, address: Address) -> None:
        if (peer := self._network.nodes.get(address)) is None:
            self.deliver.send_nowait(DatagramRefused(address))
        else:
            peer.datagrams.deliver.send_nowait((data, self._own))

    async def receive(self) -> tuple[bytes, Address]:
        arrived = await self._inbound.receive()
        if isinstance(arrived, DatagramRefused):
            raise arrived
        return arrived


class FakeLinks:
    def __init__(self, network: FakeNetwork, own: Identity) -> None:
        self._network, self._own = network, own
        self.handlers: dict[type, Any] = {}
        self.service: MembershipService

    def handle(self, kind: type, handler: Any) -> None:
        assert kind not in self.handlers
        self.handlers[kind] = handler

    async def request(
        self, node: NodeId, message: Message, reply: type[Any], timeout_s: float
    ) -> Any:
        target = self.service.resolve(node)
        peer = None if target is None else self._network.nodes.get(target)
        if peer is None:
            self.service.report_refused(node)
            raise NodeUnreachable("nobody listens there")
        return await self._ask(peer, message)

    async def request_address(
        self, address: Address, message: Message, reply: type[Any], timeout_s: float
    ) -> tuple[Peer, Any]:
        peer = self._network.nodes.get(address)
        if peer is None:
            raise NodeUnreachable("nobody listens there")
        return peer.as_peer, await self._ask(peer, message)

    async def notify(self, node: NodeId, message: Message) -> None:
        await self.request(node, message, Message, 1)

    async def _ask(self, peer: Node, message: Message) -> Any:
        await trio.sleep(0.001)
        me = Peer(
            self._own.node_id, self._own.public_key, frozenset(), 1, Address("10.0.0.1", 50000)
        )
        return await peer.links.handlers[type(message)](me, message)


class Node:
    """One service with its fakes."""

    def __init__(
        self,
        network: FakeNetwork,
        number: int,
        *,
        join: tuple[int, ...] = (),
        cluster: Cluster = CLUSTER,
    ) -> None:
        self.number = number
        self.network = network
        self.metrics = Metrics()
        self.links = FakeLinks(network, identity(number))
        self.datagrams = FakeDatagrams(network, address(number))
        rng = random.Random(number)
        nothing: Any = None
        env = Env(
            network=nothing, disk=nothing, workers=nothing,
            wall_time=lambda: 1_800_000_000.0 + trio.current_time(),
            entropy=rng.randbytes, rng=rng,
        )  # fmt: skip
        config = NodeConfig(
            home=PurePath("/nowhere"),
            name=f"node-{number}",
            listen=address(number),
            join=tuple(address(seed) for seed in join),
        )
        links: Any = self.links
        self.service = MembershipService(
            env, config, identity(number), cluster, links, self.metrics
        )
        self.links.service = self.service
        self.scope = trio.CancelScope()

    @property
    def as_peer(self) -> Peer:
        own = identity(self.number)
        return Peer(own.node_id, own.public_key, frozenset(), 1, address(self.number))

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        self.network.nodes[address(self.number)] = self
        with self.scope:
            await self.service.run(self.datagrams, address(self.number), task_status=task_status)
        del self.network.nodes[address(self.number)]

    def live(self) -> int:
        return sum(member.is_live for member in self.service.members())


@asynccontextmanager
async def cluster_of(count: int) -> AsyncIterator[tuple[FakeNetwork, list[Node], trio.Nursery]]:
    network = FakeNetwork()
    nodes = [Node(network, n, join=(0,) if n else ()) for n in range(count)]
    async with trio.open_nursery() as nursery:
        for node in nodes:
            await nursery.start(node.run)
            node.service.set_active()
        await until(lambda: all(node.live() == count for node in nodes))
        yield network, nodes, nursery
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool], limit_s: float = 30) -> None:
    with trio.fail_after(limit_s):
        while not condition():  # noqa: ASYNC110 - any condition, on virtual time
            await trio.sleep(0.05)


async def test_nodes_join_and_see_one_ring(autojump_clock: trio.testing.MockClock) -> None:
    async with cluster_of(5) as (_, nodes, _nursery):
        await until(lambda: all(len(node.service.ring.members) == 5 for node in nodes))
        assert len({node.service.ring.epoch for node in nodes}) == 1
        assert all(node.service.joined.is_set() for node in nodes)
        assert nodes[1].service.resolve(node_id(4)) == address(4)
        assert nodes[1].service.is_alive(node_id(4))


async def test_a_lone_node_has_no_port_and_is_its_own_ring(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    node = Node(FakeNetwork(), 0)
    assert node.service.members() == ()
    await nursery.start(node.service.run, None, None)
    assert node.service.joined.is_set()
    assert list(node.service.ring.members) == []
    node.service.set_active()
    assert list(node.service.ring.members) == [node_id(0)]
    assert node.service.resolve(node_id(0)) is None
    await node.service.leave()
    assert list(node.service.ring.members) == []


async def test_a_joining_node_owns_no_keys_until_it_is_active(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster_of(2) as (network, nodes, nursery):
        newcomer = Node(network, 2, join=(1,))
        await nursery.start(newcomer.run)
        await until(lambda: nodes[0].live() == 3)
        ring = nodes[0].service.ring
        assert len(ring.members) == 2
        newcomer.service.set_active()
        await until(lambda: len(nodes[0].service.ring.members) == 3)


async def test_a_killed_node_is_found_dead_and_leaves_the_ring(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster_of(3) as (_, nodes, _nursery):
        killed_at = trio.current_time()
        nodes[2].scope.cancel()
        await until(lambda: [nodes[0].live(), nodes[1].live()] == [2, 2])
        assert trio.current_time() - killed_at < 4
        await until(lambda: len(nodes[0].service.ring.members) == 2)
        member = nodes[0].service.member(node_id(2))
        assert member is not None
        assert member.state == "dead"
        assert not nodes[0].service.is_alive(node_id(2))


async def test_a_node_that_leaves_has_told_the_others_when_leave_returns(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with cluster_of(4) as (_, nodes, _nursery):
        await trio.sleep(5)
        left_at = trio.current_time()
        await nodes[3].service.leave()
        nodes[3].scope.cancel()
        assert trio.current_time() - left_at <= 1.5
        await until(lambda: all(node.live() == 3 for node in nodes[:3]), limit_s=3)
        await trio.sleep(30)
        states = [node.service.member(node_id(3)) for node in nodes[:3]]
        assert [member and member.state for member in states] == ["left"] * 3


async def test_wait_change_wakes_at_each_change(autojump_clock: trio.testing.MockClock) -> None:
    async with cluster_of(2) as (network, nodes, nursery):
        await trio.sleep(5)
        seen = nodes[0].service.version
        await nursery.start(Node(network, 2, join=(1,)).run)
        with trio.fail_after(5):
            assert await nodes[0].service.wait_change(seen) > seen
        assert nodes[0].service.version == await nodes[0].service.wait_change(seen)


async def test_garbage_is_dropped_and_counted(autojump_clock: trio.testing.MockClock) -> None:
    async with cluster_of(2) as (_, nodes, _nursery):
        inbox, source = nodes[0].datagrams.deliver, Address("10.9.9.9", 1)
        sealed = CLUSTER.seal(b"\xa1", random.Random(1).randbytes)
        for data in (b"", b"x", bytes(500), sealed, bytes(3000)):
            await inbox.send((data, source))
        await trio.sleep(1)
        assert nodes[0].metrics.value("datagrams_unsealed") == 3
        assert nodes[0].metrics.value("datagrams_malformed") == 2
        assert nodes[0].live() == 2


async def test_a_node_with_another_secret_learns_and_changes_nothing(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with cluster_of(2) as (network, nodes, nursery):
        stranger = Node(network, 2, join=(0,), cluster=OTHER_SECRET)
        await nursery.start(stranger.run)
        await trio.sleep(10)
        assert stranger.live() == 1
        assert nodes[0].live() == 2
        assert not stranger.service.joined.is_set()
        assert "different clusters" in caplog.text


async def test_a_seed_whose_other_seeds_are_gone_joins_through_who_called_it(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    network = FakeNetwork()
    seed, caller = Node(network, 0, join=(0, 9)), Node(network, 1, join=(0, 9))
    await nursery.start(seed.run)
    await trio.sleep(10)
    assert not seed.service.joined.is_set()
    await nursery.start(caller.run)
    with trio.fail_after(5):
        await caller.service.joined.wait()
        await seed.service.joined.wait()
    nursery.cancel_scope.cancel()


async def test_a_seed_that_is_not_there_yet_is_awaited_with_a_warning(
    autojump_clock: trio.testing.MockClock,
    nursery: trio.Nursery,
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = FakeNetwork()
    early, late = Node(network, 1, join=(0,)), Node(network, 0)
    await nursery.start(early.run)
    await trio.sleep(10)
    assert not early.service.joined.is_set()
    assert caplog.text.count("cannot be joined") == 1
    await nursery.start(late.run)
    with trio.fail_after(5):
        await early.service.joined.wait()
    assert early.live() == 2
    nursery.cancel_scope.cancel()
