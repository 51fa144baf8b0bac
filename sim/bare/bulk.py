"""The piece connections of bare nodes: bandwidth, shared as TCP shares it.

A piece travels in quanta. A host's uplink sends one quantum at a time, in turn for each channel
that has a piece to send and room in its window (round robin: equal shares of a link that is
full), its downlink takes them in one after the other. A channel has at most `WINDOW_QUANTA` under
way, so that a slow child holds up nobody else. Channels send one piece after the other, and a
host sends at most so many pieces at once, as `transfer.server` does. Control messages travel
beside this, on the links of `sim.bare.link`. Nothing is lost here, and no cut matters; processes
that end reset their channels.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gossipcache.ids import NodeId
from gossipcache.transfer.promise import Promise
from gossipcache.transfer.slots import UploadSlots
from gossipcache.wire import Message
from sim.bare.network import BareHost
from sim.bare.process import Process
from sim.bare.timeline import Timeline
from sim.bare.trace import BareTrace

QUANTUM_BYTES = 512 * 1024
WINDOW_QUANTA = 2
_FRAME_BYTES = 8
Received = Callable[[int, int], None]
"""Told the request and the piece that has come in whole."""


@dataclass(eq=False)
class BulkHost:
    """A machine's ends of all piece connections. Rates in bytes a second."""

    host: BareHost
    up_bytes_s: float
    down_bytes_s: float
    max_uploads: int
    ready: deque[BulkChannel] = field(default_factory=deque)
    """Channels whose next quantum may go out, in turn."""
    slots: UploadSlots[BulkChannel] = field(init=False)
    """Whose turn it is to send a piece."""
    looks_at: float = math.inf
    """When that is looked at again without any being over."""
    is_busy: bool = False
    """Whether a quantum is on the uplink."""
    downlink_free_at: float = 0.0
    sent_bytes: int = 0
    received_bytes: int = 0

    def __post_init__(self) -> None:
        self.slots = UploadSlots(self.max_uploads)


class BulkChannel:
    """One connection, over which `parent` sends pieces to `child`."""

    def __init__(
        self,
        network: BulkNetwork,
        parent: BulkHost,
        child: BulkHost,
        child_id: NodeId,
        received: Received,
        settled: Callable[[], None],
        tell: Callable[[int, float], None],
    ) -> None:
        """`settled` is called when a piece has been sent, `tell` with a request and how long it
        waits, when the child is to hear of that."""
        self.parent, self.child = parent, child
        self.child_id = child_id
        self.wanted: dict[int, tuple[int, int]] = {}
        """Request → piece and its size, in the order asked; not being sent yet."""
        self.received_bytes = 0
        self.is_closed = False
        self._network = network
        self._received = received
        self._settled = settled
        self._tell = tell
        self._promise: Promise | None = None
        self._request = (0, 0)
        self._left = 0
        """Bytes of the present piece that have not gone out."""
        self._under_way = 0
        """Quanta that have gone out and not come in."""
        self._is_sending = False
        self._is_queued = False
        self.is_ready = False
        """Whether it stands in the host's line for the uplink."""

    def ask(self, request_id: int, index: int, size: int) -> None:
        """A request for a piece reached the parent."""
        if not self.is_closed:
            self.wanted[request_id] = index, size
            self._queue()

    def cancel(self, request_id: int) -> bool:
        """A request is taken back; False: too late, the piece is being sent."""
        return self.wanted.pop(request_id, None) is not None

    def close(self) -> None:
        """Nothing comes any more, and what is half sent is void."""
        if not self.is_closed:
            self.is_closed = True
            self.wanted.clear()
            if self._is_queued:
                self._is_queued = False
                self.parent.slots.end(self.child_id, self, self._network.now)
            self._left = 0
            self._sent_whole()

    @property
    def owed(self) -> list[int]:
        """The pieces that were asked for and have not gone out whole."""
        waiting = [index for index, _ in self.wanted.values()]
        return [self._request[1], *waiting] if self._is_sending else waiting

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being sent, and nothing waits for that."""
        return not self._is_sending and not self.wanted

    # What the host does for it.

    def start(self) -> bool:
        """Begins to send the next piece; False if none is wanted any more."""
        self._is_queued = False
        if self.is_closed or not self.wanted:
            return False
        request_id = next(iter(self.wanted))
        if self._promise is not None and self._promise.is_made:
            self._tell(request_id, 0.0)
        index, self._left = self.wanted.pop(request_id)
        self._request = request_id, index
        self._is_sending = True
        return True

    def take_quantum(self) -> int:
        """The size of what goes out next."""
        size = min(QUANTUM_BYTES, self._left)
        self._left -= size
        self._under_way += 1
        return size

    @property
    def may_send(self) -> bool:
        """Whether the next quantum may follow at once."""
        return self._left > 0 and self._under_way < WINDOW_QUANTA

    def went_out(self) -> tuple[int, int] | None:
        """A quantum has left the uplink; the request and piece that it was the last of."""
        if self._left or not self._is_sending:
            return None
        whole = self._request
        self._sent_whole()
        return whole

    def came_in(self, size: int, whole: tuple[int, int] | None) -> None:
        """A quantum is through the child's downlink."""
        was_full = self._under_way == WINDOW_QUANTA
        self._under_way -= 1
        if self.is_closed:
            return
        self.received_bytes += size
        if was_full:
            self._network.may_send(self)
        if whole is not None:
            self._received(*whole)

    def _queue(self) -> None:
        if not self._is_sending and not self._is_queued and self.wanted:
            self._is_queued = True
            self.parent.slots.ask(self.child_id, self)
            self._network.start_next(self.parent)
            if self._is_queued:
                self._promise = Promise(self._network.now)
                self._look(self._promise)

    def _look(self, promise: Promise) -> None:
        if not self._is_queued or promise is not self._promise:
            return
        now = self._network.now
        wait_s = self.parent.slots.wait_s(self.child_id, self, now)
        if promise.look(wait_s, now) and self.wanted:
            self._tell(next(iter(self.wanted)), wait_s)
        self._network.at(promise.look_at, self._look, promise)

    def _sent_whole(self) -> None:
        if self._is_sending:
            self._is_sending = False
            self._settled()
            self.parent.slots.end(self.child_id, self, self._network.now)
            self._queue()
            self._network.start_next(self.parent)


class BulkNetwork:
    """All piece connections."""

    def __init__(self, timeline: Timeline, trace: BareTrace, latency_s: float) -> None:
        self.latency_s = latency_s
        self.message_bytes = 0
        """Of the small messages that were sent over them."""
        self.pairs: dict[tuple[int, int], int] = {}
        """Bytes of pieces by the numbers of the machines that sent and received them."""
        self._timeline = timeline
        self._trace = trace

    @property
    def now(self) -> float:
        """Virtual time."""
        return self._timeline.now

    def at(self, when: float, work: Callable[..., None], *args: Any) -> None:
        """Calls `work(*args)` then."""
        self._timeline.push(when, work, *args)

    def say(
        self,
        source: Process,
        target: Process,
        message: Message,
        work: Callable[..., None],
        *args: Any,
    ) -> None:
        """A small message: `work(*args)` is a step of `target` one latency later."""
        size = _FRAME_BYTES + source.length(message)
        self.message_bytes += size
        self._trace.record("channel", source.host.number, target.host.number, size, message)
        self.reach(target, work, *args)

    def reach(self, target: Process, work: Callable[..., None], *args: Any) -> None:
        """What kernels say to each other, such as a reset; nothing of it is counted."""
        self._timeline.push(self._timeline.now + self.latency_s, target.step, work, *args)

    def start_next(self, host: BulkHost) -> None:
        """Lets waiting channels begin, as many as may send at once."""
        granted = host.slots.grant(self.now)
        while granted:
            for channel in granted:
                if channel.start():
                    self.may_send(channel)
                else:
                    host.slots.end(channel.child_id, channel, self.now)
            granted = host.slots.grant(self.now)
        due = host.slots.next_timeout(self.now)
        if due is not None and due < host.looks_at:
            host.looks_at = due
            self._timeline.push(due, self._look, host, due)

    def _look(self, host: BulkHost, due: float) -> None:
        if host.looks_at == due:
            host.looks_at = math.inf
            self.start_next(host)

    def may_send(self, channel: BulkChannel) -> None:
        """The channel's next quantum, if there is one, goes out when its turn comes."""
        host = channel.parent
        if channel.may_send and not channel.is_ready:
            channel.is_ready = True
            host.ready.append(channel)
            if not host.is_busy:
                self._send(host)

    def _send(self, host: BulkHost) -> None:
        while host.ready:
            channel = host.ready.popleft()
            channel.is_ready = False
            if channel.may_send:
                size = channel.take_quantum()
                host.is_busy = True
                free_at = self._timeline.now + size / host.up_bytes_s
                self._timeline.push(free_at, self._sent, host, channel, size)
                return

    def _sent(self, host: BulkHost, channel: BulkChannel, size: int) -> None:
        host.is_busy = False
        host.sent_bytes += size
        whole = channel.went_out()
        child = channel.child
        arrives = max(self._timeline.now + self.latency_s, child.downlink_free_at)
        child.downlink_free_at = free_at = arrives + size / child.down_bytes_s
        self._timeline.push(free_at, self._received, channel, size, whole)
        self.may_send(channel)
        if not host.is_busy:
            self._send(host)

    def _received(self, channel: BulkChannel, size: int, whole: tuple[int, int] | None) -> None:
        child = channel.child
        child.received_bytes += size
        pair = channel.parent.host.number, child.host.number
        self.pairs[pair] = self.pairs.get(pair, 0) + size
        if whole is not None:
            parent = channel.parent.host.number
            self._trace.record("piece", parent, child.host.number, size, whole)
        channel.came_in(size, whole)
