"""What a node tells one keeper of what it holds: told already, waiting, and under way."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

from gossipcache.ids import TaskId
from gossipcache.schedule.announcement import AnnouncementBatch, HeldSet, LeaseHeartbeat


@dataclass(slots=True)
class Line:
    """What this node has told, and has yet to tell, one keeper."""

    wanted: dict[TaskId, None] = field(default_factory=dict)
    """Tasks that this keeper keeps and this node holds."""
    told: HeldSet = field(default_factory=HeldSet)
    ready: dict[TaskId, None] = field(default_factory=dict)
    """To be looked at for the next batch."""
    later: list[tuple[float, TaskId]] = field(default_factory=list)
    """A heap: when a task becomes ready (again); void unless `due` says the same."""
    due: dict[TaskId, float] = field(default_factory=dict)
    tries: dict[TaskId, int] = field(default_factory=dict)
    """Of entries that the keeper did not simply take."""
    under_way: AnnouncementBatch | LeaseHeartbeat | None = None
    fresh: bool = True
    sequence: int = 0
    failures: int = 0
    retry_at: float = float("-inf")
    heartbeat_at: float = float("inf")

    def ready_at(self, task_id: TaskId, at: float) -> None:
        """Makes a task ready at a later time, or at the earlier one already set."""
        if at < self.due.get(task_id, float("inf")):
            self.due[task_id] = at
            heapq.heappush(self.later, (at, task_id))

    def ripen(self, now: float) -> None:
        """Makes ready what is due."""
        while self.later and self.later[0][0] <= now:
            at, task_id = heapq.heappop(self.later)
            if self.due.get(task_id) == at:
                del self.due[task_id]
                self.ready[task_id] = None

    def take_under_way(self, sequence: int) -> AnnouncementBatch | LeaseHeartbeat | None:
        """The statement that an answer is for, unless that was given up meanwhile."""
        under_way = self.under_way
        if under_way is None or under_way.sequence != sequence:
            return None
        self.under_way = None
        return under_way

    @property
    def next_at(self) -> float | None:
        """When the next statement is due, if one is waited for."""
        if self.under_way is not None:
            return None
        waiting: Iterable[float] = (
            [float("-inf")] if self.ready else [at for at, _ in self.later[:1]]
        )
        due = min([*waiting, self.heartbeat_at if self.told else float("inf")])
        return max(due, self.retry_at)
