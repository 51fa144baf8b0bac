"""Bandwidth of the piece connections: shared in turn, and bounded at both ends."""

from __future__ import annotations

import random

import pytest

from gossipcache.ids import Address, NodeId
from sim.bare.bulk import QUANTUM_BYTES, BulkChannel, BulkHost, BulkNetwork
from sim.bare.network import BareHost
from sim.bare.timeline import Timeline
from sim.bare.trace import BareTrace

RATE = float(QUANTUM_BYTES)
"""One quantum a second."""
PIECE = 4 * QUANTUM_BYTES


class Bench:
    def __init__(self) -> None:
        self.timeline = Timeline()
        self.network = BulkNetwork(self.timeline, BareTrace(self.timeline), latency_s=0.0)
        self.arrived: list[tuple[float, str, int]] = []
        self.told: list[tuple[float, str, int, float]] = []
        self._number = 0

    def host(self, *, up: float = RATE, down: float = 100 * RATE, uploads: int = 64) -> BulkHost:
        self._number += 1
        address = Address(f"10.0.0.{self._number}", 1)
        return BulkHost(BareHost(self._number, address, random.Random(1)), up, down, uploads)

    def channel(self, name: str, parent: BulkHost, child: BulkHost) -> BulkChannel:
        def received(request_id: int, index: int) -> None:
            self.arrived.append((round(self.timeline.now, 1), name, index))

        node_id = NodeId(child.host.number.to_bytes(16))

        def tell(request_id: int, wait_s: float) -> None:
            self.told.append((round(self.timeline.now, 1), name, request_id, round(wait_s, 1)))

        return BulkChannel(self.network, parent, child, node_id, received, lambda: None, tell)

    def run(self) -> list[tuple[float, str, int]]:
        self.timeline.run_to(1000.0)
        return self.arrived


def test_a_piece_takes_its_size_by_the_rate() -> None:
    bench = Bench()
    bench.channel("a", bench.host(), bench.host()).ask(1, 0, PIECE)
    assert bench.run() == [(4.0, "a", 0)]


def test_channels_of_one_uplink_share_it_alike() -> None:
    bench, parent = Bench(), None
    parent = bench.host()
    for name in ("a", "b"):
        bench.channel(name, parent, bench.host()).ask(1, 0, PIECE)
    assert bench.run() == [(7.0, "a", 0), (8.0, "b", 0)]


def test_who_waits_in_line_is_told_how_long_as_far_as_is_known() -> None:
    bench = Bench()
    parent = bench.host(uploads=1)
    for name in ("a", "b", "c"):
        bench.channel(name, parent, bench.host()).ask(1, 0, PIECE)
    assert bench.run() == [(4.0, "a", 0), (8.0, "b", 0), (12.0, "c", 0)]
    assert [told for told in bench.told if told[1] == "b"] == [
        (2.0, "b", 1, 0.1),
        (4.0, "b", 1, 0.0),
    ]
    about_c = [told for told in bench.told if told[1] == "c"]
    assert about_c[0] == (1.0, "c", 1, 1.0)
    assert about_c[-1] == (8.0, "c", 1, 0.0), "its turn"


def test_pieces_of_one_channel_come_one_after_the_other() -> None:
    bench = Bench()
    channel = bench.channel("a", bench.host(), bench.host())
    for index in (3, 1):
        channel.ask(index, index, PIECE)
    assert bench.run() == [(4.0, "a", 3), (8.0, "a", 1)]


def test_a_slow_child_leaves_the_uplink_to_others() -> None:
    bench = Bench()
    parent = bench.host()
    bench.channel("slow", parent, bench.host(down=RATE / 10)).ask(1, 0, PIECE)
    bench.channel("fast", parent, bench.host()).ask(1, 0, PIECE)
    (fast_at, first, _), (slow_at, _, _) = bench.run()
    assert first == "fast"
    assert fast_at <= 7.0
    assert slow_at >= 40.0


def test_pieces_beyond_the_limit_of_uploads_wait() -> None:
    bench = Bench()
    parent = bench.host(uploads=1)
    for name in ("a", "b"):
        bench.channel(name, parent, bench.host()).ask(1, 0, PIECE)
    assert bench.run() == [(4.0, "a", 0), (8.0, "b", 0)]


def test_a_downlink_takes_in_what_two_parents_send() -> None:
    bench = Bench()
    child = bench.host(down=RATE)
    for name in ("a", "b"):
        bench.channel(name, bench.host(), child).ask(1, 0, PIECE)
    assert [at for at, _, _ in bench.run()] == pytest.approx([8.0, 9.0], abs=1.0)


def test_a_cancelled_request_is_not_sent_and_a_closed_channel_frees_the_uplink() -> None:
    bench = Bench()
    parent = bench.host(uploads=1)
    first = bench.channel("a", parent, bench.host())
    second = bench.channel("b", parent, bench.host())
    first.ask(1, 0, PIECE)
    first.ask(2, 1, PIECE)
    second.ask(1, 0, PIECE)
    assert first.cancel(2)
    assert not first.cancel(1), "it is being sent"
    first.close()
    assert [(name, index) for _, name, index in bench.run()] == [("b", 0)]
