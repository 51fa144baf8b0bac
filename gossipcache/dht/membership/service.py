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
from gossipcache.dht.membership.syncing import Syncing
from gossipcache.dht.membership.transport import Transport
from gossipcache.dht.ring import Ring
from gossipcache.env import DatagramRefused, Datagrams, Env
from gossipcache.errors import GossipcacheError
from gossipcache.identity import Identity, Signed
from gossipcache.ids import Address, NodeId
from gossipcache.link.interface import Links, Peer
from gossipcache.messages.gossip import LinkPing, LinkPong, Phase
from gossipcache.metrics import Metrics
from gossipcache.wire import Message

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
        self._syncing = Syncing(cluster, links, metrics, self._admission, on_charter, self._act)
        self.version = 0
        """Increases with every change of the view."""
        self.joined = self._syncing.joined
        """Set once a seed or another member has answered, or at once if the node has no seeds."""
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
            self._config.zone,
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
        self._syncing.begin(core, seeds)
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

    def zone_of(self, node_id: NodeId) -> str:
        """Where a member stands, by its own word; empty if it does not say."""
        member = self.member(node_id)
        return "" if member is None else member.zone

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
            self._syncing.absorb(teller, records, ())

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
                    self._spawn(self._syncing.sync, node)
                case RequestJoin(address):
                    self._spawn(self._syncing.join, address)
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

    async def _answer_ping(self, _peer: Peer, _message: LinkPing) -> LinkPong:
        return LinkPong()


def _deadline(core: SwimCore) -> float:
    due = core.next_timeout()
    return math.inf if due is None else due
