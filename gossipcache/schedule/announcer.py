"""Core: the peer side of announcements. What this node holds, told to the right keepers.

For each keeper there is a *line*: what was announced on it, what waits to be, and at most one
statement under way. Ring changes are worked off in slices after a short random delay, so that
neither this node nor a new keeper is flooded.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gossipcache.config import ScheduleConfig
from gossipcache.identity import Identity
from gossipcache.ids import NodeId, TaskId
from gossipcache.messages.announcements import (
    MAX_BATCH_ENTRIES,
    Announce,
    AnnounceReply,
    DeletedTask,
    Heartbeat,
    HeartbeatReply,
)
from gossipcache.schedule.announcement import (
    AnnouncementBatch,
    Held,
    LeaseHeartbeat,
    sign_batch,
    sign_heartbeat,
)
from gossipcache.schedule.line import Line

PROGRESS_INTERVAL_S = 1.0
"""How often the growing piece count of a partial task is told anew."""
SWEEP_TASKS = 2000
"""Tasks of one slice of the work after a ring change."""
SWEEP_INTERVAL_S = 0.02


@dataclass(frozen=True, slots=True)
class SendBatch:
    """Send a batch to `keeper`; answer by `batch_answered` or `failed`."""

    keeper: NodeId
    sequence: int
    message: Announce


@dataclass(frozen=True, slots=True)
class SendHeartbeat:
    """Send a heartbeat to `keeper`; answer by `heartbeat_answered` or `failed`."""

    keeper: NodeId
    sequence: int
    message: Heartbeat


@dataclass(frozen=True, slots=True)
class RestoreRecord:
    """A keeper lacks the record of a task that this node holds."""

    task_id: TaskId


@dataclass(frozen=True, slots=True)
class DropDeleted:
    """A keeper proves that a task which this node holds was deleted."""

    proof: DeletedTask


Effect = SendBatch | SendHeartbeat | RestoreRecord | DropDeleted


class Announcer:
    """All that this node announces. Times are monotonic (s) unless called wall time.

    `keepers_of` and `is_alive` read the present ring and membership.
    """

    def __init__(
        self,
        config: ScheduleConfig,
        identity: Identity,
        cluster_id: bytes,
        keepers_of: Callable[[TaskId], tuple[NodeId, ...]],
        is_alive: Callable[[NodeId], bool],
        rng: random.Random,
    ) -> None:
        self._config = config
        self._identity = identity
        self._cluster_id = cluster_id
        self._keepers_of = keepers_of
        self._is_alive = is_alive
        self._rng = rng
        self._held: dict[TaskId, Held] = {}
        self._keepers: dict[TaskId, tuple[NodeId, ...]] = {}
        self._lines: dict[NodeId, Line] = {}
        self._sweep: deque[TaskId] = deque()
        """Tasks whose keepers are to be looked up anew."""
        self._sweep_at = float("inf")

    def hold(self, held: Held, now: float) -> None:
        """From now on this node holds this much of a task.

        Told at once if it is new or its completeness changed, else within a second.
        """
        task_id = TaskId(held.task_id)
        before = self._held.get(task_id)
        if held == before:
            return
        self._held[task_id] = held
        is_progress = (
            before is not None
            and before.manifest_name == held.manifest_name
            and not before.complete
            and not held.complete
        )
        self._route(task_id)
        for keeper in self._keepers[task_id]:
            line = self._lines[keeper]
            if is_progress:
                line.ready_at(task_id, now + PROGRESS_INTERVAL_S)
            else:
                line.ready[task_id] = None

    def drop(self, task_id: TaskId) -> None:
        """This node no longer holds a task."""
        if self._held.pop(task_id, None) is None:
            return
        for keeper in self._keepers.pop(task_id):
            self._unwant(keeper, task_id)

    def members_changed(self, now: float) -> None:
        """Members died or came back: nothing is left standing with dead keepers."""
        delay = self._rng.random() * self._config.reannounce_delay_s
        for keeper, line in list(self._lines.items()):
            if not self._is_alive(keeper):
                del self._lines[keeper]
                if (next_line := line.hung_up()) is not None:
                    self._lines[keeper] = next_line
            else:
                line.retry_at = min(line.retry_at, now + delay)

    def ring_changed(self, now: float) -> None:
        """The ring is another: every task's keepers are looked up anew."""
        self.members_changed(now)
        self._sweep = deque(dict.fromkeys([*self._sweep, *self._held]))
        delay = self._rng.random() * self._config.reannounce_delay_s
        self._sweep_at = min(self._sweep_at, now + delay)

    def batch_answered(
        self, keeper: NodeId, sequence: int, reply: AnnounceReply, now: float
    ) -> list[Effect]:
        """`keeper` answered the batch of that number."""
        line = self._lines.get(keeper, Line())
        batch = line.take_under_way(sequence)
        if not isinstance(batch, AnnouncementBatch):
            return []
        if reply.dropped is not None:
            line.requeue(batch)
            self._dropped(line, reply, now)
            return []
        line.succeeded(self._next_heartbeat(now))
        proofs = {TaskId(proof.task_id): proof for proof in reply.deleted}
        not_taken = {*reply.refused, *reply.mismatched, *proofs}
        for held in batch.held:
            if held.task_id not in not_taken:
                line.told.put(held)
        for task_id in (*batch.withdrawn, *not_taken):
            line.told.remove(TaskId(task_id))
        unsettled = {*not_taken, *reply.unknown}
        for held in batch.held:
            if held.task_id in unsettled:
                line.try_again(TaskId(held.task_id), now, self._jitter())
            else:
                line.tries.pop(TaskId(held.task_id), None)
        asked = {held.task_id for held in batch.held}
        return [
            *(DropDeleted(proof) for task_id, proof in proofs.items() if task_id in asked),
            *(
                RestoreRecord(TaskId(task_id))
                for task_id in (*reply.unknown, *reply.mismatched)
                if task_id in asked
            ),
        ]

    def heartbeat_answered(
        self, keeper: NodeId, sequence: int, reply: HeartbeatReply, now: float
    ) -> list[Effect]:
        """`keeper` answered the heartbeat of that number."""
        line = self._lines.get(keeper, Line())
        if not isinstance(line.take_under_way(sequence), LeaseHeartbeat):
            return []
        if reply.dropped is not None:
            line.heartbeat_at = now
            self._dropped(line, reply, now)
            return []
        line.succeeded(self._next_heartbeat(now))
        if reply.resync:
            line.start_afresh()
        return [
            DropDeleted(proof) for proof in reply.deleted if TaskId(proof.task_id) in self._held
        ]

    def failed(self, keeper: NodeId, sequence: int, now: float) -> None:
        """No answer came; it is tried again, at growing intervals, while the keeper is alive."""
        line = self._lines.get(keeper, Line())
        under_way = line.take_under_way(sequence)
        if under_way is None:
            return
        if isinstance(under_way, AnnouncementBatch):
            line.requeue(under_way)
        else:
            line.heartbeat_at = now
        line.back_off(now, self._jitter())

    def is_settled(self, task_id: TaskId) -> bool:
        """Whether a keeper knows of the task as it now is, and the others do or cannot.

        A keeper that did not take the entry, or that could not be reached the last time it was
        tried, is not waited for.
        """
        held = self._held.get(task_id)
        if held is None:
            return not any(
                task_id in line.ready or line.told.get(task_id) is not None
                for line in self._lines.values()
                if line.failures == 0
            )
        is_told = False
        for keeper in self._keepers[task_id]:
            line = self._lines[keeper]
            if line.told.get(task_id) == held:
                is_told = True
            elif not (line.failures > 0 or task_id in line.tries):
                return False
        return is_told

    def is_told(self, task_id: TaskId) -> bool:
        """Whether some keeper knows of the task as it now is held."""
        held = self._held.get(task_id)
        return held is not None and any(
            line.told.get(task_id) == held for line in self._lines.values()
        )

    def is_taken(self, task_id: TaskId) -> bool:
        """Whether a keeper that has the task's record has taken what is held of it."""
        held = self._held.get(task_id)
        return held is not None and any(
            line.told.get(task_id) == held and task_id not in line.tries
            for line in self._lines.values()
        )

    def next_timeout(self) -> float | None:
        """When `handle_timeout` is due: monotonic s, in the past if at once, or None."""
        due = [at for line in self._lines.values() if (at := line.next_at) is not None]
        earliest = min([self._sweep_at, *due])
        return earliest if earliest < float("inf") else None

    def handle_timeout(self, now: float, wall_time: float) -> list[Effect]:
        """What is to be sent now."""
        if self._sweep_at <= now:
            self._sweep_slice(now)
        effects: list[Effect] = []
        for keeper, line in list(self._lines.items()):
            line.ripen(now)
            due = line.next_at
            if due is not None and due <= now:
                effects += self._next_statement(keeper, line, now, wall_time)
            if not (line.wanted or line.told or line.under_way):
                del self._lines[keeper]
        return effects

    def _route(self, task_id: TaskId) -> bool:
        """Fits the lines to the task's present keepers; whether there are new ones."""
        before = self._keepers.get(task_id, ())
        keepers = self._keepers_of(task_id)
        self._keepers[task_id] = keepers
        for keeper in before:
            if keeper not in keepers:
                self._unwant(keeper, task_id)
        for keeper in keepers:
            line = self._lines.setdefault(keeper, Line())
            if task_id not in line.wanted:
                line.wanted[task_id] = None
                line.ready[task_id] = None
        return keepers != before

    def _unwant(self, keeper: NodeId, task_id: TaskId) -> None:
        line = self._lines.get(keeper)
        if line is not None:
            line.wanted.pop(task_id, None)
            line.tries.pop(task_id, None)
            line.ready[task_id] = None

    def _sweep_slice(self, now: float) -> None:
        for _ in range(min(SWEEP_TASKS, len(self._sweep))):
            task_id = self._sweep.popleft()
            if task_id in self._held and self._route(task_id):
                for keeper in self._keepers[task_id]:
                    self._lines[keeper].tries.pop(task_id, None)
        self._sweep_at = now + SWEEP_INTERVAL_S if self._sweep else float("inf")

    def _next_statement(
        self, keeper: NodeId, line: Line, now: float, wall_time: float
    ) -> list[Effect]:
        if not self._is_alive(keeper):
            line.back_off(now, self._jitter())
            return []
        batch = self._next_batch(line, wall_time)
        if batch is not None:
            line.under_way = batch
            line.sequence = batch.sequence
            message = Announce(batch=sign_batch(batch, self._identity))
            return [SendBatch(keeper, batch.sequence, message)]
        if line.told and line.heartbeat_at <= now:
            heartbeat = LeaseHeartbeat(
                cluster_id=self._cluster_id,
                sequence=line.next_sequence(wall_time),
                issued_at=int(wall_time),
                expires_at=int(wall_time + self._config.lease_ttl_s),
                entries=len(line.told),
                set_digest=line.told.digest,
            )
            line.under_way = heartbeat
            line.sequence = heartbeat.sequence
            beat = Heartbeat(statement=sign_heartbeat(heartbeat, self._identity))
            return [SendHeartbeat(keeper, heartbeat.sequence, beat)]
        return []

    def _next_batch(self, line: Line, wall_time: float) -> AnnouncementBatch | None:
        held: list[Held] = []
        withdrawn: list[TaskId] = []
        limit = min(self._config.max_batch, MAX_BATCH_ENTRIES)
        while line.ready and len(held) + len(withdrawn) < limit:
            task_id = next(iter(line.ready))
            del line.ready[task_id]
            told = line.told.get(task_id)
            if task_id not in line.wanted:
                if told is not None:
                    withdrawn.append(task_id)
            elif told != self._held[task_id] or task_id in line.tries:
                held.append(self._held[task_id])
        if not held and not withdrawn:
            return None
        fresh, line.fresh = line.fresh, False
        return AnnouncementBatch(
            cluster_id=self._cluster_id,
            sequence=line.next_sequence(wall_time),
            issued_at=int(wall_time),
            expires_at=int(wall_time + self._config.announcement_ttl_s),
            fresh=fresh,
            held=tuple(held),
            withdrawn=tuple(withdrawn),
        )

    def _next_heartbeat(self, now: float) -> float:
        return now + self._config.lease_interval_s * self._jitter()

    def _dropped(self, line: Line, reply: AnnounceReply | HeartbeatReply, now: float) -> None:
        if reply.dropped == "replayed":
            line.outbid(reply.sequence_seen)
        line.back_off(now, self._jitter())

    def _jitter(self) -> float:
        return 0.8 + 0.4 * self._rng.random()
