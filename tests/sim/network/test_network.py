"""What the simulated network does beyond the contract: it is slow, loses, splits and dies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from gossipcache.env import ByteStream, DatagramRefused, Port
from gossipcache.ids import Address
from sim.kernel import engine
from sim.kernel.clock import SimClock
from sim.kernel.entropy import Streams
from sim.network.fabric import Fabric, LinkProfile, SimHost
from sim.network.impairment import Impairment
from sim.trace import Trace

AT_B = Address("10.0.0.2", 7100)
PROFILE = LinkProfile(latency_s=0.01, jitter_s=0.0, host_bytes_per_s=1e6)


class Pair:
    """Two hosts and a port on the second."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.a: SimHost = fabric.host("10.0.0.1")
        self.b: SimHost = fabric.host("10.0.0.2")

    async def connected(self) -> tuple[ByteStream, ByteStream]:
        port = await self.b.bind(AT_B)
        dialled = await self.a.dial(AT_B)
        return dialled, await port.accept()

    async def ports(self) -> tuple[Port, Port]:
        return await self.a.bind(Address("10.0.0.1", 0)), await self.b.bind(AT_B)


def play(body: Callable[[Pair], Awaitable[None]], seed: int = 1) -> str:
    """Runs `body` in a world of two hosts; the trace's digest."""

    async def main(clock: SimClock, streams: Streams) -> str:
        trace = Trace(clock)
        await body(Pair(Fabric(clock, streams, trace, PROFILE)))
        return trace.close()

    return engine.run(main, seed=seed, limit_s=600)


async def received(stream: ByteStream) -> bytes:
    data = bytearray()
    while part := await stream.receive_some():
        data += part
    return bytes(data)


async def send_and_end(stream: ByteStream, data: bytes) -> None:
    await stream.send_all(data)
    await stream.send_eof()


def test_bytes_take_latency_and_bandwidth() -> None:
    async def body(pair: Pair) -> None:
        one, other = await pair.connected()
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_end, one, bytes(2_000_000))
            assert len(await received(other)) == 2_000_000
        assert trio.current_time() - started == pytest.approx(2.01, rel=0.05)

    play(body)


def test_two_senders_share_the_downlink_of_one_host() -> None:
    async def body(pair: Pair) -> None:
        port = await pair.b.bind(AT_B)
        third = pair.fabric.host("10.0.0.3")
        started = trio.current_time()

        async def send(host: SimHost) -> None:
            await send_and_end(await host.dial(AT_B), bytes(1_000_000))

        async def receive() -> None:
            stream = await port.accept()
            assert len(await received(stream)) == 1_000_000

        async with trio.open_nursery() as nursery:
            for host in (pair.a, third):
                nursery.start_soon(send, host)
                nursery.start_soon(receive)
        assert trio.current_time() - started == pytest.approx(2.0, rel=0.1)

    play(body)


def test_a_lossy_stream_is_late_but_true() -> None:
    async def body(pair: Pair) -> None:
        loss = Impairment(loss=0.3)
        pair.fabric.impair(loss)
        one, other = await pair.connected()
        content = bytes(range(256)) * 8_000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_end, one, content)
            assert await received(other) == content
        assert loss.bit > 0

    play(body)


def test_datagrams_are_lost_and_doubled() -> None:
    async def body(pair: Pair) -> None:
        one, other = await pair.ports()
        pair.fabric.impair(Impairment(loss=0.2, duplication=0.2))
        for number in range(500):
            one.datagrams.send_to(number.to_bytes(2, "big"), other.address)
        seen: list[bytes] = []
        with trio.move_on_after(5):
            while True:
                seen.append((await other.datagrams.receive())[0])
        assert 350 < len(set(seen)) < 450
        assert len(seen) > len(set(seen))

    play(body)


def test_a_partition_holds_streams_and_swallows_datagrams_until_it_heals() -> None:
    async def body(pair: Pair) -> None:
        one, other = await pair.connected()
        cut = Impairment(loss=1.0)
        pair.fabric.impair(cut)
        await one.send_all(b"held")
        with trio.move_on_after(20) as scope:
            await other.receive_some()
        assert scope.cancelled_caught
        pair.fabric.repair(cut)
        assert await other.receive_some() == b"held"
        assert cut.bit > 0

    play(body)


def test_a_cut_can_be_one_way() -> None:
    async def body(pair: Pair) -> None:
        one, other = await pair.connected()
        pair.fabric.impair(Impairment(frozenset({pair.a.ip}), frozenset({pair.b.ip}), loss=1.0))
        await other.send_all(b"through")
        assert await one.receive_some() == b"through"
        await one.send_all(b"not through")
        with trio.move_on_after(20) as scope:
            await other.receive_some()
        assert scope.cancelled_caught

    play(body)


def test_a_dial_into_a_partition_gives_up_or_gets_through_when_it_heals() -> None:
    async def body(pair: Pair) -> None:
        await pair.b.bind(AT_B)
        cut = Impairment(loss=1.0)
        pair.fabric.impair(cut)
        with pytest.raises(TimeoutError):
            await pair.a.dial(AT_B)
        pair.fabric.clock.call_later(2.0, pair.fabric.repair, cut)
        await pair.a.dial(AT_B)

    play(body)


def test_a_killed_process_hangs_up_and_is_refused() -> None:
    async def body(pair: Pair) -> None:
        one, other = await pair.connected()
        await other.send_all(b"last words")
        pair.b.kill(silent=False)
        assert await received(one) == b"last words"
        with pytest.raises(ConnectionRefusedError):
            await pair.a.dial(AT_B)
        mine = await pair.a.bind(Address("10.0.0.1", 0))
        mine.datagrams.send_to(b"?", AT_B)
        with pytest.raises(DatagramRefused):
            await mine.datagrams.receive()
        assert pair.b.missed >= 2

    play(body)


def test_sending_to_a_killed_process_is_answered_by_a_reset() -> None:
    async def body(pair: Pair) -> None:
        one, _ = await pair.connected()
        pair.b.kill(silent=False)
        await one.send_all(b"x")
        await trio.sleep(1)
        with pytest.raises(trio.BrokenResourceError):
            await one.send_all(b"x")

    play(body)


def test_unread_bytes_turn_a_hang_up_into_a_reset() -> None:
    async def body(pair: Pair) -> None:
        one, other = await pair.connected()
        await one.send_all(b"never read")
        await trio.sleep(1)
        await other.aclose()
        await trio.sleep(1)
        with pytest.raises(trio.BrokenResourceError):
            await one.receive_some()

    play(body)


def test_a_machine_without_power_says_nothing_and_its_next_life_resets() -> None:
    async def body(pair: Pair) -> None:
        one, _ = await pair.connected()
        pair.b.kill(silent=True)
        await one.send_all(b"x")
        with trio.move_on_after(100) as scope:
            await one.receive_some()
        assert scope.cancelled_caught
        with pytest.raises(TimeoutError):
            await pair.a.dial(AT_B)
        pair.fabric.host(pair.b.ip)
        await trio.sleep(2)
        with pytest.raises(trio.BrokenResourceError):
            await one.receive_some()

    play(body)


async def _chatter(pair: Pair) -> None:
    pair.fabric.impair(Impairment(loss=0.1))
    one, other = await pair.connected()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_and_end, one, bytes(500_000))
        await received(other)


def test_the_digest_is_the_seeds() -> None:
    assert play(_chatter, 1) == play(_chatter, 1)
    assert play(_chatter, 1) != play(_chatter, 2)
