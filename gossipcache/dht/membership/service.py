"""Membership of one node: the trio shell around `SwimCore`."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import trio

from gossipcache.admission import Admission
from gossipcache.budget import VerificationBudget
from gossipcache.cluster import Cluster
from gossipcache.config import NodeConfig
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
from gossipcache.dht.membership.swim import SwimCore
from gossipcache.dht.membership.transport import Transport
from gossipcache.dht.ring import Ring
from gossipcache.env import DatagramRefused, Datagrams, Env
from gossipcache.errors import (
    GossipcacheError,
    NotPermitted,
    NotReady,
    ProtocolError,
)
from gossipcache.identity import Identity, Signed
from gossipcache.ids import Address, NodeId
from gossipcache.link.interface import Links, Peer
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

MAX_SYNCS = 8
SYNC_TIMEOUT_S = 5.0
LEAVE_TIMEOUT_S = 1.5
LEAVE_LINGER_S = 0.25
"""How long a leaving node still answers after its goodbye, while that goes on to the others: to
those who have not heard it a closed port looks like a crash."""
M = TypeVar("M", bound=Message)

_log = logging.getLogger(__name__)


class MembershipService:
    """Who is in the cluster, where, and alive; and the ring of those who keep records."""

    def __init__(
        self,
        env: Env,
        config: NodeConfig,
        identity: Identity,
        cluster: Cluster,
        links: Links,
        metrics: Metrics,
        admission: Admission | None = None,
        on_charter: Callable[[NodeId, int], Awaitable[None]] | None = None,
        budget: VerificationBudget | None = None,
    ) -> None:
        """`admission` judges members; without it all may be what they claim. `on_charter` hears
        which charter a node holds. `budget` bounds the signatures checked for one node."""
        self._budget = budget
        self._admission = admission or Admission(cluster, env.wall_time)
        self._on_charter = on_charter
        self._env = env
        self._config = config
        self._identity = identity
        self._cluster = cluster
        self._links = links
        self._metrics = metrics
        self._core: SwimCore | None = None
        self._nursery: trio.Nursery | None = None
        self._transport = Transport(env, cluster, metrics)
        self._rest = trio.CancelScope()
        """In which the keeper of the time sleeps until `_due`."""
        self._due = math.inf
        self._owners: set[NodeId] = set()
        self._roles = frozenset[str](config.roles)
        self._ring = Ring()
        self._ring_is_stale = False
        self._listed: tuple[Member, ...] | None = None
        self._changed = trio.Event()
        self._changed_at = 0.0
        self._flushed = trio.Event()
        self._syncing: set[NodeId | Address] = set()
        self._seed_failures: dict[Address, int] = {}
        self.version = 0
        """Increases with every change of the view."""
        self.joined = trio.Event()
        """Set once a seed or another member has answered, or at once if the node has no seeds."""
        links.handle(SyncOpen, self._answer_open)
        links.handle(SyncRange, self._answer_range)
        links.handle(SyncPush, self._take_push)
        links.handle(LinkPing, self._answer_ping)

    async def run(
        self,
        datagrams: Datagrams | None,
        advertise: Address | None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Takes part in the cluster until cancelled; started when this node is a member.

        `advertise` is what others dial. Without `datagrams` the node stays alone.
        """
        profile = Profile(
            self._cluster.cluster_id,
            self._config.name,
            advertise or Address("localhost", 0),
            frozenset(self._config.roles),
            self._config.ticket,
        )
        seeds = self._config.join if datagrams is not None else ()
        core = self._core = SwimCore(
            self._config.swim,
            self._identity,
            profile,
            verifier=Verifier(
                self._cluster.cluster_id,
                grant=self._admission.grant if self._admission.has_operator else None,
            ),
            metrics=self._metrics,
            rng=self._env.rng,
            now=trio.current_time(),
            incarnation=boot_incarnation(self._env.wall_time()),
            seeds=seeds,
            budget=self._budget,
        )
        self._transport.datagrams = datagrams
        self._due = _deadline(core)
        self._note(core.me)
        if not seeds:
            self.joined.set()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._keep_time, core)
                if datagrams is not None:
                    nursery.start_soon(self._receive, core, datagrams)
                task_status.started()
        finally:
            self._nursery = self._transport.datagrams = None

    def set_active(self) -> None:
        """This node can serve: a scheduler now owns its keys."""
        self._enter("active")

    def reconsider(self) -> None:
        """What nodes may be has changed: who may not be here is no member any more."""
        if self._core is not None:
            self._act(self._core.reconsider(trio.current_time()))

    def show_ticket(self, ticket: bytes) -> None:
        """This node has a new ticket."""
        if self._core is not None:
            self._act(self._core.show_ticket(ticket, trio.current_time()))

    async def leave(self) -> None:
        """Says goodbye; returns when enough members were told, or after 1.5 s."""
        self._enter("left")
        if self._nursery is None or self._core is None or self._core.is_flushed:
            return
        with trio.move_on_after(LEAVE_TIMEOUT_S):
            await self._flushed.wait()
            await trio.sleep(LEAVE_LINGER_S)

    def members(self) -> tuple[Member, ...]:
        """All that are known, this node and the dead included, in the order of their ids."""
        if self._listed is None:
            self._listed = () if self._core is None else tuple(self._core.table)
        return self._listed

    def member(self, node_id: NodeId) -> Member | None:
        """One member, in whatever state."""
        return None if self._core is None else self._core.table.get(node_id)

    def is_alive(self, node_id: NodeId) -> bool:
        """Whether it is alive, or suspect."""
        member = self.member(node_id)
        return member is not None and member.is_live

    @property
    def ring(self) -> Ring:
        """The ring of the ACTIVE schedulers that are alive or suspect."""
        if self._ring_is_stale:
            self._ring = self._ring.with_members(self._owners)
            self._ring_is_stale = False
        return self._ring

    def resolve(self, node_id: NodeId) -> Address | None:
        """Where to dial a member, by its own signed word."""
        member = self.member(node_id)
        return None if member is None or member.address.port == 0 else member.address

    def introduce(self, nodes: Iterable[NodeId]) -> tuple[Signed, ...]:
        """The records, as each signed its own, of those of `nodes` that are known."""
        known = (self.member(node_id) for node_id in nodes)
        return tuple(member.record for member in known if member is not None)

    def meet(self, teller: NodeId, records: Iterable[Signed]) -> None:
        """Takes member records that `teller` sent with an answer, as gossip brings them."""
        if self._core is not None:
            self._absorb(teller, records, ())

    def report_refused(self, node_id: NodeId) -> None:
        """A connection to the node was refused or broke off: evidence that its process died."""
        if self._core is not None:
            self._act(self._core.report_refused(node_id, trio.current_time()))

    @property
    def quiet_s(self) -> float:
        """For how long the view has not changed."""
        return trio.current_time() - self._changed_at

    async def wait_change(self, seen: int) -> int:
        """Waits until `version` is not `seen` any more, and returns it."""
        while self.version == seen:
            await self._changed.wait()
        return self.version

    def _enter(self, phase: Phase) -> None:
        if self._core is not None:
            self._act(self._core.enter(phase, trio.current_time()))

    # Effects.

    def _act(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendDatagram(address, message):
                    self._transport.send(address, message)
                case MemberChanged(member):
                    self._note(member)
                case MemberForgotten():
                    self._bump()
                case PingLink(node, sequence):
                    self._spawn(self._ping_link, node, sequence)
                case RequestSync(node):
                    self._spawn(self._sync, node)
                case RequestJoin(address):
                    self._spawn(self._join, address)
        if self._core is not None:
            self._sleep_until(_deadline(self._core))
            if self._core.me.phase == "left" and self._core.is_flushed:
                self._flushed.set()

    def _spawn(self, work: Callable[..., Awaitable[None]], *args: object) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(work, *args)

    def _note(self, member: Member) -> None:
        if member.owns_keys != (member.node_id in self._owners):
            self._owners ^= {member.node_id}
            self._ring_is_stale = True
        if member.node_id == self._identity.node_id and member.roles != self._roles:
            self._roles = member.roles
            if missing := sorted(member.claimed - member.roles):
                _log.warning("this node may not be %s; see its ticket", " and ".join(missing))
        _log.info("member %s (%s) is %s", member.name, member.node_id.hex(), member.state)
        self._bump()

    def _bump(self) -> None:
        self.version += 1
        self._changed_at = trio.current_time()
        self._listed = None
        self._changed.set()
        self._changed = trio.Event()

    # Time and datagrams.

    async def _keep_time(self, core: SwimCore) -> None:
        while True:
            with trio.CancelScope(deadline=self._due) as self._rest:
                await trio.sleep_forever()
            self._act(core.handle_timeout(trio.current_time()))

    def _sleep_until(self, due: float) -> None:
        if due != self._due:
            self._due = self._rest.deadline = due

    async def _receive(self, core: SwimCore, datagrams: Datagrams) -> None:
        while True:
            try:
                message, source = await self._transport.receive(datagrams)
            except DatagramRefused as refusal:
                self._act(core.address_refused(refusal.address, trio.current_time()))
            else:
                self._act(core.receive(message, source, trio.current_time()))

    # Datagrams of others.

    def whisper(self, node: NodeId, message: Message) -> None:
        """Sends `message` to a member as a datagram, if its address is known."""
        address = self.resolve(node)
        if address is not None:
            self._transport.send(address, message)

    def hear(self, kind: type[M], handler: Callable[[M], None]) -> None:
        """Names who takes datagrams of `kind`, a message that this service does not know.

        They are sealed, as all are; who sent them is not proven.
        """
        self._transport.hear(kind, handler)

    def scheduler_key(self, node: NodeId) -> bytes | None:
        """The public key of a member that is a scheduler."""
        member = self.member(node)
        return member.public_key if member and "scheduler" in member.roles else None

    # Links.

    async def _ping_link(self, node: NodeId, sequence: int) -> None:
        timeout_s = self._config.swim.probe_interval_s
        try:
            await self._links.request(node, LinkPing(), LinkPong, timeout_s)
        except GossipcacheError:
            return
        if self._core is not None:
            self._act(self._core.link_answered(sequence, trio.current_time()))

    async def _sync(self, node: NodeId) -> None:
        """A push/pull that this node opens; a failure is met by the next one."""
        core = self._core
        if core is None or node in self._syncing or len(self._syncing) >= MAX_SYNCS:
            return
        self._syncing.add(node)
        try:
            opening = self._opening(core)
            opened = await self._links.request(node, opening, SyncOpened, SYNC_TIMEOUT_S)
            await self._exchange(core, node, opened, spread=True)
            self.joined.set()
        except GossipcacheError:
            self._metrics.count("syncs_failed")
        finally:
            self._syncing.discard(node)

    async def _join(self, seed: Address) -> None:
        core = self._core
        if core is None or seed in self._syncing:
            return
        self._syncing.add(seed)
        try:
            spread = core.table.live_count > 1
            opening = self._opening(core)
            peer, opened = await self._links.request_address(
                seed, opening, SyncOpened, SYNC_TIMEOUT_S
            )
            core.seed_answered(seed, peer.node_id)
            if peer.node_id != core.me.node_id:
                await self._exchange(core, peer.node_id, opened, spread=spread)
            if peer.node_id != core.me.node_id or len(self._config.join) == 1:
                self.joined.set()
            self._seed_failures.pop(seed, None)
        except GossipcacheError as error:
            self._warn(seed, error)
        finally:
            self._syncing.discard(seed)

    def _opening(self, core: SwimCore) -> SyncOpen:
        return sync.open_sync(core.view, self._cluster.cluster_id, self._admission.number)

    def _warn(self, seed: Address, error: GossipcacheError) -> None:
        failures = self._seed_failures[seed] = self._seed_failures.get(seed, 0) + 1
        if failures == 1 or failures % 30 == 0:
            _log.warning(
                "seed %s cannot be joined (%s); tried %d times, trying on",
                seed, error.message, failures,
            )  # fmt: skip

    async def _exchange(
        self, core: SwimCore, node: NodeId, opened: SyncOpened, *, spread: bool
    ) -> None:
        if self._on_charter is not None:
            await self._on_charter(node, opened.charter)
        self._absorb(node, [opened.record], (), spread=spread)
        start: bytes | None = None if opened.equal else b""
        while start is not None:
            asked = sync.range_from(core.view, start)
            found = await self._links.request(node, asked, SyncDiff, SYNC_TIMEOUT_S)
            self._absorb(node, found.records, found.accusations, spread=spread)
            for push in sync.pushes(core.view, found.wanted):
                await self._links.notify(node, push)
            if found.until and found.until <= start:
                raise ProtocolError("a push/pull that does not advance")
            start = found.until or None
        self._metrics.count("syncs_done")

    def _absorb(
        self,
        payer: NodeId,
        records: Iterable[Signed],
        accusations: Iterable[Accusation],
        *,
        spread: bool = True,
    ) -> SwimCore:
        if self._core is None:
            raise NotReady("the node is starting")
        now = trio.current_time()
        self._act(self._core.absorb(records, accusations, now, spread=spread, payer=payer))
        return self._core

    async def _answer_open(self, peer: Peer, message: SyncOpen) -> SyncOpened:
        if message.cluster_id != self._cluster.cluster_id:
            raise NotPermitted("the nodes belong to different clusters", "check the secrets")
        if message.record.signer != peer.node_id:
            raise ProtocolError("a member record that is not of the node that sent it")
        view = self._absorb(peer.node_id, [message.record], ()).view
        return sync.answer_open(view, message, self._admission.number)

    async def _answer_range(self, _peer: Peer, message: SyncRange) -> SyncDiff:
        if self._core is None:
            raise NotReady("the node is starting")
        return sync.diff(self._core.view, message)

    async def _take_push(self, peer: Peer, message: SyncPush) -> None:
        self._absorb(peer.node_id, message.records, message.accusations)

    async def _answer_ping(self, _peer: Peer, _message: LinkPing) -> LinkPong:
        return LinkPong()


def _deadline(core: SwimCore) -> float:
    due = core.next_timeout()
    return math.inf if due is None else due
