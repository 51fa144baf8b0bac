"""Each way in which links get worse, on two hosts."""

from __future__ import annotations

import pytest
import trio

from gossipcache.env import Port
from sim.network.impairment import Burst, Impairment
from tests.sim.network.test_network import AT_B, Pair, play, received, send_and_end

COUNT = 400


async def _sent(pair: Pair, impairment: Impairment, size: int = 8) -> list[tuple[float, bytes]]:
    """What arrives, and when, of COUNT numbered datagrams, one a millisecond."""
    one, other = await pair.ports()
    pair.fabric.impair(impairment)
    seen: list[tuple[float, bytes]] = []

    async def send(port: Port) -> None:
        for number in range(COUNT):
            port.datagrams.send_to(number.to_bytes(size, "big"), AT_B)
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, one)
        with trio.move_on_after(30):
            while True:
                data, _ = await other.datagrams.receive()
                seen.append((trio.current_time(), data))
    return seen


def test_bursty_loss_takes_packets_in_a_row() -> None:
    async def body(pair: Pair) -> None:
        seen = await _sent(pair, Impairment(burst=Burst(enter=0.02, exit=0.2, loss=1.0)))
        there = {int.from_bytes(data, "big") for _, data in seen}
        lost = [number for number in range(COUNT) if number not in there]
        in_a_row = sum(number - 1 not in there for number in lost[1:])
        assert 10 < len(lost) < COUNT // 2
        assert in_a_row > len(lost) / 2

    play(body)


def test_replayed_datagrams_come_again_later() -> None:
    async def body(pair: Pair) -> None:
        seen = await _sent(pair, Impairment(duplication=0.1, echo_s=10.0))
        first: dict[bytes, float] = {}
        late = [at - first[data] for at, data in seen if first.setdefault(data, at) < at]
        assert len(late) > 10
        assert all(gap == pytest.approx(10.0, abs=0.1) for gap in late)

    play(body)


def test_reordered_datagrams_are_overtaken() -> None:
    async def body(pair: Pair) -> None:
        held = Impairment(carrier="datagram", reordering=0.2, jitter_s=0.1)
        seen = [data for _, data in await _sent(pair, held)]
        assert len(seen) == COUNT
        assert seen != sorted(seen)

    play(body)


def test_a_corrupted_datagram_differs_in_one_bit() -> None:
    async def body(pair: Pair) -> None:
        spoilt = Impairment(corruption=0.2)
        seen = [data for _, data in await _sent(pair, spoilt)]
        sent = {number.to_bytes(8, "big") for number in range(COUNT)}
        assert len(seen) == COUNT
        assert spoilt.bit == pytest.approx(80, abs=30)
        assert sum(data not in sent for data in seen) > 10

    play(body)


def test_a_short_queue_drops_what_a_long_one_delays() -> None:
    rate = 10_000.0  # half of what is sent

    async def capped(pair: Pair) -> None:
        seen = await _sent(pair, Impairment(bytes_per_s=rate, queue_s=0.05))
        assert len(seen) < COUNT * 0.9

    async def bloated(pair: Pair) -> None:
        seen = await _sent(pair, Impairment(bytes_per_s=rate))
        assert len(seen) == COUNT
        assert seen[-1][0] > 0.8

    play(capped)
    play(bloated)


def test_a_black_hole_swallows_what_is_large() -> None:
    async def body(pair: Pair) -> None:
        hole = Impairment(mtu_bytes=1000)
        assert await _sent(pair, hole, size=1200) == []
        one = await pair.a.dial(AT_B)
        await one.send_all(bytes(5_000))
        await trio.sleep(1.0)
        assert hole.bit > COUNT

    play(body)


def test_one_carrier_can_be_blocked_alone() -> None:
    async def body(pair: Pair) -> None:
        assert await _sent(pair, Impairment(loss=1.0, carrier="datagram")) == []
        one = await pair.a.dial(AT_B)
        await one.send_all(b"through")

    play(body)


def test_a_forgotten_connection_carries_nothing_and_a_new_one_does() -> None:
    async def body(pair: Pair) -> None:
        port = await pair.b.bind(AT_B)
        old = await pair.a.dial(AT_B)
        await port.accept()
        (stream,) = pair.a.streams
        swallowed = stream.forget()
        await old.send_all(b"lost")
        new = await pair.a.dial(AT_B)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_end, new, b"there")
            assert await received(await port.accept()) == b"there"
        assert swallowed() == 1

    play(body)


def test_a_reset_cuts_a_message_in_two() -> None:
    async def body(pair: Pair) -> None:
        one, other = await pair.connected()
        pair.a.resets_due = 1
        with pytest.raises(trio.BrokenResourceError):
            await one.send_all(b"halves")
        assert await other.receive_some() == b"hal"
        with pytest.raises(trio.BrokenResourceError):
            await other.receive_some()
        assert (pair.a.resets_due, pair.a.resets_done) == (0, 1)

    play(body)


def test_a_full_backlog_leaves_dials_unanswered() -> None:
    async def body(pair: Pair) -> None:
        await pair.b.bind(AT_B)
        pair.b.backlog_is_full = True
        with pytest.raises(TimeoutError):
            await pair.a.dial(AT_B)
        pair.b.backlog_is_full = False
        await pair.a.dial(AT_B)
        assert pair.b.dials_dropped > 3

    play(body)
