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

import contextlib
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

import trio

from gossipcache.env import ByteStream, DatagramRefused, Datagrams, DiskFile
from gossipcache.ids import Address
from sim.clock import SimClock
from sim.entropy import Streams
from sim.pipe import Pipe
from sim.stream import SimStream
from sim.trace import Trace

MAX_DATAGRAM_BYTES = 65_507
_DATAGRAM_OVERHEAD_BYTES = 28
_INBOX_DATAGRAMS = 4096
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


@dataclass(slots=True, eq=False)
class Impairment:
    """Makes some links worse. `loss` 1.0 cuts them. None stands for every host."""

    sources: frozenset[str] | None = None
    targets: frozenset[str] | None = None
    loss: float = 0.0
    delay_s: float = 0.0
    duplication: float = 0.0
    bit: int = 0
    """How many segments and datagrams it changed."""

    def covers(self, source: str, target: str) -> bool:
        """Whether it applies to the direction `source` → `target`."""
        return (self.sources is None or source in self.sources) and (
            self.targets is None or target in self.targets
        )


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

    def is_cut(self, source: str, target: str) -> bool:
        """Whether nothing passes from `source` to `target`."""
        for each in self._impairments:
            if each.loss >= 1.0 and each.covers(source, target):
                each.bit += 1
                return True
        return False

    def is_lost(self, source: str, target: str) -> bool:
        """Whether this segment or datagram is lost by chance."""
        for each in self._impairments:
            risky = 0.0 < each.loss < 1.0 and each.covers(source, target)
            if risky and self._chance(source, target) < each.loss:
                each.bit += 1
                return True
        return False

    def is_duplicated(self, source: str, target: str) -> bool:
        """Whether this datagram arrives twice."""
        for each in self._impairments:
            risky = each.duplication > 0.0 and each.covers(source, target)
            if risky and self._chance(source, target) < each.duplication:
                each.bit += 1
                return True
        return False

    def arrival(self, source: SimHost, target_ip: str, size: int) -> float:
        """When `size` bytes sent now arrive; books the uplink and the downlink."""
        rate = self.profile.host_bytes_per_s
        source.uplink_free_at = max(self.clock.now, source.uplink_free_at) + size / rate
        delay_s = self.profile.latency_s
        for each in self._impairments:
            if each.delay_s and each.covers(source.ip, target_ip):
                each.bit += 1
                delay_s += each.delay_s
        delay_s += self.profile.jitter_s * self._chance(source.ip, target_ip)
        arrives = source.uplink_free_at + delay_s
        target = self.hosts.get(target_ip)
        if target is not None:
            # The first byte is not held up by its own size: cut-through, as in a switch.
            target.downlink_free_at = max(arrives, target.downlink_free_at + size / rate)
            arrives = target.downlink_free_at
        return arrives

    def control(self, source: SimHost, target_ip: str, work: Callable[[], None]) -> None:
        """Sends a packet without payload (SYN, RST, ICMP); a cut swallows it."""
        if not self.is_cut(source.ip, target_ip) and not self.is_lost(source.ip, target_ip):
            self.clock.call_at(self.arrival(source, target_ip, 64), work)

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
            delay_s *= 1 + 4 * self._chance(pipe.source.ip, pipe.target_ip)
            self.clock.call_later(delay_s, pipe.retry)

    def _chance(self, source: str, target: str) -> float:
        return self._streams.named(f"link/{source}/{target}").random()


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
        elif port.has_room and not self._fabric.is_cut(target.ip, self._source.ip):
            self._stream, accepted = SimStream.pair(
                self._fabric, self._source, self._local, target, self._remote
            )
            port.offer(accepted)
            self._fabric.clock.call_at(
                self._fabric.arrival(target, self._source.ip, 64), self.answered.set
            )


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


class SimDatagrams(Datagrams):
    """`gossipcache.env.Datagrams` of a simulated host."""

    def __init__(self, host: SimHost, address: Address) -> None:
        self._host = host
        self._fabric = host.fabric
        self._address = address
        self._arrived, self._inbox = trio.open_memory_channel[
            tuple[bytes, Address] | DatagramRefused
        ](_INBOX_DATAGRAMS)

    async def send_to(self, data: bytes, address: Address) -> None:
        """Sends one datagram."""
        await trio.lowlevel.checkpoint()
        self._host.check_alive()
        if self._host.ports.get(self._address.port) is None:
            raise trio.ClosedResourceError("this socket is closed")
        if len(data) > MAX_DATAGRAM_BYTES:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        source, target = self._host.ip, address.host
        if self._fabric.is_cut(source, target):
            return
        now = self._fabric.clock.now
        copies = 2 if self._fabric.is_duplicated(source, target) else 1
        for _ in range(copies):
            size = len(data) + _DATAGRAM_OVERHEAD_BYTES
            arrives = self._fabric.arrival(self._host, target, size)
            if not self._fabric.is_lost(source, target):
                self._fabric.clock.call_at(arrives, self._arrive, bytes(data), address, now)

    async def receive(self) -> tuple[bytes, Address]:
        """The next datagram and its source. Raises `DatagramRefused`."""
        arrived = await self._inbox.receive()
        if isinstance(arrived, DatagramRefused):
            raise arrived
        return arrived

    def close(self) -> None:
        """Releases the socket."""
        self._inbox.close()

    def _arrive(self, data: bytes, address: Address, sent_s: float) -> None:
        target = self._fabric.reachable(address.host)
        if target is None:
            return
        self._fabric.trace.carried("datagram", f"{self._address}>{address}", data, sent_s)
        port = target.ports.get(address.port)
        if port is None:
            target.missed += 1
            self._fabric.control(target, self._host.ip, lambda: self._refuse(address))
            return
        try:
            port.inbox._arrived.send_nowait((data, self._address))
        except trio.WouldBlock:
            self._fabric.trace.record("overflow", str(address))

    def _refuse(self, address: Address) -> None:
        with contextlib.suppress(
            trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError
        ):
            self._arrived.send_nowait(DatagramRefused(address))
