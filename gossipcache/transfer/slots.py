"""Whose turn it is to be sent a piece, when more want one than are sent at once.

Sans-IO; times are monotonic seconds. A link is shared by few uploads at a time, whatever the limit
is: each is then over soon, and its child can pass the piece on. One that takes several times as
long as is usual has a child or a way that is slow, leaves the link to others, and so does not count
among the few.

A child that has none under way needs but find fewer than so many other children served: so a slow
one with many channels keeps nobody away.

The child with the fewest pieces under way is next; of equals the one that has waited the
longest since it asked or last had a turn. So a child that opens many channels gets no more than
one that opens two, and while a child waits each other one passes it once at most.

How long one has to wait is told from its place in the line and from how long uploads took.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable
from itertools import zip_longest
from typing import Generic, TypeVar

from gossipcache.ids import NodeId

T = TypeVar("T", bound=Hashable)


AT_ONCE = 4
"""Uploads that share the link: enough to fill it, too few to make each of them slow."""
MAX_PER_CHILD = 8
"""Pieces under way to one child: those that are slow are many, and would take all slots."""
OVERTIME_FACTOR = 3.0
FIRST_OVERTIME_S = 1.0
"""Before any upload was over."""
USUAL_GAIN = 0.2
"""Weight of the last upload in the moving average of how long they take."""
MIN_WAIT_S = 0.1
"""What one who waits has before it at least, by what is told."""
PLACES_FOR_S = 0.5
"""How long places in the line are taken for what they were: to look through all of it for each who
waits would cost the square of their number."""


class UploadSlots(Generic[T]):
    """`total` slots. `T` names one upload, and is told by `grant` when it may begin."""

    def __init__(self, total: int) -> None:
        self.total = total
        """May be changed: uploads under way are not stopped, but none begins above it."""
        self.waiting = 0
        """How many wait for one."""
        self._waiting: dict[NodeId, deque[T]] = {}
        """In the order in which children asked, or last had a turn."""
        self._running: dict[tuple[NodeId, T], float] = {}
        """Since when each child's upload has its slot; the oldest first."""
        self._usual_s: float | None = None
        self._count: Counter[NodeId] = Counter()
        self._places: dict[T, int] = {}
        self._placed_at = float("-inf")

    @property
    def running(self) -> int:
        """How many uploads have a slot."""
        return len(self._running)

    def ask(self, child: NodeId, upload: T) -> None:
        """`upload`, of a piece to `child`, wants a slot."""
        self._waiting.setdefault(child, deque()).append(upload)
        self.waiting += 1

    def grant(self, now: float) -> list[T]:
        """Those who have a slot from now on."""
        granted: list[T] = []
        sharing = self._sharing(now)
        while self._waiting and len(self._running) < self.total:
            child = min(self._waiting, key=self._count.__getitem__)
            # A child that is served already takes no place from one that is not.
            places = len(sharing) if self._count[child] else len(set(sharing))
            if places >= AT_ONCE or self._count[child] >= MAX_PER_CHILD:
                break
            sharing.append(child)
            queue = self._waiting.pop(child)
            upload = queue.popleft()
            self.waiting -= 1
            if queue:
                self._waiting[child] = queue
            self._running[child, upload] = now
            self._count[child] += 1
            granted.append(upload)
        return granted

    def _sharing(self, now: float) -> list[NodeId]:
        """Whose uploads share the link, each as often as it has one that is not slow."""
        overtime_s = self._overtime_s
        running = self._running.items()
        return [child for (child, _), since in running if now < since + overtime_s]

    def next_timeout(self, now: float) -> float | None:
        """When `grant` may find another that can begin, though none ends before; None: never."""
        if not self._waiting or len(self._running) >= self.total:
            return None
        ends = (since + self._overtime_s for since in self._running.values())
        return min((at for at in ends if at > now), default=None)

    def end(self, child: NodeId, upload: T, now: float) -> None:
        """`upload` is over, or wants no slot any more."""
        since = self._running.pop((child, upload), None)
        if since is not None:
            self._count[child] -= 1
            if not self._count[child]:
                del self._count[child]
            if now > since:  # Else nothing was sent.
                usual_s = now - since if self._usual_s is None else self._usual_s
                self._usual_s = usual_s + USUAL_GAIN * (now - since - usual_s)
            return
        queue = self._waiting[child]
        queue.remove(upload)
        self.waiting -= 1
        if not queue:
            del self._waiting[child]

    def serves(self, child: NodeId) -> bool:
        """Whether a piece is sent to `child`, or it waits for one."""
        return child in self._waiting or child in self._count

    def wait_s(self, child: NodeId, upload: T, now: float) -> float:
        """How long `upload`, which waits, is likely to wait from now on."""
        if now >= self._placed_at + PLACES_FOR_S:
            self._places, self._placed_at = self._line(), now
        place = self._places.get(upload)
        if place is None:  # It has just come: the last of its round.
            is_first = self._waiting[child][0] == upload
            place = (len(self._waiting) if is_first else self.waiting) - 1
        late = sum(now >= since + self._overtime_s for since in self._running.values())
        at_once = max(1, min(AT_ONCE, self.total - late))
        expected_s = self._first_wait_s(now) + place * self._service_s(now) / at_once
        return max(MIN_WAIT_S, expected_s)

    def line_s(self, now: float) -> float:
        """How long it takes until all who wait now have had their turn."""
        return self.waiting * self._service_s(now) / max(1, min(AT_ONCE, self.total))

    def _line(self) -> dict[T, int]:
        """The place of each that waits: how many have their turn before it, if the uploads under
        way are over by then."""
        rounds = zip_longest(*self._waiting.values())
        line = (upload for turns in rounds for upload in turns if upload is not None)
        return {upload: place for place, upload in enumerate(line)}

    def _service_s(self, now: float) -> float:
        """How long an upload takes: as is usual, or as long as the last to begin has taken yet;
        nothing else is known before any was over."""
        youngest_s = now - next(reversed(self._running.values()), now)
        return max(self._usual_s or 0.0, youngest_s)

    def _first_wait_s(self, now: float) -> float:
        """How long until one of those under way is over."""
        usual_s = self._service_s(now)
        left = (since + usual_s - now for since in self._running.values())
        return min((left_s for left_s in left if left_s > 0), default=0.0)

    @property
    def _overtime_s(self) -> float:
        return FIRST_OVERTIME_S if self._usual_s is None else OVERTIME_FACTOR * self._usual_s
