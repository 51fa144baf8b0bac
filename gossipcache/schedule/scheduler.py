"""Core: the keeper side of the swarms. Who downloads what, and from whom.

Inputs carry the monotonic time `now` and give back effects. A task's possible parents are the
holders that announced it (`Directory`) and its children with what they have by then. Each
child is *reviewed* when it registers, when it loses a parent, soon after somebody new can give
pieces, and else once a second: the policy chooses anew, and a changed choice is pushed.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from gossipcache.config import ScheduleConfig
from gossipcache.errors import Busy
from gossipcache.identity import Signed
from gossipcache.ids import NodeId, TaskId
from gossipcache.messages.announcements import (
    MAX_HOLDERS,
    AnnounceReply,
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
from gossipcache.schedule.directory import Directory
from gossipcache.schedule.parents import Candidate, choose_parents
from gossipcache.schedule.standing import Standings
from gossipcache.schedule.task import Ban, Child, View, all_bits, bits_of

REVIEW_INTERVAL_S = 1.0
MAX_CANDIDATES = 64
"""Considered in one review; of more, a random sample."""
MAX_CHILDREN = 16
"""Children that one parent feeds at once, over all tasks, while others can."""
BAN_S = 5.0
MAX_BAN_S = 300.0
MAX_BANS = 64
MAX_SESSIONS_PER_PEER = 1024
MAX_PIECES_PER_PEER = 2**26
"""Pieces of all sessions of one peer; their bit sets then take at most 8 MiB."""
MAX_PIECES_IN_ALL = 2**29
"""Pieces of all sessions; their bit sets then take at most 64 MiB."""


@dataclass(frozen=True, slots=True)
class Push:
    """Send `message` to the child `to`, unasked."""

    to: NodeId
    message: AssignParents


Effect = Push

K = TypeVar("K")
V = TypeVar("V")
X = TypeVar("X")


class Scheduler:
    """All swarms of the tasks that this node keeps. `view`: what the rest of the node knows."""

    def __init__(
        self,
        config: ScheduleConfig,
        cluster_id: bytes,
        me: NodeId,
        view: View,
        rng: random.Random,
    ) -> None:
        self._config = config
        self._me = me
        self._view = view
        self._rng = rng
        self._directory = Directory(config, cluster_id, me, view)
        self._standings = Standings()
        self._swarms: dict[TaskId, dict[NodeId, Child]] = {}
        self._sessions_of: dict[NodeId, dict[TaskId, None]] = {}
        self._piece_count = 0
        """Of all sessions."""
        self._fed_by: dict[NodeId, dict[tuple[NodeId, TaskId], None]] = {}
        """Parent → the children it is assigned to."""
        self._reviews: list[tuple[float, NodeId, TaskId]] = []
        """A heap; an entry is void unless it bears the child's present `review_at`."""

    def announce(
        self, signed: Signed, sender: NodeId, now: float, wall_time: float
    ) -> AnnounceReply:
        """A batch of announcements came in; children that it can help are reviewed soon."""
        taken = self._directory.announce(signed, sender, now, wall_time)
        for task_id in (*taken.held, *taken.withdrawn):
            child = self._swarms.get(task_id, {}).get(sender)
            if child is not None and child.done:
                self._end(child)
        for task_id in taken.held:
            self._children_may_gain(task_id, now)
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
        for child in self._providers(task_id, self._view.manifest_name(task_id)):
            known = found.get(child.node_id)
            lacking &= child.missing
            pieces = child.have.bit_count()
            if pieces and (known is None or known.pieces < pieces):
                complete = pieces == child.piece_count
                found[child.node_id] = HolderEntry(child.node_id, pieces, complete)
        ranked = sorted(found.values(), key=lambda entry: (not entry.complete, -entry.pieces))
        covered = lacking == 0 or any(entry.complete for entry in ranked)
        return HoldersReply(holders=tuple(ranked[:MAX_HOLDERS]), covered=covered)

    def release(self, task_id: TaskId, sender: NodeId, now: float) -> bool:
        """Whether `sender` may drop its complete copy; see `Directory.release`. Raises
        `NotReady`."""
        self._view.check_member(sender)
        return self._keeps(task_id) and self._directory.release(task_id, sender, now)

    def register(self, message: RegisterPeer, sender: NodeId, now: float) -> SessionReply:
        """A child opens a session, or comes over from another keeper.

        Raises `Busy` when it, or all together, have as many sessions here as they may have, and
        `NotReady`.
        """
        self._view.check_member(sender)
        task_id = TaskId(message.task_id)
        refusal = self._refusal(task_id)
        if refusal is not None:
            return refusal
        earlier = self._swarms.get(task_id, {}).get(sender)
        if earlier is not None:
            self._end(earlier)
        self._check_room(sender, message.piece_count)
        child = Child(
            node_id=sender,
            task_id=task_id,
            session=message.session,
            manifest_name=message.manifest_name,
            piece_count=message.piece_count,
            have=bits_of(message.have, message.piece_count),
            lease_until=now + self._config.lease_ttl_s,
            claimed=tuple(NodeId(parent) for parent in message.parents if parent != sender),
            version=earlier.version if earlier is not None else 0,
        )
        self._piece_count += child.piece_count
        self._swarms.setdefault(task_id, {})[sender] = child
        self._sessions_of.setdefault(sender, {})[task_id] = None
        self._assign(child, now)
        if child.have:
            self._children_may_gain(task_id, now)
        return _standing_of(child)

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
            self._standings.measured(parent, report.size_bytes, report.elapsed_ms / 1000)
            if report.failures:
                self._standings.complained(parent, sender, now)
        for failure in message.failed:
            self._ban(child, NodeId(failure.parent), now)
        if any(NodeId(failure.parent) in child.parents for failure in message.failed):
            self._assign(child, now)
        had_none = not child.have
        child.have |= bits_of(message.have, child.piece_count)
        if had_none and child.have:
            self._children_may_gain(task_id, now)
        return _standing_of(child)

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
        child.done = True
        child.depth = 0
        child.lease_until = now + self._config.lease_ttl_s
        self._feed(child, ())
        self._review_at(child, child.lease_until)
        self._children_may_gain(child.task_id, now)

    def member_down(self, node_id: NodeId, now: float) -> list[Effect]:
        """A member died or left: nobody is sent to it any more."""
        self._directory.forget(node_id)
        self._standings.forget(node_id)
        for task_id in tuple(self._sessions_of.get(node_id, {})):
            self._end(self._swarms[task_id][node_id])
        return self._reassign(tuple(self._fed_by.get(node_id, {})), now)

    def generation_over(self, task_id: TaskId) -> list[Effect]:
        """A tombstone stands in the task's record, so its swarm is dissolved; or a later manifest,
        so holders of the earlier one are asked to announce anew."""
        proof = self._view.deletion(task_id)
        if proof is None:
            self._directory.task_replaced(task_id)
            return []
        self._directory.task_deleted(task_id)
        effects: list[Effect] = []
        for child in tuple(self._swarms.get(task_id, {}).values()):
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
            effects += self._reassign(tuple(self._fed_by.get(node_id, {})), now)
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

    def _check_room(self, sender: NodeId, piece_count: int) -> None:
        open_tasks = self._sessions_of.get(sender, {})
        pieces = sum(self._swarms[task_id][sender].piece_count for task_id in open_tasks)
        if len(open_tasks) >= MAX_SESSIONS_PER_PEER or pieces + piece_count > MAX_PIECES_PER_PEER:
            raise Busy("too many downloads of one node at this scheduler")
        if self._piece_count + piece_count > MAX_PIECES_IN_ALL:
            raise Busy("too many downloads at this scheduler")

    def _session(self, task_id: TaskId, sender: NodeId, session: int) -> Child | None:
        child = self._swarms.get(task_id, {}).get(sender)
        return child if child is not None and child.session == session and not child.done else None

    def _end(self, child: Child) -> None:
        self._feed(child, ())
        self._piece_count -= child.piece_count
        child.review_at = float("inf")
        _discard(self._swarms, child.task_id, child.node_id)
        _discard(self._sessions_of, child.node_id, child.task_id)

    def _ban(self, child: Child, parent: NodeId, now: float) -> None:
        self._standings.complained(parent, child.node_id, now)
        ban = child.banned.setdefault(parent, Ban(now, 0))
        ban.until = now + min(MAX_BAN_S, BAN_S * 2**ban.times)
        ban.times = min(ban.times + 1, 10)
        if len(child.banned) > MAX_BANS:
            del child.banned[next(iter(child.banned))]

    def _providers(self, task_id: TaskId, name: bytes | None) -> Iterator[Child]:
        for child in self._swarms.get(task_id, {}).values():
            if (name is None or child.manifest_name == name) and self._view.is_alive(child.node_id):
                yield child

    def _children_may_gain(self, task_id: TaskId, now: float) -> None:
        """Somebody new can give pieces: children that want for parents are reviewed soon."""
        for child in self._swarms.get(task_id, {}).values():
            if not child.done and len(child.parents) < self._config.max_parents:
                earliest = child.reviewed_at + self._config.report_interval_s
                self._review_at(child, min(child.review_at, max(now, earliest)))

    def _review_at(self, child: Child, at: float) -> None:
        if at != child.review_at:
            child.review_at = at
            heapq.heappush(self._reviews, (at, child.node_id, child.task_id))

    def _due_child(self, entry: tuple[float, NodeId, TaskId]) -> Child | None:
        at, node_id, task_id = entry
        child = self._swarms.get(task_id, {}).get(node_id)
        return child if child is not None and child.review_at == at else None

    def _reassign(self, fed: Iterable[tuple[NodeId, TaskId]], now: float) -> list[Effect]:
        effects: list[Effect] = []
        for node_id, task_id in fed:
            effects += self._review(self._swarms[task_id][node_id], now)
        return effects

    def _review(self, child: Child, now: float) -> list[Effect]:
        if not self._assign(child, now):
            return []
        message = AssignParents(
            task_id=child.task_id,
            session=child.session,
            version=child.version,
            parents=child.parents,
        )
        return [Push(child.node_id, message)]

    def _assign(self, child: Child, now: float) -> bool:
        """Chooses the child's parents anew; whether that changed who they are."""
        chosen = choose_parents(
            self._candidates(child, now),
            child=child.node_id,
            max_parents=self._config.max_parents,
            max_children=MAX_CHILDREN,
        )
        child.reviewed_at = now
        self._review_at(child, now + REVIEW_INTERVAL_S)
        changed = child.version == 0 or set(chosen) != set(child.parents)
        if changed:
            self._feed(child, chosen)
            child.version += 1
            child.depth = 1 + min(
                (self._depth(parent, child.task_id) for parent in chosen), default=0
            )
        return changed

    def _feed(self, child: Child, parents: tuple[NodeId, ...]) -> None:
        key = (child.node_id, child.task_id)
        for parent in child.parents:
            _discard(self._fed_by, parent, key)
        for parent in parents:
            self._fed_by.setdefault(parent, {})[key] = None
        child.parents = parents

    def _depth(self, parent: NodeId, task_id: TaskId) -> int:
        feeding = self._swarms.get(task_id, {}).get(parent)
        return feeding.depth if feeding is not None else 0

    def _candidates(self, child: Child, now: float) -> list[Candidate]:
        missing = child.missing
        lacking = missing.bit_count()
        useful: dict[NodeId, float] = {}
        if not lacking:
            return []
        for parent in child.claimed:
            if self._view.is_alive(parent):
                useful[parent] = 0.5
        for parent, held in self._directory.holders(child.task_id):
            if held.manifest_name == child.manifest_name:
                useful[parent] = held.pieces / max(1, held.piece_count)
        for other in self._providers(child.task_id, child.manifest_name):
            share = (other.have & missing).bit_count() / lacking
            announced = useful.get(other.node_id, 0.0)
            useful[other.node_id] = 1.0 if announced == 1.0 else share
        useful.pop(child.node_id, None)
        able = [
            parent
            for parent, share in useful.items()
            if share > 0 and not self._is_banned(child, parent, now)
        ]
        if len(able) > MAX_CANDIDATES:
            kept = [parent for parent in child.parents if parent in useful]
            able = list(dict.fromkeys(kept + self._rng.sample(able, MAX_CANDIDATES)))
        return [self._candidate(child, parent, useful[parent], now) for parent in able]

    def _candidate(self, child: Child, parent: NodeId, useful: float, now: float) -> Candidate:
        is_parent = parent in child.parents
        return Candidate(
            node_id=parent,
            useful=useful,
            children=len(self._fed_by.get(parent, {})) - is_parent,
            rate_bytes_s=self._standings.rate_bytes_s(parent),
            complainers=self._standings.complainers(parent, now),
            depth=self._depth(parent, child.task_id),
            is_parent=is_parent,
        )

    def _is_banned(self, child: Child, parent: NodeId, now: float) -> bool:
        ban = child.banned.get(parent)
        return ban is not None and now < ban.until


def _standing_of(child: Child) -> SessionReply:
    return SessionReply(status="assigned", version=child.version, parents=child.parents)


def _discard(index: dict[K, dict[V, X]], key: K, value: V) -> None:
    """Takes `value` out of the entry of `key`, and the entry out once it is empty."""
    entry = index.get(key, {})
    entry.pop(value, None)
    if not entry:
        index.pop(key, None)
