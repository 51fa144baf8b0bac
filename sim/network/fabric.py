"""A network in memory: `gossipcache.env.Network` with latency, bandwidth, loss and cuts.

It stands at the level of the seam (streams and datagrams), not of sockets: the seam is small
and one contract suite holds both sides to it, while everything above it (link, websocket,
handshake) runs unmodified.

`Fabric` joins hosts. A stream is two `Pipe`s; a segment leaves when the sender's uplink is
free, arrives after the latency, and passes the receiver's downlink. Lost segments come late
(a retransmission), never out of order; segments into a cut wait for its end. Datagrams are
lost, delayed and overtaken.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass

import trio

from gossipcache.env import ByteStream, Datagrams, DiskFile
from gossipcache.ids import Address
from sim.kernel.clock import SimClock
from sim.kernel.entropy import Streams
from sim.network.datagrams import SimDatagrams
from sim.network.impairment import Carrier, Draw, Impairment, Packet
from sim.network.pipe import Pipe
from sim.network.stream import SimStream
from sim.trace import Trace

_CONTROL_BYTES = 64
_BACKLOG = 1024
_FIRST_EPHEMERAL_PORT = 32_768
_SYN_RETRY_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


@dataclass(frozen=True, slots=True)
class LinkProfile:
    """What all links are like where no impairment says otherwise: one data centre, with hosts
    slow enough for a fault to strike in the midst of a small transfer."""

    latency_s: float = 0.0005
    jitter_s: float = 0.0001
    host_bytes_per_s: float = 25e6
    """Capacity of a host's uplink, and of its downlink (200 Mbit/s)."""
    retransmission_s: float = 0.2


class Fabric:
    """All hosts and the links between them."""

    def __init__(
        self, clock: SimClock, streams: Streams, trace: Trace, profile: LinkProfile | None = None
    ) -> None:
        self.clock = clock
        self.trace = trace
        self.profile = profile or LinkProfile()
        self.hosts: dict[str, SimHost] = {}
        self._streams = streams
        self._impairments: list[Impairment] = []
        self._stalled: dict[Pipe, None] = {}
        self._links: dict[tuple[str, str], random.Random] = {}

    def host(self, ip: str) -> SimHost:
        """A new host (or a new life of one) at `ip`."""
        host = SimHost(self, ip)
        self.hosts[ip] = host
        self.retry_stalled()
        return host

    def impair(self, impairment: Impairment) -> None:
        """Applies an impairment from now on."""
        self._impairments.append(impairment)

    def repair(self, impairment: Impairment) -> None:
        """Ends an impairment; held segments are sent again."""
        self._impairments.remove(impairment)
        self.retry_stalled()

    def is_cut(self, packet: Packet) -> bool:
        """Whether nothing like `packet` passes at the moment."""
        for each in self._impairments:
            if each.meets(packet) and each.cuts(packet):
                each.bit += 1
                return True
        return False

    def is_lost(self, packet: Packet) -> bool:
        """Whether this segment or datagram is lost by chance. Asked once of each."""
        for each in self._impairments:
            if each.meets(packet) and each.loses(packet, self._draw(packet), self.clock.now):
                each.bit += 1
                return True
        return False

    def echoes(self, packet: Packet) -> list[float]:
        """How much later than this datagram further copies of it arrive."""
        found: list[float] = []
        for each in self._impairments:
            risky = each.duplication > 0.0 and each.meets(packet)
            if risky and self._draw(packet)() < each.duplication:
                each.bit += 1
                found.append(each.echo_s)
        return found

    def spoils(self, packet: Packet, data: bytes) -> bytes:
        """`data` of this datagram as it arrives, perhaps with a bit flipped."""
        for each in self._impairments:
            risky = each.corruption > 0.0 and each.meets(packet)
            if risky and data and self._draw(packet)() < each.corruption:
                each.bit += 1
                at = int(self._draw(packet)() * len(data))
                data = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
        return data

    def arrival(self, source: SimHost, packet: Packet) -> float:
        """When what is sent now arrives; books the uplink and the downlink."""
        rate, draw = self.profile.host_bytes_per_s, self._draw(packet)
        source.sent_bytes[packet.carrier] += packet.size
        source.uplink_free_at = max(self.clock.now, source.uplink_free_at) + packet.size / rate
        delay_s = self.profile.latency_s
        for each in self._impairments:
            if each.meets(packet) and (late_s := each.delays_s(packet, draw, self.clock.now)):
                each.bit += 1
                delay_s += late_s
        delay_s += self.profile.jitter_s * draw()
        arrives = source.uplink_free_at + delay_s
        target = self.hosts.get(packet.target)
        if target is not None:
            # Booked from now, not from the arrival: what is held back on its way delays nobody
            # else. The first byte is not held up by its own size: cut-through, as in a switch.
            busy_until = max(self.clock.now, target.downlink_free_at) + packet.size / rate
            target.downlink_free_at = busy_until
            arrives = max(arrives, busy_until + self.profile.latency_s)
        return arrives

    def control(
        self,
        source: SimHost,
        target_ip: str,
        work: Callable[[], None],
        carrier: Carrier = "stream",
    ) -> None:
        """Sends a packet without payload (SYN, RST, ICMP); a cut swallows it."""
        packet = Packet(source.ip, target_ip, _CONTROL_BYTES, carrier)
        if not self.is_cut(packet) and not self.is_lost(packet):
            self.clock.call_at(self.arrival(source, packet), work)

    def reachable(self, ip: str) -> SimHost | None:
        """The host whose kernel answers at `ip`; None if the machine is off."""
        host = self.hosts.get(ip)
        if host is not None and host.is_silent:
            host.missed += 1
            return None
        return host

    def stall(self, pipe: Pipe) -> None:
        """`pipe` has segments that cannot arrive for now."""
        self._stalled[pipe] = None

    def retry_stalled(self) -> None:
        """Lets what was stalled try again, as retransmission would, within a second."""
        pipes, self._stalled = list(self._stalled), {}
        for pipe in pipes:
            delay_s = self.profile.retransmission_s
            delay_s *= 1 + 4 * self._link(pipe.source.ip, pipe.target_ip).random()
            self.clock.call_later(delay_s, pipe.retry)

    def _draw(self, packet: Packet) -> Draw:
        return self._link(packet.source, packet.target).random

    def _link(self, source: str, target: str) -> random.Random:
        found = self._links.get((source, target))
        if found is None:
            found = self._streams.named(f"link/{source}/{target}")
            self._links[source, target] = found
        return found


class SimHost:
    """One host's network stack: `gossipcache.env.Network`."""

    def __init__(self, fabric: Fabric, ip: str) -> None:
        self.fabric = fabric
        self.ip = ip
        self.ports: dict[int, SimPort] = {}
        self.streams: dict[SimStream, None] = {}
        self.uplink_free_at = 0.0
        self.downlink_free_at = 0.0
        self.is_dead = False
        self.is_silent = False
        self.missed = 0
        """What was sent to it in vain after its death: lost, refused or reset."""
        self.on_serve: Callable[[DiskFile, int, bytes], bytes] = lambda file, offset, data: data
        """Sees (file, offset, bytes) of what leaves straight from a file; gives what is sent."""
        self.backlog_is_full = False
        self.dials_dropped = 0
        """How many dials found the backlog full."""
        self.resets_due = 0
        """How many of its next messages on streams end in a reset."""
        self.resets_done = 0
        self.sent_bytes: dict[Carrier, int] = {"datagram": 0, "stream": 0}
        """All that it ever sent, headers included."""
        self._next_port = _FIRST_EPHEMERAL_PORT

    def kill(self, *, silent: bool) -> None:
        """The process dies. With `silent` the machine is off and nothing answers; else its
        kernel closes the streams (a reset where data was unread) and refuses new ones."""
        self.is_dead = True
        self.is_silent = silent
        for stream in list(self.streams):
            stream.die(silent=silent)
        self.ports.clear()

    def check_alive(self) -> None:
        """Raises `BrokenResourceError` if the process is dead."""
        if self.is_dead:
            raise trio.BrokenResourceError("the simulated process is dead")

    async def bind(self, address: Address) -> SimPort:
        """Listens on this host's address; port 0 picks a free one."""
        await trio.lowlevel.checkpoint()
        self.check_alive()
        if address.host not in (self.ip, "0.0.0.0"):
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        if address.port in self.ports:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        port = SimPort(self, Address(self.ip, address.port or self.take_port()))
        self.ports[port.address.port] = port
        return port

    async def dial(self, address: Address) -> SimStream:
        """Connects; refused where no process listens, timed out where nothing answers."""
        await trio.lowlevel.checkpoint()
        self.check_alive()
        local = Address(self.ip, self.take_port())
        attempt = _Attempt(self, local, address)
        try:
            for wait_s in _SYN_RETRY_S:
                attempt.send_syn()
                with trio.move_on_after(wait_s):
                    await attempt.answered.wait()
                    return attempt.outcome()
        except BaseException:
            attempt.abandon()
            raise
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), str(address))

    def take_port(self) -> int:
        """A free ephemeral port number."""
        while True:
            self._next_port += 1
            if self._next_port > 65_535:
                self._next_port = _FIRST_EPHEMERAL_PORT + 1
            if self._next_port not in self.ports:
                return self._next_port


class _Attempt:
    """One dial: SYN, and what comes back."""

    def __init__(self, source: SimHost, local: Address, remote: Address) -> None:
        self._source = source
        self._fabric = source.fabric
        self._local = local
        self._remote = remote
        self._stream: SimStream | None = None
        self.answered = trio.Event()

    def send_syn(self) -> None:
        self._fabric.control(self._source, self._remote.host, self._syn_arrives)

    def outcome(self) -> SimStream:
        self._source.check_alive()
        if self._stream is None:
            raise ConnectionRefusedError(
                errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED), str(self._remote)
            )
        return self._stream

    def abandon(self) -> None:
        if self._stream is not None:
            self._stream.abort()

    def _syn_arrives(self) -> None:
        target = self._fabric.reachable(self._remote.host)
        if target is None or self.answered.is_set() or self._stream is not None:
            return
        port = target.ports.get(self._remote.port)
        if port is None:
            target.missed += 1
            self._fabric.control(target, self._source.ip, self.answered.set)
            return
        back = Packet(target.ip, self._source.ip, _CONTROL_BYTES, "stream")
        if target.backlog_is_full or not port.has_room:
            target.dials_dropped += 1
        elif not self._fabric.is_cut(back):
            self._stream, accepted = SimStream.pair(
                self._fabric, self._source, self._local, target, self._remote
            )
            port.offer(accepted)
            self._fabric.clock.call_at(self._fabric.arrival(target, back), self.answered.set)


class SimPort:
    """`gossipcache.env.Port` of a simulated host."""

    def __init__(self, host: SimHost, address: Address) -> None:
        self._host = host
        self.address = address
        self._offered, self._accepted = trio.open_memory_channel[SimStream](_BACKLOG)
        self.inbox = SimDatagrams(host, address)
        self.datagrams: Datagrams = self.inbox

    @property
    def has_room(self) -> bool:
        """Whether the backlog takes one more stream."""
        return self._offered.statistics().current_buffer_used < _BACKLOG

    def offer(self, stream: SimStream) -> None:
        """Queues an inbound stream."""
        self._offered.send_nowait(stream)

    async def accept(self) -> ByteStream:
        """The next inbound stream. Raises `ClosedResourceError` after `aclose`."""
        return await self._accepted.receive()

    async def aclose(self) -> None:
        """Stops listening; streams not yet accepted are reset."""
        if self._host.ports.get(self.address.port) is self:
            del self._host.ports[self.address.port]
        while self._accepted.statistics().current_buffer_used:
            self._accepted.receive_nowait().abort()
        self._accepted.close()
        self.inbox.close()
        await trio.lowlevel.checkpoint()
