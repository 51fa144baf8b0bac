"""Shell, keeper side: the scheduler that peers announce to and register with."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from gossipcache.cluster import Cluster
from gossipcache.config import ScheduleConfig
from gossipcache.env import Env
from gossipcache.errors import GossipcacheError
from gossipcache.identity import Identity
from gossipcache.ids import NodeId, TaskId
from gossipcache.link.interface import Links, Peer
from gossipcache.messages.announcements import (
    Announce,
    AnnounceReply,
    AskHolders,
    AskRelease,
    Heartbeat,
    HeartbeatReply,
    HoldersReply,
    ReleaseReply,
)
from gossipcache.messages.batches import MAX_NAMED_HOLDERS
from gossipcache.messages.sessions import LeaveTask, RegisterPeer, ReportPieces, SessionReply
from gossipcache.metrics import Metrics
from gossipcache.schedule.alarm import Alarm
from gossipcache.schedule.scheduler import Push, Scheduler
from gossipcache.schedule.task import RecordView, RingView, View

PUSH_TIMEOUT_S = 2.0


class SchedulerService:
    """The keeper side, for nodes with the scheduler role.

    `record_of` gives what this node's own record keeper has of a task; `on_void` hears of nodes
    that sent so many statements whose signatures do not hold.
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
        record_of: Callable[[TaskId], RecordView | None],
        ring: Callable[[], RingView],
        is_alive: Callable[[NodeId], bool],
        zone_of: Callable[[NodeId], str] = lambda _node: "",
        record_copies: int = 3,
        on_void: Callable[[NodeId, int], None] = lambda _node, _count: None,
    ) -> None:
        self._on_void = on_void
        self._zone_of = zone_of
        self._env = env
        self._links = links
        self._metrics = metrics
        view = View(
            record_of, lambda task_id: ring().keepers(task_id, record_copies), is_alive, zone_of
        )
        self._core = Scheduler(config, cluster.cluster_id, identity.node_id, view, env.rng)
        self._outbox: deque[Push] = deque()
        self._alarm = Alarm()
        links.handle(Announce, self._on_announce)
        links.handle(Heartbeat, self._on_heartbeat)
        links.handle(AskHolders, self._on_ask_holders)
        links.handle(AskRelease, self._on_ask_release)
        links.handle(RegisterPeer, self._on_register)
        links.handle(ReportPieces, self._on_report)
        links.handle(LeaveTask, self._on_leave)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reviews, expires and pushes until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                self._outbox += self._core.handle_timeout(trio.current_time())
                while self._outbox:
                    nursery.start_soon(self._push, self._outbox.popleft())
                await self._alarm.wait_until(self._core.next_timeout())

    def member_down(self, node_id: NodeId) -> None:
        """Membership found the node dead or gone: nobody is sent to it any more."""
        self._outbox += self._core.member_down(node_id, trio.current_time())
        self._alarm.ring()

    def generation_over(self, task_id: TaskId) -> None:
        """A tombstone, or a later manifest, is in the task's record: whom that concerns is told."""
        self._outbox += self._core.generation_over(task_id)
        self._alarm.ring()

    def name_holders(self, task_id: TaskId, asker: NodeId) -> tuple[NodeId, ...]:
        """Some other nodes that have all of the task, at random, those in the asker's zone first;
        none if its record is not kept here."""
        complete = [node for node in self._core.complete_holders(task_id) if node != asker]
        if len(complete) > 1:
            self._env.rng.shuffle(complete)
            zone = self._zone_of(asker)
            complete.sort(key=lambda node: self._zone_of(node) != zone)
        return tuple(complete[:MAX_NAMED_HOLDERS])

    async def _push(self, push: Push) -> None:
        with trio.move_on_after(PUSH_TIMEOUT_S):
            try:
                await self._links.notify(push.to, push.message)
            except GossipcacheError:
                self._metrics.count("assignments_undelivered")

    async def _on_announce(self, peer: Peer, message: Announce) -> AnnounceReply:
        reply = self._core.announce(
            message.batch, peer.node_id, trio.current_time(), self._env.wall_time()
        )
        self._count(peer, reply)
        return reply

    async def _on_heartbeat(self, peer: Peer, message: Heartbeat) -> HeartbeatReply:
        reply = self._core.heartbeat(
            message.statement, peer.node_id, trio.current_time(), self._env.wall_time()
        )
        self._count(peer, reply)
        return reply

    async def _on_ask_holders(self, peer: Peer, message: AskHolders) -> HoldersReply:
        return self._core.holders(TaskId(message.task_id))

    async def _on_ask_release(self, peer: Peer, message: AskRelease) -> ReleaseReply:
        now = trio.current_time()
        granted = self._core.release(message, peer.node_id, now)
        return ReleaseReply(granted=granted)

    async def _on_register(self, peer: Peer, message: RegisterPeer) -> SessionReply:
        self._alarm.ring()
        return self._core.register(message, peer.node_id, trio.current_time())

    async def _on_report(self, peer: Peer, message: ReportPieces) -> SessionReply:
        self._alarm.ring()
        return self._core.report(message, peer.node_id, trio.current_time())

    async def _on_leave(self, peer: Peer, message: LeaveTask) -> None:
        self._alarm.ring()
        self._core.leave(message, peer.node_id, trio.current_time())

    def _count(self, peer: Peer, reply: AnnounceReply | HeartbeatReply) -> None:
        if reply.dropped == "altered":
            self._on_void(peer.node_id, 1)
        outcome = "accepted" if reply.dropped is None else f"dropped_{reply.dropped}"
        self._metrics.count(f"announcements_{outcome}")
        self._alarm.ring()
