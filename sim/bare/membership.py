"""`SwimCore` and its push/pulls on the heap of events.

What `gossipcache.dht.membership.service` does as trio tasks, step by step: the same messages, the
same limits. The conformance test holds the two to each other.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
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
from gossipcache.dht.membership.service import (
    LEAVE_LINGER_S,
    LEAVE_TIMEOUT_S,
    MAX_SYNCS,
    SYNC_TIMEOUT_S,
)
from gossipcache.dht.membership.swim import SwimCore
from gossipcache.dht.ring import Ring
from gossipcache.errors import (
    GossipcacheError,
    IntegrityError,
    NotPermitted,
    ProtocolError,
)
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
from sim.bare.outcome import begin
from sim.bare.process import Process
from sim.bare.wire import Wire


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

    def answer(self, peer: NodeId, message: Message) -> Message | None:
        """Handles one. Raises `GossipcacheError`."""

    def on_view_change(self, changed: Sequence[Member], *, new_ring: bool) -> None:
        """The node sees these members anew, and perhaps another ring."""


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
    ) -> None:
        self.process = process
        self._network = network
        self._timeline = network.timeline
        self._wire = wire
        self._observer = observer
        self._config = config
        self._cluster_id = cluster.cluster_id
        self._metrics = metrics
        self._seeds = seeds
        self._syncing: set[NodeId | Address] = set()
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

    def attach(self, service: Service) -> None:
        """The process does this too."""
        self._services.append(service)
        self._service_of.update(dict.fromkeys(service.answers, service))

    def start(self) -> None:
        """Takes part from now on; the node serves as soon as it has joined."""
        self._note(self.core.me)
        if self.is_joined:
            self.enter("active")
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
            self._ring = self._ring.with_members(self.owners)
            self._ring_is_stale = False
        return self._ring

    def is_alive(self, node: NodeId) -> bool:
        """Whether it is alive, or suspect."""
        member = self.core.table.get(node)
        return member is not None and member.is_live

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

    def answer(self, peer: NodeId, message: Message) -> Message | None:
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

    def absorb(
        self, records: Iterable[Signed], accusations: Iterable[Accusation], *, spread: bool = True
    ) -> None:
        """What a push/pull brought."""
        self._act(self.core.absorb(records, accusations, self._timeline.now, spread=spread))

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
        if node in self._syncing or len(self._syncing) >= MAX_SYNCS:
            return
        self._syncing.add(node)
        try:
            opening = sync.open_sync(self.core.view, self._cluster_id)
            opened = await self.process.links.request(node, opening, SYNC_TIMEOUT_S)
            await self._exchange(node, opened, spread=True)
            self._joined()
        except GossipcacheError:
            self._metrics.count("syncs_failed")
        finally:
            self._syncing.discard(node)

    async def _join(self, seed: Address) -> None:
        if seed in self._syncing:
            return
        self._syncing.add(seed)
        me = self.core.me.node_id
        try:
            spread = self.core.table.live_count > 1
            opening = sync.open_sync(self.core.view, self._cluster_id)
            node, opened = await self.process.links.request_address(seed, opening, SYNC_TIMEOUT_S)
            self.core.seed_answered(seed, node)
            if node != me:
                await self._exchange(node, opened, spread=spread)
            if node != me or len(self._seeds) == 1:
                self._joined()
        except GossipcacheError:
            self._metrics.count("joins_failed")
        finally:
            self._syncing.discard(seed)

    def _joined(self) -> None:
        if not self.is_joined:
            self.is_joined = True
            self.enter("active")

    async def _exchange(self, node: NodeId, opened: SyncOpened, *, spread: bool) -> None:
        links, view = self.process.links, self.core.view
        self.absorb([opened.record], (), spread=spread)
        start: bytes | None = None if opened.equal else b""
        while start is not None:
            asked = sync.range_from(view, start)
            found: SyncDiff = await links.request(node, asked, SYNC_TIMEOUT_S)
            self.absorb(found.records, found.accusations, spread=spread)
            for push in sync.pushes(view, found.wanted):
                await links.notify(node, push)
            if found.until and found.until <= start:
                raise ProtocolError("a push/pull that does not advance")
            start = found.until or None
        self._metrics.count("syncs_done")

    def _answer_open(self, peer: NodeId, message: SyncOpen) -> SyncOpened:
        if message.cluster_id != self._cluster_id:
            raise NotPermitted("the nodes belong to different clusters", "check the secrets")
        if message.record.signer != peer:
            raise ProtocolError("a member record that is not of the node that sent it")
        self.absorb([message.record], ())
        return sync.answer_open(self.core.view, message)
