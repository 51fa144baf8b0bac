"""Shell, peer side: a node's own announcements, its lookups and its sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from gossipcache.cluster import Cluster
from gossipcache.config import ScheduleConfig
from gossipcache.env import Env
from gossipcache.errors import GossipcacheError, NodeUnreachable, TimedOut
from gossipcache.identity import Identity, Signed
from gossipcache.ids import NodeId, TaskId
from gossipcache.link.interface import Links, Peer
from gossipcache.manifest import SignedManifest
from gossipcache.messages.announcements import (
    AnnounceReply,
    AskHolders,
    AskRelease,
    DeletedTask,
    HeartbeatReply,
    HoldersReply,
    ReleaseReply,
)
from gossipcache.messages.sessions import (
    AssignParents,
)
from gossipcache.metrics import Metrics
from gossipcache.schedule.alarm import Alarm
from gossipcache.schedule.announcement import Held
from gossipcache.schedule.announcer import (
    Announcer,
    DropDeleted,
    Effect,
    RestoreRecord,
    SendBatch,
    SendHeartbeat,
)
from gossipcache.schedule.repairs import Repairs
from gossipcache.schedule.session import Session
from gossipcache.schedule.task import RingView
from gossipcache.swarm import Swarm

REQUEST_TIMEOUT_S = 5.0
LEAVE_TIMEOUT_S = 2.0

STRAGGLER_WAIT_S = 0.3
"""After the first keeper's answer, how long a lookup waits for the others."""
FLUSH_WAIT_S = 0.1
"""After one keeper knows of an announcement, how long a flush waits for the others."""
LAST_WAIT_S = 0.05
"""The same, once most keepers answered and holders of every piece are known."""
MAX_ASKED = 9
MAX_RESTORES = 4
MAX_DROPS = 16


@dataclass(frozen=True, slots=True)
class HolderInfo:
    """An alive node that has pieces of a task, as its keepers know it."""

    node_id: NodeId
    pieces: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Holders:
    """The alive nodes that have pieces of a task, complete ones first, by all keepers that
    answered; `covered`: whether they have every piece between them."""

    known: tuple[HolderInfo, ...]
    covered: bool


OnDeleted = Callable[[Signed, Signed], Awaitable[None]]
"""Given a tombstone and the manifest it embeds, both still to be checked: drop the task and
call `AnnounceService.drop`, or ignore it if it does not hold for what is there."""


class AnnounceService:
    """The peer side: what this node holds, who holds what, and sessions of downloads.

    `restore(task_id)` is awaited when a keeper lacks the record of a task held here.
    """

    def __init__(
        self,
        env: Env,
        config: ScheduleConfig,
        identity: Identity,
        cluster: Cluster,
        links: Links,
        metrics: Metrics,
        *,
        ring: Callable[[], RingView],
        is_alive: Callable[[NodeId], bool],
        on_deleted: OnDeleted,
        restore: Callable[[TaskId], Awaitable[None]],
        record_copies: int = 3,
    ) -> None:
        self._env = env
        self._config = config
        self._links = links
        self._metrics = metrics
        self._ring = ring
        self._is_alive = is_alive
        self._on_deleted = on_deleted
        self._restore = restore
        self._record_copies = record_copies
        self._core = Announcer(
            config, identity, cluster.cluster_id, self._keepers_of, is_alive, env.rng
        )
        self._alarm = Alarm()
        self._settled = trio.Event()

        def failed() -> None:
            metrics.count("announcement_repairs_failed")

        self._restores = Repairs(MAX_RESTORES, failed)
        self._drops = Repairs(MAX_DROPS, failed)
        self._sessions: dict[int, Session] = {}
        self._last_session = 0
        self._epoch: bytes | None = None
        self._nursery: trio.Nursery | None = None
        links.handle(AssignParents, self._on_assign)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Announces, renews and keeps sessions going until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            while True:
                now = trio.current_time()
                self._perform(nursery, self._core.handle_timeout(now, self._env.wall_time()))
                await self._alarm.wait_until(self._core.next_timeout())

    def set(
        self, task_id: TaskId, manifest_name: bytes, pieces_have: int, piece_count: int
    ) -> None:
        """From now on this node serves so many pieces of that manifest of the task."""
        held = Held(task_id, manifest_name, pieces_have, piece_count)
        self._core.hold(held, trio.current_time())
        self._alarm.ring()

    def drop(self, task_id: TaskId) -> None:
        """This node no longer holds the task."""
        self._core.drop(task_id)
        self._alarm.ring()

    def on_ring_change(self) -> None:
        """The ring changed, or members died or came back."""
        epoch = self._ring().epoch
        if epoch != self._epoch:
            self._epoch = epoch
            self._core.ring_changed(trio.current_time())
        else:
            self._core.members_changed(trio.current_time())
        self._alarm.ring()
        for session in self._sessions.values():
            session.ring_changed()

    def is_taken(self, task_id: TaskId) -> bool:
        """Whether a keeper that has the task's record knows of this node's copy, since its start:
        until then the task may have been deleted while this node was away."""
        return self._core.is_taken(task_id)

    async def flush(self, task_id: TaskId, timeout_s: float) -> None:
        """Returns when the task's keepers know what was `set` or dropped.

        An unreachable one of them is not waited for, as long as one answered, and a slow one only
        for a moment. Raises `TimedOut`.
        """
        if await self.flush_all((task_id,), timeout_s):
            raise not_announced()

    async def flush_all(self, task_ids: Collection[TaskId], timeout_s: float) -> frozenset[TaskId]:
        """`flush` for many at once; which of them no keeper has taken in time."""
        core = self._core
        open_ones = dict.fromkeys(task_ids)
        with trio.move_on_after(timeout_s) as scope:
            while open_ones := {one: None for one in open_ones if not core.is_settled(one)}:
                if all(core.is_told(one) for one in open_ones):
                    straggling_until = trio.current_time() + FLUSH_WAIT_S
                    scope.deadline = min(scope.deadline, straggling_until)
                await self._settled.wait()
        return frozenset(one for one in open_ones if not core.is_told(one))

    async def holders(self, task_id: TaskId, timeout_s: float) -> Holders:
        """Who has pieces of the task now.

        Raises `NodeUnreachable` if there are keepers and none of them answers.
        """
        keepers = [keeper for keeper in self._keepers_of(task_id) if self._is_alive(keeper)]
        found: dict[NodeId, HolderInfo] = {}
        asked: dict[NodeId, None] = {}
        answers = 0
        covered = False

        async def ask(keeper: NodeId) -> None:
            nonlocal answers, covered
            try:
                reply = await self._links.request(
                    keeper, AskHolders(task_id=task_id), HoldersReply, timeout_s
                )
            except GossipcacheError:
                return
            ask_all(NodeId(node_id) for node_id in reply.keepers)
            if reply.keepers:
                return
            answers += 1
            covered |= reply.covered
            for entry in reply.holders:
                info = HolderInfo(NodeId(entry.node_id), entry.pieces, entry.complete)
                known = found.get(info.node_id)
                if known is None or known.pieces < info.pieces:
                    found[info.node_id] = info
            suffices = covered and answers > len(keepers) // 2
            wait_s = LAST_WAIT_S if suffices else STRAGGLER_WAIT_S
            scope = nursery.cancel_scope
            scope.deadline = min(scope.deadline, trio.current_time() + wait_s)

        def ask_all(nodes: Iterable[NodeId]) -> None:
            for node in nodes:
                if node not in asked and len(asked) < MAX_ASKED:
                    asked[node] = None
                    nursery.start_soon(ask, node)

        with trio.move_on_after(timeout_s):
            async with trio.open_nursery() as nursery:
                ask_all(keepers)
        if keepers and not answers:
            raise NodeUnreachable("no keeper of the task's record tells who holds it")
        alive = [info for info in found.values() if self._is_alive(info.node_id)]
        return Holders(
            tuple(sorted(alive, key=lambda info: (not info.complete, -info.pieces))), covered
        )

    async def release(self, task_id: TaskId, timeout_s: float, *, others: int = 1) -> bool:
        """Whether this node may drop its complete copy within the next 30 s.

        More than half of the task's keepers must know of `others` complete, alive copies whose
        holders have no such leave; a keeper that does not answer grants nothing.
        """
        keepers = self._keepers_of(task_id)
        granted = 0

        async def ask(keeper: NodeId) -> None:
            nonlocal granted
            try:
                reply = await self._links.request(
                    keeper, AskRelease(task_id=task_id, others=others), ReleaseReply, timeout_s
                )
            except GossipcacheError:
                return
            granted += reply.granted

        async with trio.open_nursery() as nursery:
            for keeper in keepers:
                nursery.start_soon(ask, keeper)
        return granted > len(keepers) // 2

    @asynccontextmanager
    async def session(
        self, manifest: SignedManifest, have: Collection[int]
    ) -> AsyncIterator[Swarm]:
        """Membership in the task's swarm for a download that has the pieces `have` already.

        Where the task is found deleted, this node's pieces of it are dropped before the end.
        """
        if self._nursery is None:
            raise RuntimeError("sessions need the service to run")
        self._last_session = number = max(self._last_session + 1, int(self._env.wall_time() * 1e6))
        session = Session(
            self._env,
            self._config,
            self._links,
            manifest,
            have,
            number=number,
            keepers_of=self._keepers_of,
            is_alive=self._is_alive,
        )
        scope = trio.CancelScope()
        self._sessions[number] = session
        self._nursery.start_soon(_run_session, session, scope)
        try:
            yield session
        finally:
            del self._sessions[number]
            scope.cancel()
            if session.deletion is not None:
                with trio.CancelScope(shield=True):
                    await self._drop_deleted(session.deletion)

    def _keepers_of(self, task_id: TaskId) -> tuple[NodeId, ...]:
        return self._ring().keepers(task_id, self._record_copies)

    async def _on_assign(self, peer: Peer, message: AssignParents) -> None:
        session = self._sessions.get(message.session)
        if session is not None and session.task_id == message.task_id:
            session.assigned(message, peer.node_id)

    def _perform(self, nursery: trio.Nursery, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendBatch():
                    nursery.start_soon(self._send_batch, nursery, effect)
                case SendHeartbeat():
                    nursery.start_soon(self._send_heartbeat, nursery, effect)
                case RestoreRecord(task_id):
                    self._restores.add(nursery, task_id, partial(self._restore, task_id))
                case DropDeleted(proof):
                    drop = partial(self._drop_deleted, proof)
                    self._drops.add(nursery, TaskId(proof.task_id), drop)

    async def _send_batch(self, nursery: trio.Nursery, send: SendBatch) -> None:
        try:
            reply = await self._links.request(
                send.keeper, send.message, AnnounceReply, REQUEST_TIMEOUT_S
            )
        except GossipcacheError:
            self._core.failed(send.keeper, send.sequence, trio.current_time())
        else:
            now = trio.current_time()
            self._perform(
                nursery, self._core.batch_answered(send.keeper, send.sequence, reply, now)
            )
            self._count(reply)
        self._answered()

    async def _send_heartbeat(self, nursery: trio.Nursery, send: SendHeartbeat) -> None:
        try:
            reply = await self._links.request(
                send.keeper, send.message, HeartbeatReply, REQUEST_TIMEOUT_S
            )
        except GossipcacheError:
            self._core.failed(send.keeper, send.sequence, trio.current_time())
        else:
            now = trio.current_time()
            self._perform(
                nursery, self._core.heartbeat_answered(send.keeper, send.sequence, reply, now)
            )
            self._count(reply)
        self._answered()

    def _answered(self) -> None:
        self._alarm.ring()
        self._settled.set()
        self._settled = trio.Event()

    def _count(self, reply: AnnounceReply | HeartbeatReply) -> None:
        if reply.dropped is not None:
            self._metrics.count(f"announcements_refused_{reply.dropped}")

    async def _drop_deleted(self, proof: DeletedTask) -> None:
        try:
            await self._on_deleted(proof.tombstone, proof.manifest)
        except GossipcacheError:
            self._metrics.count("deletions_not_carried_out")


def not_announced() -> TimedOut:
    """The error for a task that is here, and that no keeper has heard of in time."""
    return TimedOut(
        "no scheduler has taken the announcement of the task yet",
        "it is retried; see `gossipcache members` for schedulers that are alive",
    )


async def _run_session(session: Session, scope: trio.CancelScope) -> None:
    with scope:
        await session.run()
    with trio.move_on_after(LEAVE_TIMEOUT_S):
        await session.leave()
