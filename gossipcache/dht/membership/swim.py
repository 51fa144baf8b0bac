"""SWIM with Lifeguard as a sans-IO core.

`SwimCore` takes datagrams, answers of links and the time, and returns effects. It owns the
parts and the clockwork: `View` decides what is believed, `Prober` finds failures, `AntiEntropy`
merges views, `Courier` writes datagrams, `Timers` holds the deadlines. No input costs more than
O(log n) but the ones that end a rotation of probes or a pause of the process.

Sources: SWIM (Das et al., 2002), Lifeguard (Dadgar et al., 2018), memberlist.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable
from typing import TypeVar

from gossipcache.budget import STRANGERS, VOID_COST, VerificationBudget
from gossipcache.config import SwimConfig
from gossipcache.dht.membership.anti_entropy import FLOOD, AntiEntropy
from gossipcache.dht.membership.courier import Courier
from gossipcache.dht.membership.effects import Effect, RequestJoin, RequestSync
from gossipcache.dht.membership.health import LocalHealth
from gossipcache.dht.membership.member import Member, Profile, Verifier
from gossipcache.dht.membership.prober import Prober
from gossipcache.dht.membership.timers import Timers
from gossipcache.dht.membership.view import View
from gossipcache.identity import Identity, Signed
from gossipcache.ids import Address, NodeId
from gossipcache.messages.gossip import (
    Accusation,
    Ack,
    Datagram,
    Gossip,
    Nack,
    Phase,
    Ping,
    PingRequest,
)
from gossipcache.metrics import Metrics

T = TypeVar("T", bound=Signed | Accusation)

_HEARSAY_PROBES = 4
"""About how many members look for themselves when one is suspected, each by chance."""
_DEAF_INTERVALS = 60
"""Probe intervals without a word from anybody after which it is this node that is cut off."""
_DEAF_SHARE = 4
"""It then looks at this part of the others at once, not at one after another."""


class SwimCore:
    """The membership of one node."""

    def __init__(
        self,
        config: SwimConfig,
        identity: Identity,
        profile: Profile,
        *,
        verifier: Verifier,
        metrics: Metrics,
        rng: random.Random,
        now: float,
        incarnation: int,
        seeds: tuple[Address, ...] = (),
        budget: VerificationBudget | None = None,
    ) -> None:
        """`incarnation` is `boot_incarnation(wall time)`; `seeds` are members to join; `budget`
        bounds the signatures that are checked for one node."""
        self._verifier = verifier
        self._budget = budget or VerificationBudget()
        self._config = config
        self._cluster_id = profile.cluster_id
        self._rng = rng
        self._metrics = metrics
        self._heard_at = now
        self._effects: list[Effect] = []
        self._gave_way = False
        self._probes_successor = False
        self._timers = Timers()
        self._health = LocalHealth(config.max_local_health if config.lifeguard else 0)
        emit = self._emit
        self.view = View(
            config, identity, profile, verifier, self._timers, self._health, metrics, rng,
            emit, incarnation, now,
        )  # fmt: skip
        self._refutation = self.view.refutation
        self.table = self.view.table
        self._queue = self.view.queue
        self._courier = Courier(
            config, profile.cluster_id, self.table, self._queue, self.view.proofs, emit
        )
        self._prober = Prober(
            config,
            self.table,
            self._timers,
            self._health,
            self._courier,
            rng,
            self._refutation.told_incarnation,
            emit,
        )
        if config.lifeguard:
            self.view.on_hearsay = self._look
            self.view.on_last_look = self._prober.start
        self._timers.set(("probe-tick", 0), now + rng.random() * config.probe_interval_s)
        self._anti_entropy = AntiEntropy(
            config, self.table, self._queue, self._timers, rng, self._prober.start, emit, seeds, now
        )

    @property
    def me(self) -> Member:
        """This node."""
        return self.table.me

    def next_timeout(self) -> float | None:
        """When `handle_timeout` is due."""
        return self._timers.next()

    def receive(self, message: Datagram, source: Address, now: float) -> list[Effect]:
        """A datagram that was opened and decoded."""
        sender = NodeId(message.sender)
        if message.cluster_id != self._cluster_id:
            self._metrics.count("gossip_foreign")
            return []
        if sender == self.table.me.node_id:
            return []
        newer: tuple[Signed, ...] = ()
        if message.records or message.accusations:
            records, accusations = self._news(message.records), self._news(message.accusations)
            self._take_in(records, accusations, now, source)
            newer = self.view.newer_than(accusations)
        held = self.table.get(sender)
        if held is not None:
            self._heard_at = now
        source = _return_address(message, held, source)
        match message:
            case Ping():
                self._answer(message, held, source, newer)
            case PingRequest():
                self._prober.help(message, sender, source, now)
            case Ack():
                if (reached := self._prober.acked(message.sequence, sender)) is not None:
                    self.view.answered(reached, now)
                    self._refutation.readmission.probed(now, answered=sender == reached)
                    if not message.differs:
                        self._anti_entropy.agreed()
                if message.outdated and not self._refutation.is_waiting:
                    newer = (self.me.record, *newer)
                if message.differs:
                    self._anti_entropy.differed(sender, now)
            case Nack():
                self._prober.nacked(message.sequence, sender)
        if newer and not isinstance(message, Ping):
            self._courier.post(Gossip, source, held, records=newer)
        if held is not None and held.state == "dead" and not isinstance(message, Ack):
            self._prober.start(held, now)
        return self._finish(now)

    def absorb(
        self,
        records: Iterable[Signed],
        accusations: Iterable[Accusation],
        now: float,
        *,
        spread: bool = True,
        payer: NodeId | None = None,
    ) -> list[Effect]:
        """What a push/pull with `payer` brought. A joining node does not `spread` what all others
        know, and a flood spreads by further push/pulls."""
        self._heard_at = now
        records = tuple(records)
        spread = spread and len(records) <= FLOOD
        self._take_in(records, accusations, now, payer, spread=spread)
        self._anti_entropy.brought(len(records), now)
        return self._finish(now)

    def handle_timeout(self, now: float) -> list[Effect]:
        """Does all that is due. A call that comes too late (the process was stopped, or its loop
        has more to do than it can) moves the deadlines instead of declaring everybody dead:
        the answers may wait to be read. The node knows by it that it is the slow one. The next
        call does what is due, however late, so that a slow node does go on."""
        due = self._timers.next()
        late_s = 0.0 if due is None else now - due
        gives_way = late_s > self._config.max_lag_s and not self._gave_way
        self._gave_way = gives_way and self._config.lifeguard
        if self._gave_way:
            self._timers.delay(late_s + self._config.max_lag_s)
            self._heard_at += late_s
            self._health.worsen()
            return self._finish(now)
        while (key := self._timers.pop_due(now)) is not None:
            self._fire(key[0], key[1], now)
        return self._finish(now)

    def report_refused(self, node: NodeId, now: float) -> list[Effect]:
        """A connection to `node` was refused: nobody listens where it should."""
        held = self.table.get(node)
        if held is None or not held.is_live or ("refused", node) in self._timers:
            return []
        # Once for a while: a node that refutes may be reachable by datagrams only.
        self._timers.set(("refused", node), now + 5 * self._config.probe_interval_s)
        self.view.suspect(node, now, refused=True)
        self._start_probe(node, now, urgent=True)
        # What is sure is told at once.
        self._timers.set(("gossip-tick", 0), now)
        return self._finish(now)

    def address_refused(self, address: Address, now: float) -> list[Effect]:
        """The host reported that a datagram to `address` was refused. Which datagram it was is
        not certain, so that this is a reason to look at once, not yet an accusation."""
        held = self.table.at(address)
        if held is not None and held.is_live and ("refused", held.node_id) not in self._timers:
            self._prober.refused(held, now)
        return self._finish(now)

    def link_answered(self, sequence: int, now: float) -> list[Effect]:
        """The node of a `PingLink` answered."""
        self._heard_at = now
        if (reached := self._prober.link_answered(sequence)) is not None:
            self.view.answered(reached, now)
        return self._finish(now)

    def seed_answered(self, address: Address, node: NodeId) -> None:
        """Who a seed's address belongs to; it is not tried again while that node is live."""
        self._anti_entropy.seed_answered(address, node)

    def enter(self, phase: Phase, now: float) -> list[Effect]:
        """Changes this node's phase, and spreads that."""
        if self.me.phase != phase:
            self.view.enter(phase)
            if phase == "left":
                self._timers.set(("gossip-tick", 0), now)
        return self._finish(now)

    def reconsider(self, now: float) -> list[Effect]:
        """What members may do or be has changed."""
        self.view.reconsider()
        return self._finish(now)

    def show_ticket(self, ticket: bytes, now: float) -> list[Effect]:
        """This node has a new ticket."""
        self.view.show_ticket(ticket)
        return self._finish(now)

    @property
    def is_flushed(self) -> bool:
        """Whether this node's newest record was sent as often as it should be."""
        alone = self.table.live_count == 1
        return alone or not self._queue.has_record_of(self.me.node_id)

    def _emit(self, effect: Effect) -> None:
        if not (self._refutation.is_waiting and isinstance(effect, RequestSync | RequestJoin)):
            self._effects.append(effect)

    def _finish(self, now: float) -> list[Effect]:
        if (
            self._queue.count
            and self.table.live_count > 1
            and ("gossip-tick", 0) not in self._timers
        ):
            self._timers.set(("gossip-tick", 0), now + self._config.gossip_interval_s)
        effects, self._effects = self._effects, []
        return effects

    def _news(self, items: Iterable[T]) -> list[T]:
        """Without what goes round here too."""
        return [item for item in items if not self._queue.hears(item)]

    def _take_in(
        self,
        records: Iterable[Signed],
        accusations: Iterable[Accusation],
        now: float,
        payer: NodeId | Address | None,
        *,
        spread: bool = True,
    ) -> None:
        """`payer` brought this, and pays for what has to be checked of it: a node by its link, an
        address by a datagram."""
        items: list[Signed | Accusation] = [*records, *accusations]
        spent = self._budget.has_debtors and self._budget.is_spent(self._purse(payer), now)
        for item in items:
            if spent:
                self._metrics.count("gossip_unchecked")
                return
            checked = self._verifier.checked
            if isinstance(item, Signed):
                sound = self.view.learn(item, now, spread=spread)
            else:
                sound = self.view.accused(item, now)
            if payer is not None and (self._verifier.checked != checked or not sound):
                self._budget.charge(self._purse(payer), 1 if sound else VOID_COST, now)
                spent = self._budget.is_spent(self._purse(payer), now)

    def _purse(self, payer: NodeId | Address | None) -> Hashable:
        """A node's links and datagrams have purses of their own, for a source address can be made
        up; all who are no members share one."""
        if isinstance(payer, Address) and self.table.at(payer) is None:
            return STRANGERS
        return payer

    def _answer(
        self,
        ping: Ping,
        held: Member | None,
        source: Address,
        newer: tuple[Signed, ...],
    ) -> None:
        if ping.target != self.table.me.node_id:
            return
        outdated = held is None or held.incarnation < ping.incarnation
        differs = ping.view != self.table.short_digest() and self._anti_entropy.is_due
        self._courier.post(
            Ack,
            source,
            held,
            records=newer,
            sequence=ping.sequence,
            outdated=outdated,
            differs=differs,
        )

    def _start_probe(self, node: NodeId, now: float, *, urgent: bool = False) -> None:
        target = self.table.get(node)
        if target is not None and target.node_id != self.me.node_id:
            self._prober.start(target, now, urgent=urgent)

    def _look(self, member: Member, now: float) -> None:
        if self._rng.random() * self.table.live_count < _HEARSAY_PROBES:
            self._prober.start(member, now)

    def _fire(self, kind: str, subject: bytes | int, now: float) -> None:
        match kind, subject:
            case "probe-tick", _:
                self._probe_tick(now)
            case "direct", int(sequence):
                self._refutation.readmission.probed(now, answered=False)
                self._prober.widen(sequence, now)
            case "probe", int(sequence):
                if (failed := self._prober.fail(sequence)) is not None:
                    self.view.suspect(failed, now)
            case "relay", int(sequence):
                self._prober.give_up(sequence)
            case "suspicion", bytes(node):
                self.view.conclude(NodeId(node), now)
            case "forget", bytes(node):
                self.view.forget(NodeId(node))
            case "refute", _:
                self._refutation.refute(now)
            case "gossip-tick", _:
                self._gossip_tick()
            case "catch-up", _:
                self._anti_entropy.catch_up()
            case "sync-tick", _:
                self._anti_entropy.sync_tick(now)
            case "reconnect-tick", _:
                self._anti_entropy.reconnect_tick(now)

    def _probe_tick(self, now: float) -> None:
        interval_s = self._config.probe_interval_s * self._health.factor
        self._timers.set(("probe-tick", 0), now + interval_s)
        # Every other probe goes to the successor, so that none waits long for its first probe,
        # as one may that is only met by chance; the rotation finds what a neighbour misses.
        self._probes_successor = not self._probes_successor
        target = self.table.successor() if self._probes_successor else self.table.next_probe()
        if target is not None:
            self._prober.start(target, now)
        if now - self._heard_at > _DEAF_INTERVALS * self._config.probe_interval_s:
            for member in self.table.sample(self.table.live_count // _DEAF_SHARE):
                self._prober.start(member, now)

    def _gossip_tick(self) -> None:
        for member in self.table.sample(self._config.gossip_fanout):
            if not self._queue.count:
                break
            self._courier.post(Gossip, member.address, member)


def _return_address(message: Datagram, sender: Member | None, source: Address) -> Address:
    """Where an answer goes: to the address that the sender signed, so that a datagram which
    somebody caught and sends again draws nothing to him. To where it came from only if the
    sender is not known yet, or says that it has a newer record."""
    if sender is None:
        return source
    if isinstance(message, Ping) and message.incarnation > sender.incarnation:
        return source
    return sender.address
