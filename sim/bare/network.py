"""The network between bare nodes: datagrams, and the packets that links are made of.

Impairments and the profile of links are those of whole nodes (`sim.impairment`,
`sim.network`). Chance has one stream a sending host, so that memory does not grow with the
square of the hosts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Protocol

from gossipcache.ids import Address
from sim.bare.timeline import Timeline
from sim.bare.trace import BareTrace
from sim.impairment import Impairment
from sim.network import LinkProfile


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
        profile = self.profile
        arrives = self.timeline.now + profile.latency_s + profile.jitter_s * source.rng.random()
        if self._impairments:
            self._send_over_bad_links(source, address, sealed, size, arrives)
        else:
            self.timeline.push(arrives, self._arrive, source, address, sealed, size)

    def _send_over_bad_links(
        self, source: BareHost, address: Address, sealed: Any, size: int, arrives: float
    ) -> None:
        one, other = source.address.host, address.host
        if self.is_cut(one, other):
            return
        arrives += self._extra_delay_s(one, other)
        jitter_s = self.profile.jitter_s
        for _ in range(2 if self._is_doubled(source, other) else 1):
            if not self._is_lost(source, other):
                self.timeline.push(arrives, self._arrive, source, address, sealed, size)
            arrives += jitter_s * source.rng.random()

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
            self.control(host, source, source.refuse, address)
        else:
            host.process.receive(sealed, source.address)

    # Packets of links.

    def control(
        self, source: BareHost, target: BareHost, work: Callable[..., None], *args: Any
    ) -> None:
        """A packet without payload (SYN, RST, ICMP); a cut swallows it, a loss too."""
        one, other = source.address.host, target.address.host
        if not self.is_cut(one, other) and not self._is_lost(source, other):
            self.timeline.push(self.arrival(source, target, 64), work, *args)

    def reliable(
        self, source: BareHost, target: BareHost, size: int, work: Callable[..., None], *args: Any
    ) -> None:
        """A segment of a stream: lost, it comes later, each time twice as much."""
        late_s, wait_s = 0.0, self.profile.retransmission_s
        while self._is_lost(source, target.address.host):
            late_s += wait_s
            wait_s *= 2
        self.timeline.push(self.arrival(source, target, size) + late_s, work, *args)

    def arrival(self, source: BareHost, target: BareHost, size: int) -> float:
        """When `size` bytes sent now arrive; books the uplink and the downlink."""
        profile, now = self.profile, self.timeline.now
        needed_s = size / profile.host_bytes_per_s
        source.uplink_free_at = max(now, source.uplink_free_at) + needed_s
        arrives = source.uplink_free_at + profile.latency_s + profile.jitter_s * source.rng.random()
        arrives += self._extra_delay_s(source.address.host, target.address.host)
        target.downlink_free_at = max(arrives, target.downlink_free_at + needed_s)
        return target.downlink_free_at

    def is_cut(self, source: str, target: str) -> bool:
        """Whether nothing passes from `source` to `target`."""
        for each in self._impairments:
            if each.loss >= 1.0 and each.covers(source, target):
                each.bit += 1
                return True
        return False

    def _is_lost(self, source: BareHost, target: str) -> bool:
        return any(
            0.0 < each.loss < 1.0 and self._strikes(each, each.loss, source, target)
            for each in self._impairments
        )

    def _is_doubled(self, source: BareHost, target: str) -> bool:
        return any(
            each.duplication > 0.0 and self._strikes(each, each.duplication, source, target)
            for each in self._impairments
        )

    def _strikes(self, each: Impairment, chance: float, source: BareHost, target: str) -> bool:
        struck = each.covers(source.address.host, target) and source.rng.random() < chance
        each.bit += struck
        return struck

    def _extra_delay_s(self, source: str, target: str) -> float:
        delay_s = 0.0
        for each in self._impairments:
            if each.delay_s and each.covers(source, target):
                each.bit += 1
                delay_s += each.delay_s
        return delay_s
