"""What makes links worse, in the terms of Linux's netem: loss, delay, rate, duplication, …"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Carrier = Literal["datagram", "stream"]
Draw = Callable[[], float]
"""A random number from 0 to 1, of the link's own stream."""


class Packet(NamedTuple):
    """A datagram or a segment of a stream, and the direction it goes."""

    source: str
    target: str
    size: int
    carrier: Carrier

    @property
    def link(self) -> tuple[str, str]:
        """The direction as a key."""
        return self.source, self.target


@dataclass(frozen=True, slots=True)
class Burst:
    """Loss by the model of Gilbert (1960) and Elliott (1963): a link is good or bad; a packet
    makes it bad with `enter`, good with `exit`, and is lost with `loss` while it is bad."""

    enter: float
    exit: float
    loss: float


@dataclass(slots=True, eq=False)
class Impairment:
    """Makes some links worse. `loss` 1.0 cuts them. None stands for every host or carrier."""

    sources: frozenset[str] | None = None
    targets: frozenset[str] | None = None
    loss: float = 0.0
    delay_s: float = 0.0
    duplication: float = 0.0
    carrier: Carrier | None = None
    burst: Burst | None = None
    jitter_s: float = 0.0
    """Up to this much more delay for each packet."""
    echo_s: float = 0.0
    """How much later the second copy of a duplicated datagram comes."""
    corruption: float = 0.0
    """The share of datagrams that arrive with a bit flipped."""
    reordering: float = 1.0
    """The share of packets that `jitter_s` holds back."""
    bytes_per_s: float = 0.0
    """All that it covers is shaped to this rate; 0: it is not."""
    queue_s: float | None = None
    """A datagram that would wait longer than this for the rate is lost, and streams do not make
    datagrams wait; None: one endless queue for both."""
    mtu_bytes: int = 0
    """Larger packets vanish; 0: none do."""
    is_cut: bool = True
    """Whether a `loss` of 1.0 stands at the moment (a flapping one comes and goes)."""
    bit: int = 0
    """How many segments and datagrams it changed."""
    _bad: dict[tuple[str, str], bool] = field(default_factory=dict)
    _free_at: dict[Carrier, float] = field(default_factory=dict)

    def covers(self, source: str, target: str) -> bool:
        """Whether it applies to the direction `source` → `target`."""
        return (self.sources is None or source in self.sources) and (
            self.targets is None or target in self.targets
        )

    def meets(self, packet: Packet) -> bool:
        """Whether it applies to this packet."""
        return self.carrier in (None, packet.carrier) and self.covers(packet.source, packet.target)

    def cuts(self, packet: Packet) -> bool:
        """Whether such a packet never passes while this stands, however often it is sent."""
        if self.loss >= 1.0:
            return self.is_cut
        return 0 < self.mtu_bytes < packet.size

    def loses(self, packet: Packet, draw: Draw, now: float) -> bool:
        """Whether this one is lost by chance, or for want of room in a queue."""
        if 0.0 < self.loss < 1.0 and draw() < self.loss:
            return True
        if self.queue_s is not None and packet.carrier == "datagram":
            return self._free_at.get("datagram", 0.0) - now > self.queue_s
        return self.burst is not None and self._loses_in_burst(self.burst, packet, draw)

    def delays_s(self, packet: Packet, draw: Draw, now: float) -> float:
        """How much later it arrives; books its place in the queue."""
        delay_s = self.delay_s
        if self.jitter_s and (self.reordering >= 1.0 or draw() < self.reordering):
            delay_s += self.jitter_s * draw()
        if self.bytes_per_s:
            lane: Carrier = "stream" if self.queue_s is None else packet.carrier
            starts = max(now, self._free_at.get(lane, 0.0))
            self._free_at[lane] = starts + packet.size / self.bytes_per_s
            delay_s += self._free_at[lane] - now
        return delay_s

    def _loses_in_burst(self, burst: Burst, packet: Packet, draw: Draw) -> bool:
        bad = self._bad.get(packet.link, False)
        bad = draw() >= burst.exit if bad else draw() < burst.enter
        self._bad[packet.link] = bad
        return bad and draw() < burst.loss
