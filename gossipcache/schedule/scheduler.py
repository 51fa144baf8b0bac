"""Core: the keeper side of the swarms. Who downloads what, and from whom.

Inputs carry the monotonic time `now` and give back effects. A task's possible parents are the
holders that announced it (`Directory`) and its children with what they have by then. Each
child is *reviewed* when it registers, when it loses a parent, soon after somebody new can give
pieces, and else once a second: the policy chooses anew, and a changed choice is pushed.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from gossipcache.config import ScheduleConfig
from gossipcache.errors import ProtocolError
from gossipcache.identity import Signed, verify
from gossipcache.ids import NodeId, TaskId
from gossipcache.messages.announcements import (
    MAX_HOLDERS,
    AnnounceReply,
    AskRelease,
    HeartbeatReply,
    HolderEntry,
    HoldersReply,
)
from gossipcache.messages.sessions import (
    AssignParents,
    LeaveTask,
    RegisterPeer,
    ReportPieces,
    SessionReply,
)
from gossipcache.schedule.announcement import Check
from gossipcache.schedule.assignments import Assignments
from gossipcache.schedule.directory import Directory
from gossipcache.schedule.swarms import Swarms
from gossipcache.schedule.task import Child, View, all_bits, bits_of

REVIEW_INTERVAL_S = 1.0
BAN_S = 5.0
MAX_BAN_S = 300.0
HOPELESS_S = 300.0
"""As long as a piece may take at the slowest rate."""
KEPT_PARENTS = 2
TIRED_S = 3600.0
"""How long a parent that gave nothing for so long is not given to the child again."""

M = TypeVar("M", AssignParents, SessionReply)


@dataclass(frozen=True, slots=True)
class Push:
    """Send `message` to the child `to`, unasked."""

    to: NodeId
    message: AssignParents


Effect = Push


class Scheduler:
    """All swarms of the tasks that this node keeps. `view`: what the rest of the node knows."""

    def __init__(
        self,
        config: ScheduleConfig,
        cluster_id: bytes,
        me: NodeId,
        view: View,
        rng: random.Random,
        check: Check = verify,
    ) -> None:
        self._config = config
        self._me = me
        self._view = view
        self._rng = rng
        self._directory = Directory(config, cluster_id, me, view, check)
        self._assignments = Assignments(config, view, self._directory, rng)
        self._swarms = Swarms()
        self._reviews: list[tuple[float, NodeId, TaskId]] = []
        """A heap; an entry is void unless it bears the child's present `review_at`."""

    @property
    def decisions(self) -> int:
        """How often parents were chosen for a child."""
        return self._assignments.decisions

    def pieces_of(self, task_id: TaskId) -> dict[NodeId, int]:
        """What each child of a task's swarm is known to have (bit sets)."""
        return {node: child.have for node, child in self._swarms.of_task(task_id).children.items()}

    def announce(
        self, signed: Signed, sender: NodeId, now: float, wall_time: float
    ) -> AnnounceReply:
        """A batch of announcements came in; children that it can help are reviewed soon."""
        taken = self._directory.announce(signed, sender, now, wall_time)
        for task_id in (*taken.held, *taken.withdrawn):
            child = self._swarms.child(sender, task_id)
            if child is not None and child.done:
                self._end(child)
        for task_id in taken.held:
            self._children_may_gain(task_id, sender, now)
        return taken.reply

    def heartbeat(
        self, signed: Signed, sender: NodeId, now: float, wall_time: float
    ) -> HeartbeatReply:
        """A lease heartbeat came in."""
        return self._directory.heartbeat(signed, sender, now, wall_time)

    def holders(self, task_id: TaskId) -> HoldersReply:
        """The alive nodes that have pieces: announced ones, and children by what they have."""
        if not self._keeps(task_id):
            return HoldersReply(holders=(), keepers=self._view.keepers_of(task_id))
        lacking = -1
        found = {
            node_id: HolderEntry(node_id, held.pieces, held.complete)
            for node_id, held in self._directory.holders(task_id)
        }
        present = self._view.present(task_id)
        for child in self._swarms.of_task(task_id).givers.values():
            fits = present in (None, (child.manifest_name, child.piece_count))
            if not fits or not self._view.is_alive(child.node_id):
                continue
            known = found.get(child.node_id)
            lacking &= child.missing
            pieces = child.have.bit_count()
            if known is None or known.pieces < pieces:
                complete = pieces == child.piece_count
                found[child.node_id] = HolderEntry(child.node_id, pieces, complete)
        ranked = sorted(found.values(), key=lambda entry: (not entry.complete, -entry.pieces))
        covered = lacking == 0 or any(entry.complete for entry in ranked)
        return HoldersReply(holders=tuple(ranked[:MAX_HOLDERS]), covered=covered)

    def complete_holders(self, task_id: TaskId) -> list[NodeId]:
        """Those of them that have all pieces; none if the task is not kept here."""
        if self._keeps(task_id) and not self._swarms.of_task(task_id).givers:
            return [node for node, held in self._directory.holders(task_id) if held.complete]
        holders = self.holders(task_id).holders
        return [NodeId(entry.node_id) for entry in holders if entry.complete]

    def release(self, message: AskRelease, sender: NodeId, now: float) -> bool:
        """Whether `sender` may drop its complete copy; see `Directory.release`. Raises
        `NotReady`."""
        self._view.check_member(sender)
        task_id = TaskId(message.task_id)
        if not self._keeps(task_id):
            return False
        return self._directory.release(task_id, sender, now, others=message.others)

    def register(self, message: RegisterPeer, sender: NodeId, now: float) -> SessionReply:
        """A child opens a session, or comes over from another keeper.

        Raises `Busy` when it, or all together, have as many sessions here as they may have,
        `ProtocolError` if the task has another number of pieces, and `NotReady`.
        """
        self._view.check_member(sender)
        task_id = TaskId(message.task_id)
        refusal = self._refusal(task_id)
        if refusal is not None:
            return refusal
        match self._view.present(task_id):
            case (message.manifest_name, pieces) if pieces != message.piece_count:
                raise ProtocolError("the task has another number of pieces")
        earlier = self._swarms.child(sender, task_id)
        if earlier is not None:
            self._end(earlier)
        self._swarms.check_room(sender, message.piece_count)
        child = Child(
            node_id=sender,
            task_id=task_id,
            session=message.session,
            manifest_name=message.manifest_name,
            piece_count=message.piece_count,
            have=bits_of(message.have, message.piece_count),
            lease_until=now + self._config.lease_ttl_s,
            since=now if earlier is None else earlier.since,
            gained_at=now,
            zone=self._view.zone_of(sender),
            claimed=tuple(NodeId(parent) for parent in message.parents if parent != sender),
            version=earlier.version if earlier is not None else 0,
        )
        self._swarms.add(child)
        self._assign(child, now)
        if child.have:
            self._children_may_gain(task_id, sender, now)
        return _told(SessionReply, child, status="assigned")

    def report(self, message: ReportPieces, sender: NodeId, now: float) -> SessionReply:
        """A child tells what came in, and from whom."""
        task_id = TaskId(message.task_id)
        child = self._session(task_id, sender, message.session)
        refusal = self._refusal(task_id)
        if refusal is not None:
            if child is not None:
                self._end(child)
            return refusal
        if child is None:
            return SessionReply(status="unregistered")
        child.lease_until = now + self._config.lease_ttl_s
        for report in message.reports:
            parent = NodeId(report.parent)
            self._assignments.standings.measured(
                parent, sender, report.size_bytes, report.elapsed_ms / 1000
            )
            if report.size_bytes and parent in child.fed_at:
                child.fed_at[parent] = now
            if report.failures:
                self._assignments.standings.complained(parent, sender, now)
        for failure in message.failed:
            self._ban(child, NodeId(failure.parent), now)
        if any(NodeId(failure.parent) in child.parents for failure in message.failed):
            self._assign(child, now)
        had_none = not child.have
        before, child.have = child.have, child.have | bits_of(message.have, child.piece_count)
        if child.have != before:
            child.gained_at = now
        if had_none and child.have:
            self._swarms.of_task(task_id).gives(child)
            self._children_may_gain(task_id, sender, now)
        return _told(SessionReply, child, status="assigned")

    def leave(self, message: LeaveTask, sender: NodeId, now: float) -> None:
        """A session ends. One that is complete still counts as a holder for a lease, until its
        own announcement is here."""
        child = self._session(TaskId(message.task_id), sender, message.session)
        if child is None:
            return
        if not message.complete:
            self._end(child)
            return
        child.have = all_bits(child.piece_count)
        self._swarms.of_task(child.task_id).gives(child)
        child.done = True
        child.depth = 0
        child.lease_until = now + self._config.lease_ttl_s
        self._assignments.end(child)
        self._review_at(child, child.lease_until)
        self._children_may_gain(child.task_id, child.node_id, now)

    def member_down(self, node_id: NodeId, now: float) -> list[Effect]:
        """A member died or left: nobody is sent to it any more."""
        self._directory.forget(node_id)
        self._assignments.standings.forget(node_id)
        for child in self._swarms.of_peer(node_id):
            self._end(child)
        return self._reassign(self._assignments.fed_by(node_id), now)

    def generation_over(self, task_id: TaskId) -> list[Effect]:
        """A tombstone stands in the task's record, so its swarm is dissolved; or a later manifest,
        so holders of the earlier one are asked to announce anew."""
        proof = self._view.deletion(task_id)
        if proof is None:
            self._directory.task_replaced(task_id)
            return []
        self._directory.task_deleted(task_id)
        effects: list[Effect] = []
        for child in tuple(self._swarms.of_task(task_id).children.values()):
            self._end(child)
            message = AssignParents(
                task_id=task_id,
                session=child.session,
                version=child.version + 1,
                parents=(),
                deleted=proof,
            )
            if not child.done:
                effects.append(Push(child.node_id, message))
        return effects

    def next_timeout(self) -> float | None:
        """When `handle_timeout` is due (monotonic s), or None."""
        while self._reviews and self._due_child(self._reviews[0]) is None:
            heapq.heappop(self._reviews)
        review = self._reviews[0][0] if self._reviews else None
        lease = self._directory.next_timeout()
        return min((at for at in (review, lease) if at is not None), default=None)

    def handle_timeout(self, now: float) -> list[Effect]:
        """Ends what has run out, and reviews the children whose time has come."""
        effects: list[Effect] = []
        for node_id in self._directory.expire(now):
            self._directory.forget(node_id)
            effects += self._reassign(self._assignments.fed_by(node_id), now)
        while self._reviews and self._reviews[0][0] <= now:
            child = self._due_child(heapq.heappop(self._reviews))
            if child is None:
                continue
            if child.lease_until <= now:
                self._end(child)
            elif self._view.deletion(child.task_id) is not None:
                effects += self.generation_over(child.task_id)
            elif not child.done:
                effects += self._review(child, now)
        return effects

    def _keeps(self, task_id: TaskId) -> bool:
        return self._me in self._view.keepers_of(task_id)

    def _refusal(self, task_id: TaskId) -> SessionReply | None:
        if not self._keeps(task_id):
            keepers = self._view.keepers_of(task_id)
            return SessionReply(status="not_keeper", keepers=keepers)
        proof = self._view.deletion(task_id)
        return SessionReply(status="deleted", deleted=proof) if proof is not None else None

    def _session(self, task_id: TaskId, sender: NodeId, session: int) -> Child | None:
        child = self._swarms.child(sender, task_id)
        return child if child is not None and child.session == session and not child.done else None

    def _end(self, child: Child) -> None:
        self._assignments.end(child)
        child.review_at = float("inf")
        self._swarms.remove(child)

    def _ban(self, child: Child, parent: NodeId, now: float) -> None:
        self._assignments.standings.complained(parent, child.node_id, now)
        ban = child.banned.get(parent)
        times = 0 if ban is None else ban.times
        child.ban(parent, now + min(MAX_BAN_S, BAN_S * 2**times), min(times + 1, 10))

    def _tire(self, child: Child, now: float) -> None:
        """A child that gains nothing for very long has other parents in place of most of those that
        gave it nothing. It does not complain of who sends just enough to be no case for that."""
        if now < child.gained_at + HOPELESS_S:
            return
        idle = [
            parent for parent in child.parents if now >= child.fed_at.get(parent, now) + HOPELESS_S
        ]
        # Some stay, for a piece may take as long where all links are slow.
        for parent in idle[KEPT_PARENTS:]:
            child.ban(parent, now + TIRED_S)

    def _children_may_gain(self, task_id: TaskId, giver: NodeId, now: float) -> None:
        """`giver` can give pieces now: as many children without any parent as it has room for are
        reviewed at once, and others that want for parents soon."""
        room, zone = self._assignments.room(giver), self._view.zone_of(giver)
        for child in self._swarms.of_task(task_id).children.values():
            if child.done or len(child.parents) >= self._config.max_parents:
                continue
            earliest = child.reviewed_at + self._config.report_interval_s
            is_near = child.zone == zone and child.node_id != giver
            if room > 0 and not child.parents and is_near:
                room -= 1
                earliest = now
            self._review_at(child, min(child.review_at, max(now, earliest)))

    def _review_at(self, child: Child, at: float) -> None:
        if at != child.review_at:
            child.review_at = at
            heapq.heappush(self._reviews, (at, child.node_id, child.task_id))

    def _due_child(self, entry: tuple[float, NodeId, TaskId]) -> Child | None:
        at, node_id, task_id = entry
        child = self._swarms.child(node_id, task_id)
        return child if child is not None and child.review_at == at else None

    def _reassign(self, fed: Iterable[tuple[NodeId, TaskId]], now: float) -> list[Effect]:
        effects: list[Effect] = []
        for node_id, task_id in fed:
            child = self._swarms.child(node_id, task_id)
            effects += self._review(child, now) if child is not None else []
        return effects

    def _review(self, child: Child, now: float) -> list[Effect]:
        if not self._assign(child, now):
            return []
        message = _told(AssignParents, child, task_id=child.task_id, session=child.session)
        return [Push(child.node_id, message)]

    def _assign(self, child: Child, now: float) -> bool:
        """Chooses the child's parents anew; whether that changed who they are."""
        child.reviewed_at = now
        self._tire(child, now)
        self._review_at(child, now + REVIEW_INTERVAL_S)
        assigned = self._assignments.assign(child, self._swarms.of_task(child.task_id), now)
        for other in assigned.robbed:
            self._review_at(other, now)
        return assigned.changed


def _told(make: Callable[..., M], child: Child, **more: Any) -> M:
    """A message with the child's assignment."""
    border = child.border
    return make(
        version=child.version,
        parents=child.parents,
        far=border.parents,
        shares=border.shares,
        **more,
    )
