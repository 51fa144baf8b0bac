"""The network between bare nodes: datagrams, and the packets that links are made of.

Impairments and the profile of links are those of whole nodes (`sim.network.impairment`,
`sim.network.fabric`). Chance has one stream a sending host, so that memory does not grow with the
square of the hosts.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from gossipcache.ids import Address
from sim.bare.timeline import Timeline
from sim.bare.trace import BareTrace
from sim.network.fabric import LinkProfile
from sim.network.impairment import Carrier, Draw, Impairment, Packet

_OVERHEAD_BYTES = 28
_CONTROL_BYTES = 64
_SEGMENT_BYTES = 1500


class Listener(Protocol):
    """A process, as its host sees it."""

    def receive(self, sealed: Any, source: Address) -> None:
        """Takes in a datagram."""

    def refused(self, address: Address) -> None:
        """A datagram sent to `address` found nobody there."""


class BareHost:
    """One host: its kernel answers for the process on it, or for its absence."""

    def __init__(self, number: int, address: Address, rng: random.Random) -> None:
        self.number = number
        self.address = address
        self.rng = rng
        self.is_silent = False
        """Whether the machine is off, so that not even its kernel answers."""
        self.process: Listener | None = None
        """What listens here; None where nothing does."""
        self.missed = 0
        """What was sent to it in vain."""
        self.uplink_free_at = 0.0
        self.downlink_free_at = 0.0
        self.datagrams_sent = 0
        self.datagram_bytes_sent = 0
        self.link_bytes_sent = 0

    def refuse(self, address: Address) -> None:
        """An ICMP error arrived: nobody listens at `address`."""
        if self.process is not None:
            self.process.refused(address)


class BareNetwork:
    """All hosts and what passes between them."""

    def __init__(
        self,
        timeline: Timeline,
        trace: BareTrace,
        profile: LinkProfile | None = None,
    ) -> None:
        self.timeline = timeline
        self.trace = trace
        self.profile = profile or LinkProfile()
        self.hosts: dict[str, BareHost] = {}
        self.link_bytes: Counter[str] = Counter()
        """What went over links, by the kind of message."""
        self._impairments: list[Impairment] = []

    def add(self, host: BareHost) -> None:
        """From now on `host` is at its address."""
        self.hosts[host.address.host] = host

    def remove(self, host: BareHost) -> None:
        """Nothing is at the host's address any more."""
        if self.hosts.get(host.address.host) is host:
            del self.hosts[host.address.host]

    def impair(self, impairment: Impairment) -> None:
        """Applies an impairment from now on."""
        self._impairments.append(impairment)

    def repair(self, impairment: Impairment) -> None:
        """Ends an impairment."""
        self._impairments.remove(impairment)

    # Datagrams.

    def send(self, source: BareHost, address: Address, sealed: Any, size: int) -> None:
        """Sends one datagram; it takes the latency of the link, not its bandwidth."""
        source.datagrams_sent += 1
        source.datagram_bytes_sent += size
        if self._impairments:
            self._send_over_bad_links(source, address, sealed, size)
            return
        profile, timeline = self.profile, self.timeline
        arrives = timeline.now + profile.latency_s + profile.jitter_s * source.rng.random()
        timeline.push(arrives, self._arrive, source, address, sealed, size)

    def _send_over_bad_links(
        self, source: BareHost, address: Address, sealed: Any, size: int
    ) -> None:
        packet = Packet(source.address.host, address.host, size + _OVERHEAD_BYTES, "datagram")
        draw, profile, now = source.rng.random, self.profile, self.timeline.now
        met = self._met_by(packet)
        if _is_cut(met, packet):
            return
        for echo_s in (0.0, *_echoes(met, draw)):
            lost = _is_lost(met, packet, draw, now)
            late_s = _late_s(met, packet, draw, now) + echo_s
            arrives = now + profile.latency_s + profile.jitter_s * draw() + late_s
            if not lost and not _is_spoilt(met, draw):
                self.timeline.push(arrives, self._arrive, source, address, sealed, size)

    def _arrive(self, source: BareHost, address: Address, sealed: Any, size: int) -> None:
        host = self.hosts.get(address.host)
        if host is None:
            return
        if host.is_silent:
            host.missed += 1
            return
        self.trace.record("datagram", source.number, host.number, size, sealed)
        if host.process is None or host.address.port != address.port:
            host.missed += 1
            self.control(host, source, "datagram", source.refuse, address)
        else:
            host.process.receive(sealed, source.address)

    # Packets of links.

    def control(
        self,
        source: BareHost,
        target: BareHost,
        carrier: Carrier,
        work: Callable[..., None],
        *args: Any,
    ) -> None:
        """A packet without payload (SYN, RST, ICMP); a cut swallows it, a loss too."""
        packet = Packet(source.address.host, target.address.host, _CONTROL_BYTES, carrier)
        met = self._met_by(packet)
        if not _is_cut(met, packet) and not _is_lost(
            met, packet, source.rng.random, self.timeline.now
        ):
            self.timeline.push(self._arrival(source, target, packet, met), work, *args)

    def reliable(
        self, source: BareHost, target: BareHost, size: int, work: Callable[..., None], *args: Any
    ) -> None:
        """A message of a stream: a lost segment comes later, each time twice as much."""
        packet = Packet(source.address.host, target.address.host, size, "stream")
        late_s, wait_s = 0.0, self.profile.retransmission_s
        met = self._met_by(packet)
        while _is_lost(met, packet, source.rng.random, self.timeline.now):
            late_s += wait_s
            wait_s *= 2
        self.timeline.push(self._arrival(source, target, packet, met) + late_s, work, *args)

    def is_cut(self, source: BareHost, target: BareHost, size: int = _CONTROL_BYTES) -> bool:
        """Whether no segment of such a message passes at the moment."""
        segment = min(size, _SEGMENT_BYTES)
        packet = Packet(source.address.host, target.address.host, segment, "stream")
        return _is_cut(self._met_by(packet), packet)

    def _arrival(
        self, source: BareHost, target: BareHost, packet: Packet, met: list[Impairment]
    ) -> float:
        """When what is sent now arrives; books the uplink and the downlink."""
        profile, now, draw = self.profile, self.timeline.now, source.rng.random
        needed_s = packet.size / profile.host_bytes_per_s
        source.uplink_free_at = max(now, source.uplink_free_at) + needed_s
        target.downlink_free_at = max(now, target.downlink_free_at) + needed_s
        free_at = max(source.uplink_free_at, target.downlink_free_at)
        delay_s = profile.latency_s + profile.jitter_s * draw()
        delay_s += _late_s(met, packet, draw, now)
        return free_at + delay_s

    def _met_by(self, packet: Packet) -> list[Impairment]:
        return [each for each in self._impairments if each.meets(packet)]


def _is_cut(met: list[Impairment], packet: Packet) -> bool:
    for each in met:
        if each.cuts(packet):
            each.bit += 1
            return True
    return False


def _is_lost(met: list[Impairment], packet: Packet, draw: Draw, now: float) -> bool:
    for each in met:
        if each.loses(packet, draw, now):
            each.bit += 1
            return True
    return False


def _is_spoilt(met: list[Impairment], draw: Draw) -> bool:
    """A datagram with a flipped bit is one that no secret opens: it might as well be lost."""
    for each in met:
        if each.corruption and draw() < each.corruption:
            each.bit += 1
            return True
    return False


def _echoes(met: list[Impairment], draw: Draw) -> list[float]:
    found: list[float] = []
    for each in met:
        if each.duplication and draw() < each.duplication:
            each.bit += 1
            found.append(each.echo_s)
    return found


def _late_s(met: list[Impairment], packet: Packet, draw: Draw, now: float) -> float:
    late_s = 0.0
    for each in met:
        if by_s := each.delays_s(packet, draw, now):
            each.bit += 1
            late_s += by_s
    return late_s
