"""What a node tells one keeper of what it holds: told already, waiting, and under way."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

from gossipcache.ids import TaskId
from gossipcache.schedule.announcement import AnnouncementBatch, HeldSet, LeaseHeartbeat

RETRY_S = 0.25
MAX_RETRY_S = 30.0
ENTRY_RETRY_S = 1.0
MAX_ENTRY_RETRY_S = 60.0
MAX_SEQUENCE = 2**63 - 2
_MAX_DOUBLINGS = 10


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

    def requeue(self, batch: AnnouncementBatch) -> None:
        """What a batch said is to be said again, before all else."""
        self.fresh = self.fresh or batch.fresh
        self.ready = dict.fromkeys(batch.task_ids) | self.ready

    def start_afresh(self) -> None:
        """The keeper knows nothing of what it was told."""
        self.fresh = True
        self.told = HeldSet()
        self.ready = dict(self.wanted)

    def hung_up(self) -> Line | None:
        """The line to the keeper once it has died: what it was told is gone with it. None if
        nothing is to be said."""
        if not self.wanted:
            return None
        return Line(wanted=self.wanted, ready=dict(self.wanted), sequence=self.sequence)

    def succeeded(self, heartbeat_at: float) -> None:
        """The keeper answered; the next heartbeat is due then."""
        self.failures = 0
        self.retry_at = float("-inf")
        self.heartbeat_at = heartbeat_at

    def back_off(self, now: float, jitter: float) -> None:
        """Waits before the next statement, longer after each failure; `jitter` is about 1."""
        delay = min(MAX_RETRY_S, RETRY_S * 2 ** min(self.failures, _MAX_DOUBLINGS))
        self.failures += 1
        self.retry_at = now + delay * jitter

    def try_again(self, task_id: TaskId, now: float, jitter: float) -> None:
        """The same for one task, whose entry the keeper did not simply take."""
        tries = self.tries.get(task_id, 0)
        self.tries[task_id] = tries + 1
        delay = min(MAX_ENTRY_RETRY_S, ENTRY_RETRY_S * 2 ** min(tries, _MAX_DOUBLINGS))
        self.ready_at(task_id, now + delay * jitter)

    def next_sequence(self, wall_time: float) -> int:
        """The wall clock in µs, so that a restart goes on above, unless that is not higher."""
        return max(int(wall_time * 1e6), self.sequence + 1)

    def outbid(self, sequence_seen: int) -> None:
        """The clock went back since the last start, or another life of this key spoke here."""
        if sequence_seen >= self.sequence:
            self.sequence = min(sequence_seen, MAX_SEQUENCE)

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
