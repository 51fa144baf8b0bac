"""Who holds what, and who fetches from whom, on the heap of events.

The cores are `schedule.Announcer` on each node and `schedule.Scheduler` on each scheduler; what
their shells do (`schedule.service`, `schedule.scheduling`) is done here as callbacks.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from gossipcache.config import ScheduleConfig
from gossipcache.dht.membership.member import Member
from gossipcache.errors import GossipcacheError, ProtocolError
from gossipcache.identity import Identity
from gossipcache.ids import NodeId, TaskId
from gossipcache.messages.announcements import (
    Announce,
    AskHolders,
    DeletedTask,
    Heartbeat,
)
from gossipcache.messages.sessions import (
    AssignParents,
    LeaveTask,
    RegisterPeer,
    ReportPieces,
)
from gossipcache.schedule.announcement import Held
from gossipcache.schedule.announcer import (
    Announcer,
    DropDeleted,
    RestoreRecord,
    SendBatch,
    SendHeartbeat,
)
from gossipcache.schedule.announcer import Effect as ToAnnounce
from gossipcache.schedule.scheduler import Effect as ToPush
from gossipcache.schedule.scheduler import Scheduler
from gossipcache.schedule.service import REQUEST_TIMEOUT_S
from gossipcache.schedule.task import RecordView, View
from gossipcache.wire import Message
from sim.bare.alarm import Alarm
from sim.bare.membership import BareMembership
from sim.bare.outcome import begin
from sim.bare.timeline import Timeline
from sim.bare.wire import Wire

REPLICAS = 3


class BareScheduling:
    """One process's announcements and, of a scheduler, its swarms."""

    answers: frozenset[type[Message]] = frozenset(
        (Announce, AskHolders, AssignParents, Heartbeat, LeaveTask, RegisterPeer, ReportPieces)
    )

    def __init__(
        self,
        membership: BareMembership,
        timeline: Timeline,
        wire: Wire,
        *,
        identity: Identity,
        cluster_id: bytes,
        rng: random.Random,
        wall_time: Callable[[], float],
        record_of: Callable[[TaskId], RecordView | None],
        is_scheduler: bool,
        config: ScheduleConfig,
    ) -> None:
        self._membership = membership
        self._process = membership.process
        self._timeline = timeline
        self._wall_time = wall_time
        self.on_assign: dict[int, Callable[[AssignParents, NodeId], None]] = {}
        """Who hears of pushes, by session."""
        self.on_view_changed: dict[int, Callable[[], None]] = {}
        """Who hears of changes of the view, by session."""
        self.on_unknown: Callable[[TaskId], None] = lambda _task_id: None
        """Hears of a task held here whose record a keeper lacks."""
        self.on_deleted: Callable[[DeletedTask], None] = lambda _proof: None
        """Hears of the proof that a task held here was deleted."""
        is_alive = membership.is_alive
        self.announcer = Announcer(config, identity, cluster_id, self.keepers_of, is_alive, rng)
        self._announces = Alarm(
            timeline, self._process, self.announcer.next_timeout, self._announce
        )
        self.scheduler: Scheduler | None = None
        if is_scheduler:
            view = View(record_of, self.keepers_of, is_alive, membership.zone_of)
            self.scheduler = scheduler = Scheduler(
                config, cluster_id, identity.node_id, view, rng, wire.check
            )
            self._reviews = Alarm(timeline, self._process, scheduler.next_timeout, self._review)

    def keepers_of(self, task_id: TaskId) -> tuple[NodeId, ...]:
        """By the present ring."""
        return self._membership.ring.keepers(task_id, REPLICAS)

    def hold(self, held: Held) -> None:
        """From now on this node holds so much of a task."""
        self.announcer.hold(held, self._timeline.now)
        self._announces.set()

    def drop(self, task_id: TaskId) -> None:
        """This node holds a task no more."""
        self.announcer.drop(task_id)
        self._announces.set()

    def generation_over(self, task_id: TaskId) -> None:
        """A keeper here knows, durably, that a generation of a task is over."""
        if self.scheduler is not None:
            self._push(self.scheduler.generation_over(task_id))

    def on_view_change(self, changed: Sequence[Member], *, new_ring: bool) -> None:
        """Passes on who is gone, and that the ring is another."""
        now = self._timeline.now
        if new_ring:
            self.announcer.ring_changed(now)
        else:
            self.announcer.members_changed(now)
        self._announces.set()
        for member in changed:
            if self.scheduler is not None and not member.is_live:
                self._push(self.scheduler.member_down(member.node_id, now))
        for tell in list(self.on_view_changed.values()):
            tell()

    def answer(self, peer: NodeId, message: Message) -> Message | None:
        """Handles a request, or a push to a session. Raises `GossipcacheError`."""
        if isinstance(message, AssignParents):
            listener = self.on_assign.get(message.session)
            if listener is not None:
                listener(message, peer)
            return None
        if self.scheduler is None:
            raise ProtocolError("this node is no scheduler")
        reply = self._schedule(self.scheduler, peer, message)
        self._reviews.set()
        return reply

    def _schedule(self, core: Scheduler, peer: NodeId, message: Message) -> Message | None:
        now = self._timeline.now
        match message:
            case RegisterPeer():
                return core.register(message, peer, now)
            case ReportPieces():
                return core.report(message, peer, now)
            case LeaveTask():
                core.leave(message, peer, now)
                return None
            case Announce(batch=batch):
                return core.announce(batch, peer, now, self._wall_time())
            case Heartbeat(statement=statement):
                return core.heartbeat(statement, peer, now, self._wall_time())
            case AskHolders(task_id=task_id):
                return core.holders(TaskId(task_id))
            case _:
                raise ProtocolError(f"no bare scheduler answers {type(message).__name__}")

    def _review(self) -> None:
        if self.scheduler is not None:
            self._push(self.scheduler.handle_timeout(self._timeline.now))

    def _push(self, effects: list[ToPush]) -> None:
        for push in effects:
            self._process.notify(push.to, push.message)
        self._reviews.set()

    def _announce(self) -> None:
        effects = self.announcer.handle_timeout(self._timeline.now, self._wall_time())
        self._send(effects)

    def _send(self, effects: list[ToAnnounce]) -> None:
        for effect in effects:
            match effect:
                case SendBatch() | SendHeartbeat():
                    begin(self._send_one(effect))
                case RestoreRecord(task_id):
                    self.on_unknown(task_id)
                case DropDeleted(proof):
                    self.on_deleted(proof)
        self._announces.set()

    async def _send_one(self, send: SendBatch | SendHeartbeat) -> None:
        keeper, sequence = send.keeper, send.sequence
        try:
            reply = await self._process.request(keeper, send.message, REQUEST_TIMEOUT_S)
        except GossipcacheError:
            self.announcer.failed(keeper, sequence, self._timeline.now)
            self._announces.set()
        else:
            now = self._timeline.now
            if isinstance(send, SendBatch):
                self._send(self.announcer.batch_answered(keeper, sequence, reply, now))
            else:
                self._send(self.announcer.heartbeat_answered(keeper, sequence, reply, now))
