"""What this node believes of every member, and how claims change it.

A record counts if its subject signed it and it is newer; an accusation if a known member
signed it against exactly the incarnation held. Claims about this node itself are `refutation`'s.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace

from gossipcache.config import SwimConfig
from gossipcache.dht.membership.broadcast import BroadcastQueue
from gossipcache.dht.membership.effects import Effect, MemberChanged, MemberForgotten, RequestSync
from gossipcache.dht.membership.health import LocalHealth
from gossipcache.dht.membership.member import (
    Member,
    Profile,
    Verifier,
    accuse,
)
from gossipcache.dht.membership.refutation import Refutation
from gossipcache.dht.membership.suspicion import Suspicion
from gossipcache.dht.membership.table import MemberTable
from gossipcache.dht.membership.timers import Timers
from gossipcache.errors import IntegrityError, NotPermitted, ProtocolError
from gossipcache.identity import Identity, Signed
from gossipcache.ids import NodeId, node_id_of
from gossipcache.messages.gossip import Accusation, Phase, Verdict
from gossipcache.metrics import Metrics

_MAX_NEWER = 2
_HEALERS = 12
"""About how many members merge their views with one that comes back from the dead."""


class View:
    """The member table and the rules by which it changes.

    Its timers are ("suspicion" | "forget", node id) and ("heal", 0), and that of `refutation`.
    """

    def __init__(
        self,
        config: SwimConfig,
        identity: Identity,
        profile: Profile,
        verifier: Verifier,
        timers: Timers,
        health: LocalHealth,
        metrics: Metrics,
        rng: random.Random,
        emit: Callable[[Effect], None],
        incarnation: int,
        now: float,
    ) -> None:
        self._config = config
        self._identity = identity
        self._profile = profile
        self._verifier = verifier
        self._timers = timers
        self._metrics = metrics
        self._rng = rng
        self._emit = emit
        self._suspicions: dict[NodeId, Suspicion] = {}
        self.on_hearsay: Callable[[Member, float], None] = lambda _member, _now: None
        """Called when others made this node suspect a member, so that it may look itself."""
        self.on_last_look: Callable[[Member, float], None] = lambda _member, _now: None
        """Called before this node buries a member."""
        self.table = MemberTable(verifier.own(profile.sign(identity, incarnation, "joining")), rng)
        self.queue = BroadcastQueue()
        self.queue.add_record(self.me.node_id, self.me.record)
        self.refutation = Refutation(
            config, self.table, self.queue, timers, health, metrics,
            self._is_signed, self._sign, now,
        )  # fmt: skip

    @property
    def me(self) -> Member:
        """This node."""
        return self.table.me

    def proofs(self, node: NodeId) -> tuple[Accusation, ...]:
        """The accusations that make `node` suspect or dead."""
        suspicion = self._suspicions.get(node)
        return () if suspicion is None else suspicion.proofs

    def learn(self, record: Signed, now: float, *, spread: bool = True) -> bool:
        """Takes a member record over if it is newer and true; `spread` passes it on. Whether
        it is sound, as far as it was looked at."""
        node = node_id_of(record.key)
        held = self.table.get(node)
        if held is not None and held.record == record:
            return True
        try:
            member = self._verifier.member(record)
        except (IntegrityError, ProtocolError):
            self._metrics.count("gossip_forged")
            return False
        except NotPermitted:
            self._metrics.count("members_unadmitted")
            return True
        if held is None:
            self._welcome(member, now, spread)
        elif node == self.me.node_id:
            self.refutation.outbid(member.incarnation, now)
        elif member.incarnation > held.incarnation:
            self._renew(held, member, now, spread)
        return True

    def accused(self, accusation: Accusation, now: float) -> bool:
        """Counts an accusation; one against this node is refuted. Whether it is sound, as
        far as it was looked at."""
        subject, accuser = NodeId(accusation.subject), NodeId(accusation.accuser)
        held = self.table.get(subject)
        if subject == self.me.node_id:
            return self.refutation.accused(accusation, now)
        if held is None or held.incarnation != accusation.incarnation or held.state == "left":
            return True
        # Most are repetitions: what is cheapest to see comes first.
        suspicion = self._suspicions.get(subject)
        if suspicion is not None and not suspicion.is_news(accusation):
            return True
        witness = self.table.get(accuser)
        if witness is None or accuser in (subject, self.me.node_id):
            return True
        if not self._is_signed(accusation, witness):
            return False
        self._count(held, accusation, now)
        return True

    def newer_than(self, accusations: Iterable[Accusation]) -> tuple[Signed, ...]:
        """The records that void `accusations`, for whoever brings old news; only a few."""
        found: dict[NodeId, Signed] = {}
        if not self._config.lifeguard:
            return ()
        for accusation in accusations:
            held = self.table.get(NodeId(accusation.subject))
            if held is None or not held.is_live or (held is self.me and self.refutation.is_waiting):
                continue
            if held.incarnation > accusation.incarnation:
                found[held.node_id] = held.record
        return tuple(found.values())[:_MAX_NEWER]

    def suspect(self, node: NodeId, now: float, *, refused: bool = False) -> None:
        """This node itself got no answer from `node`, or a refusal."""
        held = self.table.get(node)
        if held is None or not held.is_live or node == self.me.node_id:
            return
        suspicion = self._suspicions.get(node)
        accusation = self._accuse(held, "suspect")
        if suspicion is None or (
            self.me.node_id not in suspicion and (refused or suspicion.is_news(accusation))
        ):
            self._count(held, accusation, now)
        if refused:
            self._suspicions[node].refused(now)
            self._await(node, self._suspicions[node])

    def answered(self, node: NodeId, now: float) -> None:
        """`node` answered this node. Only its own refutation ends a suspicion, but the time for
        that starts anew."""
        suspicion = self._suspicions.get(node) if self._config.lifeguard else None
        if suspicion is not None and ("suspicion", node) in self._timers:
            suspicion.answered(now)
            self._await(node, suspicion)

    def conclude(self, node: NodeId, now: float) -> None:
        """The suspicion of `node` nears its end without refutation: this node looks once more,
        or has done so, and buries it."""
        held, suspicion = self.table.get(node), self._suspicions.get(node)
        if held is None or suspicion is None:
            return
        if suspicion.is_looked_at or not self._config.lifeguard:
            self.bury(node, now)
            return
        suspicion.looked(now)
        self._await(node, suspicion)
        self.on_last_look(held, now)

    def bury(self, node: NodeId, now: float) -> None:
        """Holds `node` for dead: its suspicion ended without refutation, or its death is proven."""
        held, suspicion = self.table.get(node), self._suspicions.get(node)
        if held is None or suspicion is None or not held.is_live:
            return
        accusation = self._accuse(held, "dead")
        if suspicion.is_news(accusation):
            suspicion.add(accusation)
            self.queue.add_accusation(accusation)
        if suspicion.is_proven(self.me.node_id):
            self.queue.drop_suspicions(node)
        self._timers.cancel(("suspicion", node))
        self._put(held.in_state("dead"))
        self._timers.set(("forget", node), now + self._config.retain_dead_s)

    def forget(self, node: NodeId) -> None:
        """The time for which the dead and gone are listed is over."""
        self._suspicions.pop(node, None)
        self.table.forget(node)
        self._emit(MemberForgotten(node))

    def reconsider(self) -> None:
        """What members may do or be has changed: judges each of them anew."""
        for held in list(self.table):
            try:
                if held.node_id == self.me.node_id:
                    judged = self._verifier.own(held)
                else:
                    judged = self._verifier.judged(held)
            except NotPermitted:
                self._expel(held)
                continue
            if judged.roles != held.roles:
                self._put(judged)

    def _expel(self, held: Member) -> None:
        node = held.node_id
        self._metrics.count("members_expelled")
        self._timers.cancel(("suspicion", node))
        self._timers.cancel(("forget", node))
        self.queue.drop(node)
        if held.is_live:
            self._put(held.in_state("left"))
        self.forget(node)

    def show_ticket(self, ticket: bytes) -> None:
        """This node has a new ticket, and tells everybody."""
        self._profile = replace(self._profile, ticket=ticket)
        self.enter(self.me.phase)

    def enter(self, phase: Phase) -> None:
        """This node joins, becomes active, or leaves, and says so."""
        self.refutation.sign_anew(self.me.incarnation + 1, phase)

    def _welcome(self, member: Member, now: float, spread: bool) -> None:
        if member.state == "left":
            return
        if len(self.table) >= self._config.max_members:
            self._metrics.count("members_refused")
            return
        self._put(member)
        self.table.probe_soon(member.node_id)
        if spread:
            self.queue.add_record(member.node_id, member.record)

    def _renew(self, held: Member, member: Member, now: float, spread: bool) -> None:
        node = member.node_id
        self.refutation.others_return(now)
        self._suspicions.pop(node, None)
        self._timers.cancel(("suspicion", node))
        self._put(member)
        if spread:
            self.queue.add_record(node, member.record)
        else:
            self.queue.drop(node)
        if not member.is_live:
            self._timers.set(("forget", node), now + self._config.retain_dead_s)
            return
        self._timers.cancel(("forget", node))
        if not held.is_live:
            self.table.probe_soon(node)
            self._heal(held, now)

    def _heal(self, held: Member, now: float) -> None:
        """A partition may have ended: both views are merged, not only these two members. If
        many were dead, everybody sees to it; if it was one of a thousand, a few do, since its
        record spreads by itself."""
        if held.state != "dead" or ("heal", 0) in self._timers:
            return
        share = _HEALERS * (1 + self.table.dead_count) / self.table.live_count
        if share >= 1 or self._rng.random() < share:
            self._timers.set(("heal", 0), now + self._config.probe_interval_s)
            self._emit(RequestSync(held.node_id))

    def _count(self, held: Member, accusation: Accusation, now: float) -> None:
        node = held.node_id
        suspicion = self._suspicions.get(node)
        is_new = suspicion is None
        if suspicion is None:
            suspicion = Suspicion(self._config, self.table.live_count, now)
            self._suspicions[node] = suspicion
        suspicion.add(accusation)
        self.queue.add_accusation(accusation)
        if not held.is_live:
            return
        if held.state == "alive":
            self._put(held.in_state("suspect"))
        if suspicion.is_proven(self.me.node_id):
            self.bury(node, now)
            return
        self._await(node, suspicion)
        if is_new and accusation.accuser != self.me.node_id:
            self.on_hearsay(held.in_state("suspect"), now)

    def _await(self, node: NodeId, suspicion: Suspicion) -> None:
        self._timers.set(("suspicion", node), suspicion.next_step(self.me.node_id))

    def _accuse(self, held: Member, verdict: Verdict) -> Accusation:
        return accuse(
            self._identity, self._profile.cluster_id, held.node_id, held.incarnation, verdict
        )

    def _is_signed(self, accusation: Accusation, witness: Member) -> bool:
        try:
            self._verifier.accusation(accusation, witness.public_key)
        except IntegrityError:
            self._metrics.count("gossip_forged")
            return False
        return True

    def _sign(self, incarnation: int, phase: Phase) -> None:
        self._put(self._verifier.own(self._profile.sign(self._identity, incarnation, phase)))
        self.queue.add_record(self.me.node_id, self.me.record)

    def _put(self, member: Member) -> None:
        self.table.put(member)
        self._emit(MemberChanged(member))
