"""What a download knows of one parent: its requests in flight, its speed, its window."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from gossipcache.ids import NodeId
from gossipcache.transfer.download.requests import Request
from gossipcache.transfer.download.wait import Wait

_SLACK_S = 0.02
"""Work kept waiting at a parent beyond the bandwidth-delay product: hides scheduling delays."""
_METER_SPAN_S = 0.1
_METER_WEIGHT = 0.3


class RateMeter:
    """Bytes a second while there is work, as an exponential average over spans of 0.1 s."""

    def __init__(self) -> None:
        self.rate: float | None = None
        """The average so far; None before the first byte."""
        self._since = 0.0
        self._bytes = 0
        self._spans = 0

    def restart(self, now: float) -> None:
        """Work begins after a pause, which is not to count."""
        self._since, self._bytes = now, 0

    def add(self, size: int, now: float) -> None:
        """`size` bytes have come in."""
        self._bytes += size
        span_s = now - self._since
        sample = self._bytes / max(span_s, _METER_SPAN_S / 100)
        if not self._spans:
            self.rate = sample
        if span_s >= _METER_SPAN_S:
            weight = _METER_WEIGHT if self._spans else 1.0
            self.rate = weight * sample + (1 - weight) * (self.rate or 0.0)
            self._spans += 1
            self.restart(now)


@dataclass(slots=True)
class Parent:
    """A parent that is being opened (no slot yet) or open. Times are those of the core."""

    node: NodeId
    window: int
    """How many requests it may have in flight."""
    progress_at: float
    """When it last showed life: a byte, an answer, or the first request after idleness."""
    rtt_s: float = 0.0
    slots: dict[int, int] = field(default_factory=dict)
    """Requests in flight on each open connection."""
    requests: dict[int, Request] = field(default_factory=dict)
    """In flight, oldest first."""
    paused_until: float | None = None
    wait: Wait | None = None
    """What it said of the turn that the child waits for, if it said anything."""
    stalled: bool = False
    is_late: bool = False
    """A piece was so late that another was asked as well, and none has come since."""
    asked_at: float = -inf
    """When it was last asked for a piece."""
    draining: bool = False
    """It is to be closed when nothing is in flight; another parent waits for its place."""
    meter: RateMeter = field(default_factory=RateMeter)
    _last_arrival_at: float = 0.0
    _waited_until: float = 0.0

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent."""
        return bool(self.slots)

    @property
    def in_flight(self) -> int:
        """Number of requests that wait for an answer."""
        return len(self.requests)

    @property
    def oldest_kept(self) -> Request | None:
        """The oldest request that others are not free to make as well."""
        return next((one for one in self.requests.values() if not one.released), None)

    @property
    def is_waiting(self) -> bool:
        """Whether the child stands in its line by what it said."""
        return self.wait is not None and not self.wait.is_over

    @property
    def pieces(self) -> int:
        """Bitmap of the pieces in flight."""
        pieces = 0
        for request in self.requests.values():
            pieces |= 1 << request.index
        return pieces

    def can_ask(self, fair: int, *, is_slow: bool = False) -> bool:
        """Whether another request may go to it now; at most `fair` while its speed is unknown, and
        no more than holds its places in line where others come first, or it is slow."""
        if not self.slots or self.stalled or self.draining or self.paused_until:
            return False
        limit = self.window if self.meter.rate else min(self.window, fair)
        if is_slow or self.is_waiting:
            limit = min(limit, len(self.slots))
        return len(self.requests) < limit

    @property
    def turn(self) -> tuple[float, float]:
        """The parent with the least is next: the least of its window is in use, then it was asked
        longest ago. Where little is asked for at a time, all have their share of the work."""
        return self.in_flight / self.window, self.asked_at

    def least_busy_slot(self) -> int:
        """The connection for the next request."""
        return min(self.slots, key=lambda slot: (self.slots[slot], slot))

    def asked(self, request: Request, now: float) -> None:
        """`request` goes out."""
        self.asked_at = now
        if not self.requests:
            self.progress_at = now
            self.meter.restart(now)
            if self.wait is not None and self.is_waiting:  # The place was kept.
                self.wait = Wait.begin(max(0.0, self.wait.due - now), now)
        self.requests[request.request_id] = request
        self.slots[request.slot] += 1

    def told_to_wait(self, wait_s: float, now: float) -> None:
        """It says that the turn comes in `wait_s`; 0: that it has come."""
        self.progress_at = now
        if self.wait is not None:
            self.wait.told(wait_s, now)
        elif wait_s > 0:
            self.wait = Wait.begin(wait_s, now)

    def begun_at(self, request: Request) -> float:
        """When the time for `request` began: as it was asked, or with the turn it waited for."""
        due = self.wait.due if self.wait is not None else 0.0
        return max(request.asked_at, due, self._waited_until)

    def settled(self, request: Request) -> None:
        """`request` was answered or cancelled."""
        del self.requests[request.request_id]
        self.slots[request.slot] -= 1

    def arrived(self, request: Request, now: float, most: int) -> float:
        """The piece of `request` has come; sizes the window up to `most`.

        Returns how long the parent took for it, in seconds, without the time it waited behind
        the parent's other pieces.
        """
        self.settled(request)
        self.progress_at, self.is_late = now, False
        if self.wait is not None:
            self.wait, self._waited_until = None, now
        self.meter.add(request.size, now)
        elapsed_s = now - max(request.asked_at, self._last_arrival_at)
        self._last_arrival_at = now
        self._size_window(request.size, most)
        return elapsed_s

    def behind_first(self) -> list[Request]:
        """What waits behind another request on its connection."""
        first: dict[int, Request] = {}
        return [one for one in self.requests.values() if first.setdefault(one.slot, one) != one]

    def gives_within(self, seconds: float) -> bool:
        """Whether all it was asked for is here that soon, as far as can be told."""
        return not self.is_waiting and self.drain_s() <= seconds

    def drain_s(self) -> float:
        """How long until all it was asked for is here; 0 while its speed is unknown."""
        return sum(self.piece_s(request.size) for request in self.requests.values())

    def piece_s(self, size: int) -> float:
        """How long it takes for `size` bytes; 0 while its speed is unknown."""
        return size / self.meter.rate if self.meter.rate else 0.0

    def _size_window(self, size: int, most: int) -> None:
        ahead = (self.meter.rate or 0.0) * (self.rtt_s + _SLACK_S) / size
        self.window = max(1, min(most, len(self.slots) + 1 + int(ahead)))
