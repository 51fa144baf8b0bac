"""Whose turn it is to be sent a piece, when more want one than are sent at once.

Sans-IO; times are monotonic seconds. A link is shared by few uploads at a time, whatever the limit
is: each is then over soon, and its child can pass the piece on. One that takes several times as
long as is usual has a child or a way that is slow, leaves the link to others, and so does not count
among the few.

The child with the fewest pieces under way is next; of equals the one that has waited the
longest since it asked or last had a turn. So a child that opens many channels gets no more than
one that opens two.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from gossipcache.ids import NodeId

T = TypeVar("T", bound=Hashable)


AT_ONCE = 4
"""Uploads that share the link: enough to fill it, too few to make each of them slow."""
OVERTIME_FACTOR = 3.0
FIRST_OVERTIME_S = 1.0
"""Before any upload was over."""
USUAL_GAIN = 0.2
"""Weight of the last upload in the moving average of how long they take."""


class UploadSlots(Generic[T]):
    """`total` slots. `T` names one upload, and is told by `grant` when it may begin."""

    def __init__(self, total: int) -> None:
        self.total = total
        """May be changed: uploads under way are not stopped, but none begins above it."""
        self._waiting: dict[NodeId, deque[T]] = {}
        """In the order in which children asked, or last had a turn."""
        self._running: dict[T, float] = {}
        """Since when each has its slot; the oldest first."""
        self._usual_s: float | None = None
        self._count: Counter[NodeId] = Counter()

    @property
    def running(self) -> int:
        """How many uploads have a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return sum(map(len, self._waiting.values()))

    def ask(self, child: NodeId, upload: T) -> None:
        """`upload`, of a piece to `child`, wants a slot."""
        self._waiting.setdefault(child, deque()).append(upload)

    def grant(self, now: float) -> list[T]:
        """Those who have a slot from now on."""
        granted: list[T] = []
        room = AT_ONCE - sum(now < since + self._overtime_s for since in self._running.values())
        while self._waiting and len(self._running) < self.total and len(granted) < room:
            child = min(self._waiting, key=self._count.__getitem__)
            queue = self._waiting.pop(child)
            upload = queue.popleft()
            if queue:
                self._waiting[child] = queue
            self._running[upload] = now
            self._count[child] += 1
            granted.append(upload)
        return granted

    def next_timeout(self, now: float) -> float | None:
        """When `grant` may find another that can begin, though none ends before; None: never."""
        if not self._waiting or len(self._running) >= self.total:
            return None
        ends = (since + self._overtime_s for since in self._running.values())
        return min((at for at in ends if at > now), default=None)

    def end(self, child: NodeId, upload: T, now: float) -> None:
        """`upload` is over, or wants no slot any more."""
        since = self._running.pop(upload, None)
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
        if not queue:
            del self._waiting[child]

    @property
    def _overtime_s(self) -> float:
        return FIRST_OVERTIME_S if self._usual_s is None else OVERTIME_FACTOR * self._usual_s
