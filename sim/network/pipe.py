"""One direction of a simulated stream: segments in flight, then bytes to read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from sim.network.impairment import Packet

if TYPE_CHECKING:
    from sim.network.fabric import Fabric, SimHost

_HEADER_BYTES = 40
SEGMENT_BYTES = 64 * 1024
WINDOW_BYTES = 1 << 20
"""The most that is sent and not yet read: the two kernels' buffers together."""


class Pipe:
    """Bytes from one host to another: in order, late at worst, never wrong."""

    def __init__(self, fabric: Fabric, source: SimHost, target: SimHost, label: str) -> None:
        self.source = source
        self.target_ip = target.ip
        self._fabric = fabric
        self._target = target
        self._label = label
        self._arrived: deque[memoryview] = deque()
        self._stalled: deque[bytes | None] = deque()
        self._sent_s: deque[float] = deque()
        self._outstanding_bytes = 0
        self._last_arrival = 0.0
        self._ended = False
        self.is_reset = False
        self.is_abandoned = False
        """The receiving end is closed: what still arrives is answered by a reset."""
        self.is_left = False
        """The sending end is closed; what was sent still arrives."""
        self.is_forgotten = False
        """Something on the path dropped the connection: nothing passes, nobody is told."""
        self.swallowed = 0
        """How many segments were lost for that."""
        self.on_reset_needed: Callable[[], None] = self.reset
        self._readable = trio.lowlevel.ParkingLot()
        self._writable = trio.lowlevel.ParkingLot()

    @property
    def has_unread(self) -> bool:
        """Whether bytes arrived that nobody has read."""
        return bool(self._arrived)

    async def wait_writable(self) -> None:
        """Returns when the window has room, or there is no use in waiting."""
        while self._outstanding_bytes >= WINDOW_BYTES and not (self.is_reset or self.is_left):
            await self._writable.park()

    def room_bytes(self) -> int:
        """How much the window takes now."""
        return WINDOW_BYTES - self._outstanding_bytes

    def push(self, data: bytes) -> None:
        """Sends one segment."""
        self._outstanding_bytes += len(data)
        self._transmit(data)

    def push_end(self) -> None:
        """Sends the end of the stream."""
        self._transmit(None)

    def push_reset(self, work: Callable[[], None]) -> None:
        """Sends a reset behind the bytes on their way; `work` runs where it arrives."""
        packet = self._packet(b"")
        if not self.is_forgotten and not self._fabric.is_cut(packet):
            arrives = self._fabric.arrival(self.source, packet)
            self._fabric.clock.call_at(max(arrives, self._last_arrival), work)

    async def wait_readable(self) -> None:
        """Returns when there is something to `pull`, or there is no use in waiting."""
        while not (self._arrived or self._ended or self.is_reset or self.is_abandoned):
            await self._readable.park()

    def pull(self, count: int) -> bytes:
        """Up to `count` of the bytes that arrived; b"" at the end."""
        if not self._arrived:
            return b""
        parts: list[memoryview] = []
        while count and self._arrived:
            first = self._arrived.popleft()
            if len(first) > count:
                self._arrived.appendleft(first[count:])
                first = first[:count]
            parts.append(first)
            count -= len(first)
        data = b"".join(parts)
        self._outstanding_bytes -= len(data)
        self._writable.unpark_all()
        return data

    def reset(self) -> None:
        """Breaks the pipe at both ends; what arrived before can still be read."""
        self.is_reset = True
        self.wake()

    def wake(self) -> None:
        """Lets both ends look again."""
        self._readable.unpark_all()
        self._writable.unpark_all()

    def retry(self) -> None:
        """Sends the stalled segments again."""
        segments, self._stalled = self._stalled, deque()
        for segment in segments:
            self._arrive(segment)

    def _transmit(self, segment: bytes | None) -> None:
        self._sent_s.append(self._fabric.clock.now)
        packet = self._packet(segment)
        lost = self._fabric.is_lost(packet)
        arrives = self._fabric.arrival(self.source, packet)
        if lost:
            arrives += self._fabric.profile.retransmission_s
        self._last_arrival = max(arrives, self._last_arrival)
        self._fabric.clock.call_at(self._last_arrival, self._arrive, segment)

    def _arrive(self, segment: bytes | None) -> None:
        if self.is_reset:
            return
        if self.is_forgotten:
            self.swallowed += 1
            return
        host = self._fabric.reachable(self.target_ip)
        if self._stalled or host is None or self._fabric.is_cut(self._packet(segment)):
            self._stalled.append(segment)
            self._fabric.stall(self)
        elif self.is_abandoned or host is not self._target or host.is_dead:
            host.missed += 1
            self._fabric.control(host, self.source.ip, self.on_reset_needed)
        else:
            self._deliver(segment)

    def _packet(self, segment: bytes | None) -> Packet:
        size = len(segment or b"") + _HEADER_BYTES
        return Packet(self.source.ip, self.target_ip, size, "stream")

    def _deliver(self, segment: bytes | None) -> None:
        kind, sent_s = "stream" if segment else "end", self._sent_s.popleft()
        self._fabric.trace.carried(kind, self._label, segment or b"", sent_s)
        if segment is None:
            self._ended = True
        else:
            self._arrived.append(memoryview(segment))
        self._readable.unpark_all()
