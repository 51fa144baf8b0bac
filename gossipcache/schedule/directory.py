"""Core: what holders have announced to this keeper, and the leases that keep it alive."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from gossipcache.config import ScheduleConfig
from gossipcache.identity import Signed, verify
from gossipcache.ids import NodeId, TaskId
from gossipcache.messages.announcements import (
    MAX_TOMBSTONES,
    AnnounceReply,
    DeletedTask,
    HeartbeatReply,
)
from gossipcache.schedule.announcement import (
    AnnouncementBatch,
    Check,
    Dropped,
    Held,
    HeldSet,
    LeaseHeartbeat,
    Statement,
    Verifier,
)
from gossipcache.schedule.task import View

RELEASE_S = 30.0
"""How long a holder has leave to drop its copy."""
MAX_TOMBSTONE_BYTES = 24 * 1024
"""Of all tombstones in one reply, beside its lists of task ids."""


@dataclass(slots=True)
class _Announcer:
    """One node's announcements. `doomed`: those of its tasks that were deleted since."""

    held: HeldSet = field(default_factory=HeldSet)
    doomed: dict[TaskId, None] = field(default_factory=dict)
    lease_until: float = 0.0


@dataclass(frozen=True, slots=True)
class _Floor:
    sequence: int
    forget_at: float
    """Wall time from which everything below it is expired anyway."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a batch: the reply to it, and the tasks whose holders it changed."""

    reply: AnnounceReply
    held: tuple[TaskId, ...] = ()
    withdrawn: tuple[TaskId, ...] = ()


class Directory:
    """Who has announced which task.

    Holds at most `max_tasks_per_peer` entries of a node; forgets a node whose lease ran out.
    A sequence number outlives that until nothing signed before it could still be valid, so
    that what was taken once is never taken again.
    """

    def __init__(
        self,
        config: ScheduleConfig,
        cluster_id: bytes,
        me: NodeId,
        view: View,
        check: Check = verify,
    ) -> None:
        self._config = config
        self._check = check
        self._cluster_id = cluster_id
        self._me = me
        self._view = view
        self._announcers: OrderedDict[NodeId, _Announcer] = OrderedDict()
        """In the order in which their leases end."""
        self._holders: dict[TaskId, dict[NodeId, Held]] = {}
        self._floors: OrderedDict[NodeId, _Floor] = OrderedDict()
        self._releases: OrderedDict[tuple[TaskId, NodeId], float] = OrderedDict()
        """Who may drop which copy, until when; in the order in which that ends."""

    def announce(self, signed: Signed, sender: NodeId, now: float, wall_time: float) -> Taken:
        """Judges a batch and takes what is to be taken of it. Raises `NotReady`."""
        batch = self._verifier(sender, wall_time).open_batch(signed)
        if isinstance(batch, Dropped):
            reply = AnnounceReply(dropped=batch.reason, sequence_seen=self._seen(sender))
            return Taken(reply)
        self._view.check_member(sender)
        self._raise_floor(sender, batch)
        if batch.fresh:
            self.forget(sender)
        announcer = self._renew(sender, now)
        for task_id in batch.withdrawn:
            self._withdraw(sender, announcer, TaskId(task_id))
        return self._take_all(sender, announcer, batch)

    def heartbeat(
        self, signed: Signed, sender: NodeId, now: float, wall_time: float
    ) -> HeartbeatReply:
        """Renews the lease of all that `sender` announced, if both sides agree on what it is.
        Raises `NotReady`."""
        heartbeat = self._verifier(sender, wall_time).open_heartbeat(signed)
        if isinstance(heartbeat, Dropped):
            return HeartbeatReply(dropped=heartbeat.reason, sequence_seen=self._seen(sender))
        self._view.check_member(sender)
        self._raise_floor(sender, heartbeat)
        announcer = self._announcers.get(sender)
        if announcer is None or not _agrees(announcer.held, heartbeat):
            return HeartbeatReply(resync=True, sequence_seen=heartbeat.sequence)
        self._renew(sender, now)
        return HeartbeatReply(
            sequence_seen=heartbeat.sequence, deleted=self._proofs(announcer.doomed)
        )

    def holders(self, task_id: TaskId) -> Iterator[tuple[NodeId, Held]]:
        """The alive nodes that announced the task's present manifest."""
        present = self._view.present(task_id)
        if present is None and self._view.deletion(task_id) is not None:
            return
        for node_id, held in self._holders.get(task_id, {}).items():
            # What came before the record is compared with it here.
            fits = present in (None, (held.manifest_name, held.piece_count))
            if fits and self._view.is_alive(node_id):
                yield node_id, held

    def release(self, task_id: TaskId, sender: NodeId, now: float, *, others: int = 1) -> bool:
        """Whether `sender` may drop its complete copy because `others` are left.

        Holders with such leave are not counted as copies, so that no two of them can rely on
        each other.
        """
        while self._releases and next(iter(self._releases.values())) <= now:
            self._releases.popitem(last=False)
        left = sum(
            held.complete and node_id != sender and (task_id, node_id) not in self._releases
            for node_id, held in self.holders(task_id)
        )
        granted = left >= others
        if granted:
            self._releases[task_id, sender] = now + RELEASE_S
            self._releases.move_to_end((task_id, sender))
        return granted

    def forget(self, node_id: NodeId) -> None:
        """Drops all that a node announced; its sequence number stays known."""
        announcer = self._announcers.pop(node_id, None)
        for task_id in announcer.held if announcer is not None else ():
            self._remove_holder(task_id, node_id)

    def task_deleted(self, task_id: TaskId) -> None:
        """Marks the task's entries, so that each holder is told with its next heartbeat."""
        for node_id in self._holders.get(task_id, {}):
            self._announcers[node_id].doomed[task_id] = None

    def task_replaced(self, task_id: TaskId) -> None:
        """Forgets the entries of other manifests than the present one. Their holders find out by
        their next heartbeat, announce themselves anew, and are told."""
        present = self._view.present(task_id)
        for node_id, held in list(self._holders.get(task_id, {}).items()):
            if present != (held.manifest_name, held.piece_count):
                self._withdraw(node_id, self._announcers[node_id], task_id)

    def next_timeout(self) -> float | None:
        """When the next lease ends."""
        return next((found.lease_until for found in self._announcers.values()), None)

    def expire(self, now: float) -> tuple[NodeId, ...]:
        """Whose lease has ended; they are still there, for `forget`."""
        ended = []
        for node_id, announcer in self._announcers.items():
            if announcer.lease_until > now:
                break
            ended.append(node_id)
        return tuple(ended)

    def _verifier(self, sender: NodeId, wall_time: float) -> Verifier:
        for node_id, floor in list(self._floors.items())[:2]:
            if floor.forget_at < wall_time:
                del self._floors[node_id]
        return Verifier(
            sender=sender,
            cluster_id=self._cluster_id,
            floor=self._seen(sender),
            wall_time=wall_time,
            clock_skew_s=self._config.clock_skew_s,
            check=self._check,
        )

    def _seen(self, sender: NodeId) -> int:
        floor = self._floors.get(sender)
        return floor.sequence if floor is not None else 0

    def _raise_floor(self, sender: NodeId, statement: Statement) -> None:
        earlier = self._floors.pop(sender, None)
        forget_at = statement.expires_at + self._config.clock_skew_s
        if earlier is not None:
            forget_at = max(forget_at, earlier.forget_at)
        self._floors[sender] = _Floor(statement.sequence, forget_at)

    def _renew(self, sender: NodeId, now: float) -> _Announcer:
        announcer = self._announcers.setdefault(sender, _Announcer())
        announcer.lease_until = now + self._config.lease_ttl_s
        self._announcers.move_to_end(sender)
        return announcer

    def _take_all(self, sender: NodeId, announcer: _Announcer, batch: AnnouncementBatch) -> Taken:
        refused: list[TaskId] = []
        unknown: list[TaskId] = []
        mismatched: list[TaskId] = []
        doomed: dict[TaskId, None] = {}
        taken: list[TaskId] = []
        for held in batch.held:
            task_id = TaskId(held.task_id)
            present = self._view.present(task_id)
            if not self._has_room(announcer, task_id):
                refused.append(task_id)
            elif present is None and self._view.deletion(task_id) is not None:
                doomed[task_id] = None
            elif present not in (None, (held.manifest_name, held.piece_count)):
                mismatched.append(task_id)
            else:
                if present is None:
                    unknown.append(task_id)
                announcer.held.put(held)
                self._holders.setdefault(task_id, {})[sender] = held
                taken.append(task_id)
                continue
            self._withdraw(sender, announcer, task_id)
        deleted = self._proofs(doomed)
        told = {proof.task_id for proof in deleted}
        refused.extend(task_id for task_id in doomed if task_id not in told)
        reply = AnnounceReply(
            sequence_seen=batch.sequence,
            refused=tuple(refused),
            unknown=tuple(unknown),
            mismatched=tuple(mismatched),
            deleted=deleted,
        )
        return Taken(reply, tuple(taken), tuple(TaskId(task_id) for task_id in batch.withdrawn))

    def _has_room(self, announcer: _Announcer, task_id: TaskId) -> bool:
        if self._me not in self._view.keepers_of(task_id):
            return False
        return task_id in announcer.held or len(announcer.held) < self._config.max_tasks_per_peer

    def _withdraw(self, sender: NodeId, announcer: _Announcer, task_id: TaskId) -> None:
        announcer.held.remove(task_id)
        announcer.doomed.pop(task_id, None)
        self._remove_holder(task_id, sender)

    def _remove_holder(self, task_id: TaskId, node_id: NodeId) -> None:
        holders = self._holders.get(task_id, {})
        holders.pop(node_id, None)
        if not holders:
            self._holders.pop(task_id, None)

    def _proofs(self, task_ids: dict[TaskId, None]) -> tuple[DeletedTask, ...]:
        proofs: list[DeletedTask] = []
        size = 0
        for task_id in task_ids:
            proof = self._view.deletion(task_id)
            if proof is None:
                continue
            size += len(proof.tombstone.payload) + len(proof.manifest.payload) + 128
            size += len(proof.tombstone.signature) + len(proof.manifest.signature)
            if len(proofs) == MAX_TOMBSTONES or size > MAX_TOMBSTONE_BYTES:
                break
            proofs.append(proof)
        return tuple(proofs)


def _agrees(held: HeldSet, heartbeat: LeaseHeartbeat) -> bool:
    return len(held) == heartbeat.entries and held.digest == heartbeat.set_digest
