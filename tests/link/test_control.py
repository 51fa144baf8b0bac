"""Connections over time: idle ones go, half-open ones are found."""

from __future__ import annotations

import pytest
import trio

from gossipcache.errors import NodeUnreachable, TimedOut
from gossipcache.link.admission import Antechamber, Stranger
from tests.link.harness import LinkNode, env_over, make_node, serving
from tests.link.memory import MemoryNetwork


def two_nodes() -> tuple[MemoryNetwork, LinkNode, LinkNode]:
    network = MemoryNetwork()
    env = env_over(network)
    return network, make_node(1, env=env), make_node(2, env=env)


async def test_an_idle_connection_is_closed_and_made_anew(autojump_clock: object) -> None:
    network, one, two = two_nodes()
    async with serving(one, two, network=network):
        await one.ask(two)
        await trio.sleep(100)
        assert two.metrics.value("link_opened") == 1
        await one.ask(two)
        assert two.metrics.value("link_opened") == 2
    assert one.refused == two.refused == []


async def test_a_long_request_keeps_its_connection(autojump_clock: object) -> None:
    network, one, two = two_nodes()
    async with serving(one, two, network=network), trio.open_nursery() as nursery:

        async def wait() -> None:
            with trio.move_on_after(200):
                await one.ask(two, "sleep", timeout_s=1000)

        nursery.start_soon(wait)
        await trio.sleep(150)
        await one.ask(two)
        assert two.metrics.value("link_opened") == 1


async def test_a_half_open_connection_is_noticed(autojump_clock: object) -> None:
    network, one, two = two_nodes()
    async with serving(one, two, network=network):
        await one.ask(two)
        for end in network.streams[0]:
            end.frozen = True
        begun_at = trio.current_time()
        with pytest.raises(NodeUnreachable):
            await one.ask(two, timeout_s=100)
        assert trio.current_time() - begun_at < 30
        assert one.refused == [two.node_id]
        assert await one.ask(two) == "HI"


async def test_a_half_open_connection_is_noticed_by_short_requests(
    autojump_clock: object,
) -> None:
    network, one, two = two_nodes()
    async with serving(one, two, network=network):
        await one.ask(two)
        for end in network.streams[0]:
            end.frozen = True
        with pytest.raises(TimedOut):
            await one.ask(two, timeout_s=1)
        await trio.sleep(30)
        assert one.refused == [two.node_id]


async def test_a_node_that_dies_is_noticed_at_once(autojump_clock: object) -> None:
    network, one, two = two_nodes()
    async with serving(one, two, network=network), trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(NodeUnreachable):
                await one.ask(two, "sleep", timeout_s=100)

        begun_at = trio.current_time()
        nursery.start_soon(ask)
        await two.started.wait()
        # As the kernel does for a killed process: no goodbye.
        await network.streams[0][1].aclose()
        await two.cancelled.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert one.refused == [two.node_id]
        assert trio.current_time() - begun_at < 1


async def test_a_node_that_leaves_in_order_raises_no_suspicion() -> None:
    network, one, two = two_nodes()
    async with serving(one, network=network):
        async with serving(two, network=network):
            one.knows(two)
            await one.ask(two)
        await trio.testing.wait_all_tasks_blocked()
        assert one.refused == []


def test_the_antechamber_evicts_the_oldest_of_the_largest_crowd() -> None:
    evicted: list[str] = []
    room = Antechamber(limit=4, limit_per_host=3)

    def stranger(host: str, name: str) -> Stranger:
        return Stranger(host, lambda: evicted.append(name))

    assert not any(room.enter(stranger("a", f"a{number}")) for number in range(3))
    assert room.enter(stranger("a", "a3"))
    last = stranger("b", "b0")
    assert not room.enter(last)
    assert room.enter(stranger("c", "c0"))
    assert evicted == ["a0", "a1"]
    assert len(room) == 4
    room.leave(last)
    room.leave(last)
    assert len(room) == 3


async def test_a_connection_that_rests_sends_nothing(autojump_clock: object) -> None:
    network, one, two = two_nodes()
    async with serving(one, two, network=network):
        await one.ask(two)
        sent = [len(end.sent) for end in network.streams[0]]
        await trio.sleep(55)
        assert [len(end.sent) for end in network.streams[0]] == sent
        assert two.metrics.value("link_opened") == 1
