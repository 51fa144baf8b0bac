"""Whose turn it is to be sent a piece, when more want one than are sent at once.

Sans-IO. The child with the fewest pieces under way is next; of equals the one that has waited the
longest since it asked or last had a turn. So a child that opens many channels gets no more than
one that opens two.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from gossipcache.ids import NodeId

T = TypeVar("T", bound=Hashable)


class UploadSlots(Generic[T]):
    """`total` slots. `T` names one upload, and is told by `grant` when it may begin."""

    def __init__(self, total: int) -> None:
        self.total = total
        """May be changed: uploads under way are not stopped, but none begins above it."""
        self._waiting: dict[NodeId, deque[T]] = {}
        """In the order in which children asked, or last had a turn."""
        self._running: dict[T, NodeId] = {}
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

    def grant(self) -> list[T]:
        """Those who have a slot from now on."""
        granted = []
        while self._waiting and len(self._running) < self.total:
            child = min(self._waiting, key=self._count.__getitem__)
            queue = self._waiting.pop(child)
            upload = queue.popleft()
            if queue:
                self._waiting[child] = queue
            self._running[upload] = child
            self._count[child] += 1
            granted.append(upload)
        return granted

    def end(self, child: NodeId, upload: T) -> None:
        """`upload` is over, or wants no slot any more."""
        if self._running.pop(upload, None) is not None:
            self._count[child] -= 1
            if not self._count[child]:
                del self._count[child]
            return
        queue = self._waiting[child]
        queue.remove(upload)
        if not queue:
            del self._waiting[child]
