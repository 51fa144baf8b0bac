"""`SwimCore` and its push/pulls on the heap of events.

What `gossipcache.dht.membership.service` and `syncing` do as trio tasks, around the same cores. The
conformance test holds the two to each other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

from gossipcache.cluster import Cluster
from gossipcache.config import SwimConfig
from gossipcache.dht.membership import sync
from gossipcache.dht.membership.effects import (
    Effect,
    MemberChanged,
    MemberForgotten,
    PingLink,
    RequestJoin,
    RequestSync,
    SendDatagram,
)
from gossipcache.dht.membership.member import Member, Profile, Verifier, boot_incarnation
from gossipcache.dht.membership.pushpull import SYNC_TIMEOUT_S, PushPull, PushPulls
from gossipcache.dht.membership.service import LEAVE_LINGER_S, LEAVE_TIMEOUT_S
from gossipcache.dht.membership.swim import SwimCore
from gossipcache.dht.ring import Ring
from gossipcache.errors import GossipcacheError, IntegrityError, ProtocolError
from gossipcache.identity import Identity, Signed
from gossipcache.ids import Address, NodeId
from gossipcache.messages.gossip import (
    Accusation,
    LinkPing,
    LinkPong,
    Phase,
    SyncDiff,
    SyncOpen,
    SyncOpened,
    SyncPush,
    SyncRange,
)
from gossipcache.metrics import Metrics
from gossipcache.wire import Message
from sim.bare.network import BareNetwork
from sim.bare.outcome import Answer, begin
from sim.bare.process import Process
from sim.bare.wire import Wire

_SHARED_RINGS = 64


class Observer(Protocol):
    """Who looks on as views change."""

    def changed(self, viewer: BareMembership, member: Member) -> None:
        """`viewer` sees `member` anew."""

    def met(self, viewer: BareMembership, members: Sequence[Member]) -> None:
        """`viewer` sees all these members for the first time."""

    def forgotten(self, viewer: BareMembership, node: NodeId) -> None:
        """`viewer` does not list the member any more."""

    def settled(self, viewer: BareMembership) -> None:
        """A step of `viewer` changed its view, and has ended."""


class Service(Protocol):
    """What a process does beside its membership."""

    answers: frozenset[type[Message]]
    """The requests and notices that it handles."""

    def answer(self, peer: NodeId, message: Message) -> Answer:
        """Handles one. Raises `GossipcacheError`."""

    def on_view_change(self, changed: Sequence[Member], *, new_ring: bool) -> None:
        """The node sees these members anew, and perhaps another ring."""


class Rings:
    """The last rings of all nodes of a world, which share them: rings of the same nodes give the
    same answers, and placing their points takes long."""

    def __init__(self) -> None:
        self._rings: dict[frozenset[NodeId], Ring] = {}

    def of(self, owners: set[NodeId], near: Ring) -> Ring:
        """The ring of `owners`, made from `near` if nobody has seen it yet."""
        key = frozenset(owners)
        ring = self._rings.get(key)
        if ring is None:
            if len(self._rings) >= _SHARED_RINGS:
                del self._rings[next(iter(self._rings))]
            ring = self._rings[key] = near.with_members(owners)
        return ring


class BareMembership:
    """Membership of one process."""

    def __init__(
        self,
        process: Process,
        network: BareNetwork,
        wire: Wire,
        observer: Observer,
        *,
        config: SwimConfig,
        identity: Identity,
        cluster: Cluster,
        profile: Profile,
        verifier: Verifier,
        metrics: Metrics,
        rng: random.Random,
        wall_time_s: float,
        seeds: tuple[Address, ...],
        rings: Rings,
    ) -> None:
        self.process = process
        self._rings = rings
        self._network = network
        self._timeline = network.timeline
        self._wire = wire
        self._observer = observer
        self._config = config
        self._metrics = metrics
        self._waking_at: float | None = None
        self._ring = Ring()
        self._ring_is_stale = False
        self._leaves_until: float | None = None
        self.owners: set[NodeId] = set()
        """The ACTIVE schedulers that are alive or suspect."""
        self.owners_mark = 0
        """A number that stands for the set of owners."""
        self.version = 0
        """Increases with every change of the view."""
        self.is_joined = not seeds
        self.on_joined: Callable[[], None] = partial(self.enter, "active")
        """Called once it is a member: a keeper becomes active when it has synced."""
        self._services: list[Service] = []
        self._service_of: dict[type[Message], Service] = {}
        self.core = SwimCore(
            config,
            identity,
            profile,
            verifier=verifier,
            metrics=metrics,
            rng=rng,
            now=self._timeline.now,
            incarnation=boot_incarnation(wall_time_s),
            seeds=seeds,
        )
        self._push_pulls = PushPulls(self.core, cluster.cluster_id, seeds)

    def attach(self, service: Service) -> None:
        """The process does this too."""
        self._services.append(service)
        self._service_of.update(dict.fromkeys(service.answers, service))

    def start(self) -> None:
        """Takes part from now on; the node serves as soon as it has joined."""
        self._note(self.core.me)
        if self.is_joined:
            self.on_joined()
        self._timeline.push(self._timeline.now, self.process.step, self._mind_timers)

    def enter(self, phase: Phase) -> None:
        """This node joins, becomes active, or leaves."""
        self._act(self.core.enter(phase, self._timeline.now))

    def meet(self, members: Sequence[Member]) -> None:
        """Knows all these members, as after push/pulls and gossip that are long over."""
        self.is_joined = True
        view = self.core.view
        view.table.fill(members)
        view.queue.drop(self.core.me.node_id)
        self.owners = {member.node_id for member in members if member.owns_keys}
        self.owners_mark = 0
        for node in self.owners:
            self.owners_mark ^= int.from_bytes(node, "big")
        self._ring_is_stale = True
        self.version += len(members)
        self._observer.met(self, members)
        self._settled(members)
        self.absorb((), ())

    def leave(self) -> None:
        """Says goodbye, and ends the process when that is told, or after 1.5 s."""
        self._leaves_until = self._timeline.now + LEAVE_TIMEOUT_S
        self._timeline.push(self._leaves_until, self.process.step, self.process.end)
        self.enter("left")

    @property
    def ring(self) -> Ring:
        """The ring of the ACTIVE schedulers that are alive or suspect."""
        if self._ring_is_stale:
            self._ring = self._rings.of(self.owners, self._ring)
            self._ring_is_stale = False
        return self._ring

    def is_alive(self, node: NodeId) -> bool:
        """Whether it is alive, or suspect."""
        member = self.core.table.get(node)
        return member is not None and member.is_live

    def zone_of(self, node: NodeId) -> str:
        """Where a member stands, by its own word."""
        member = self.core.table.get(node)
        return "" if member is None else member.zone

    def resolve(self, node: NodeId) -> Address | None:
        """Where to dial a member, by its own signed word."""
        member = self.core.table.get(node)
        return None if member is None or member.address.port == 0 else member.address

    def introduce(self, nodes: Iterable[NodeId]) -> tuple[Signed, ...]:
        """The records, as each signed its own, of those of `nodes` that are known."""
        known = (self.core.table.get(node) for node in nodes)
        return tuple(member.record for member in known if member is not None)

    def report_refused(self, node: NodeId) -> None:
        """Evidence that the node's process died."""
        self._act(self.core.report_refused(node, self._timeline.now))

    def address_refused(self, address: Address) -> None:
        """A datagram to `address` was refused."""
        self._act(self.core.address_refused(address, self._timeline.now))

    def receive(self, sealed: Any, source: Address) -> None:
        """A datagram."""
        try:
            message = self._wire.open(sealed)
        except IntegrityError:
            self._metrics.count("datagrams_unsealed")
        except ProtocolError:
            self._metrics.count("datagrams_malformed")
        else:
            self._act(self.core.receive(message, source, self._timeline.now))

    def answer(self, peer: NodeId, message: Message) -> Answer:
        """A request or notice over a link. Raises `GossipcacheError`."""
        match message:
            case SyncOpen():
                return self._answer_open(peer, message)
            case SyncRange():
                return sync.diff(self.core.view, message)
            case SyncPush():
                self.absorb(message.records, message.accusations)
                return None
            case LinkPing():
                return LinkPong()
            case _ if (service := self._service_of.get(type(message))) is not None:
                return service.answer(peer, message)
            case _:
                raise ProtocolError(f"no bare node answers {type(message).__name__}")

    def absorb(self, records: Iterable[Signed], accusations: Iterable[Accusation]) -> None:
        """What another brought by a push/pull that it opened."""
        self._act(self.core.absorb(records, accusations, self._timeline.now))

    # Effects.

    def _act(self, effects: list[Effect]) -> None:
        version = self.version
        changed: list[Member] = []
        later: list[Effect] = []
        for effect in effects:
            match effect:
                case SendDatagram():
                    self._send(effect)
                case MemberChanged(member):
                    self._note(member)
                    changed.append(member)
                case MemberForgotten(node):
                    self.version += 1
                    self._observer.forgotten(self, node)
                case _:
                    later.append(effect)
        if self.version != version:
            self._settled(changed)
        for effect in later:
            self._begin(effect)
        due = self.core.next_timeout()
        if due != self._waking_at:
            # What was to wake it before finds that it is not expected any more.
            self._waking_at = due
            if due is not None:
                self._timeline.push(due, self._wake, due)

    def _settled(self, changed: Sequence[Member]) -> None:
        self._observer.settled(self)
        new_ring = self._ring_is_stale
        for service in self._services:
            service.on_view_change(changed, new_ring=new_ring)

    def _begin(self, effect: Effect) -> None:
        match effect:
            case PingLink(node, sequence):
                begin(self._ping_link(node, sequence))
            case RequestSync(node):
                begin(self._sync(node))
            case RequestJoin(address):
                begin(self._join(address))

    def _send(self, effect: SendDatagram) -> None:
        host = self.process.host
        sealed, size = self._wire.seal(effect.message, host.rng)
        self._network.send(host, effect.address, sealed, size)
        if self._leaves_until is not None and self.core.is_flushed:
            self._timeline.push(
                self._timeline.now + LEAVE_LINGER_S, self.process.step, self.process.end
            )

    def _note(self, member: Member) -> None:
        if member.owns_keys != (member.node_id in self.owners):
            self.owners ^= {member.node_id}
            self.owners_mark ^= int.from_bytes(member.node_id, "big")
            self._ring_is_stale = True
        self.version += 1
        self._observer.changed(self, member)

    # Time.

    def _wake(self, due: float) -> None:
        if due == self._waking_at:
            self._waking_at = None
            self.process.step(self._mind_timers)

    def _mind_timers(self) -> None:
        # What was due may have been called off: then nothing happens but that.
        self._act(self.core.handle_timeout(self._timeline.now))

    # Links.

    async def _ping_link(self, node: NodeId, sequence: int) -> None:
        try:
            await self.process.links.request(node, LinkPing(), self._config.probe_interval_s)
        except GossipcacheError:
            return
        self._act(self.core.link_answered(sequence, self._timeline.now))

    async def _sync(self, node: NodeId) -> None:
        push_pull = self._push_pulls.begin(node)
        if push_pull is None:
            return
        try:
            opening = self._push_pulls.opening()
            opened = await self.process.links.request(node, opening, SYNC_TIMEOUT_S)
            await self._carry(push_pull, node, opened)
            self._joined()
        except GossipcacheError:
            self._metrics.count("syncs_failed")
        finally:
            self._push_pulls.end(push_pull)

    async def _join(self, seed: Address) -> None:
        push_pull = self._push_pulls.begin_join(seed)
        if push_pull is None:
            return
        try:
            opening = self._push_pulls.opening()
            node, opened = await self.process.links.request_address(seed, opening, SYNC_TIMEOUT_S)
            await self._carry(push_pull, node, opened)
            if self._push_pulls.is_joined_by(node):
                self._joined()
        except GossipcacheError:
            self._metrics.count("joins_failed")
        finally:
            self._push_pulls.end(push_pull)

    def _joined(self) -> None:
        if not self.is_joined:
            self.is_joined = True
            self.on_joined()

    async def _carry(self, push_pull: PushPull, node: NodeId, opened: SyncOpened) -> None:
        if not push_pull.answered_by(node):
            return
        links = self.process.links
        self._act(push_pull.opened(opened, self._timeline.now))
        while (asked := push_pull.asks()) is not None:
            found: SyncDiff = await links.request(node, asked, SYNC_TIMEOUT_S)
            self._act(push_pull.found(found, self._timeline.now))
            for push in push_pull.pushes():
                await links.notify(node, push)
        self._metrics.count("syncs_done")

    def _answer_open(self, peer: NodeId, message: SyncOpen) -> SyncOpened:
        self._push_pulls.check(peer, message)
        self.absorb([message.record], ())
        return sync.answer_open(self.core.view, message)
