"""Failure detection: direct, indirect and link probes, and helping others to probe.

SWIM (Das et al., 2002), with nacks and local health (Lifeguard, Dadgar et al., 2018).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from gossipcache.config import SwimConfig
from gossipcache.dht.membership.courier import Courier
from gossipcache.dht.membership.effects import Effect, PingLink
from gossipcache.dht.membership.health import LocalHealth
from gossipcache.dht.membership.member import Member
from gossipcache.dht.membership.table import MemberTable
from gossipcache.dht.membership.timers import TimerKey, Timers
from gossipcache.ids import Address, NodeId
from gossipcache.messages.gossip import Ack, Nack, Ping, PingRequest

MAX_RELAYS = 256
_NACK_SHARE = 0.8
"""Part of the probe timeout after which a helper gives up, so that its nack is in time."""


@dataclass(slots=True)
class _Probe:
    target: NodeId
    fails_at: float
    rest_s: float
    """What is left of its time after that of the direct ping."""
    timer: TimerKey
    helpers: tuple[NodeId, ...] = ()
    nacks: tuple[NodeId, ...] = ()
    was_alive: bool = True


@dataclass(frozen=True, slots=True)
class _Relay:
    target: NodeId
    origin: NodeId
    origin_address: Address
    origin_sequence: int


class Prober:
    """The probes under way. Its timers are ("direct" | "probe" | "relay", sequence): one for a
    probe, first for the direct ping and then for all of it."""

    def __init__(
        self,
        config: SwimConfig,
        table: MemberTable,
        timers: Timers,
        health: LocalHealth,
        courier: Courier,
        rng: random.Random,
        incarnation: Callable[[], int],
        emit: Callable[[Effect], None],
    ) -> None:
        """`incarnation` is the one of this node that others may hear of."""
        self._config = config
        self._table = table
        self._timers = timers
        self._health = health
        self._courier = courier
        self._rng = rng
        self._incarnation = incarnation
        self._emit = emit
        self._probes: dict[int, _Probe] = {}
        self._sequences: dict[NodeId, int] = {}
        self._relays: dict[int, _Relay] = {}

    def start(self, target: Member, now: float, *, urgent: bool = False) -> None:
        """Pings `target`, unless that is under way. `urgent`: helpers and link at once too."""
        sequence = self._sequences.get(target.node_id)
        if sequence is None:
            sequence = self._begin(target, now)
        if urgent:
            self._hurry(sequence, now)

    def refused(self, target: Member, now: float) -> None:
        """The host of `target` refused a datagram: tries a link at once. The first to see it
        asks helpers too; if they are refused as well, there are several accusers at once."""
        helping = [
            sequence for sequence, relay in self._relays.items() if relay.target == target.node_id
        ]
        for sequence in helping:
            self._timers.cancel(("relay", sequence))
            self.give_up(sequence)
        self.start(target, now)
        alone = bool(helping) or target.state != "alive"
        self._hurry(self._sequences[target.node_id], now, alone=alone)

    def widen(self, sequence: int, now: float, *, alone: bool = False) -> None:
        """The direct ping was not answered in time: tries a link, and unless `alone` asks
        helpers."""
        probe = self._probes[sequence]
        probe.timer = ("probe", sequence)
        self._timers.set(probe.timer, max(probe.fails_at, now + probe.rest_s))
        if self._table.get(probe.target) is None:
            return
        count = 0 if alone else self._config.indirect_probes
        helpers = self._table.sample(count, exclude=(probe.target,))
        probe.helpers = tuple(helper.node_id for helper in helpers)
        for helper in helpers:
            self._courier.post(
                PingRequest, helper.address, helper, sequence=sequence, target=probe.target
            )
        if self._config.lifeguard:
            self._emit(PingLink(probe.target, sequence))

    def fail(self, sequence: int) -> NodeId | None:
        """The probe's time is over: returns the target, and judges this node's own health."""
        probe = self._finish(sequence)
        if probe is None:
            return None
        if probe.was_alive:
            missing = len(probe.helpers) - len(probe.nacks)
            self._health.worsen(missing if probe.helpers else 1)
        return probe.target

    def help(self, request: PingRequest, origin: NodeId, source: Address, now: float) -> None:
        """Pings the target of `request` on behalf of `origin`."""
        target = self._table.get(NodeId(request.target))
        if target is None or not target.is_live or len(self._relays) >= MAX_RELAYS:
            self._post(Nack, source, origin, request.sequence)
            return
        sequence = self._new_sequence()
        self._relays[sequence] = _Relay(target.node_id, origin, source, request.sequence)
        self._ping(target, sequence)
        self._timers.set(("relay", sequence), now + self._config.probe_timeout_s * _NACK_SHARE)

    def give_up(self, sequence: int) -> None:
        """The target did not answer this helper in time."""
        relay = self._relays.pop(sequence)
        self._post(Nack, relay.origin_address, relay.origin, relay.origin_sequence)

    def acked(self, sequence: int, sender: NodeId) -> NodeId | None:
        """An ack by `sender`: the target itself, or a helper that reached it. Returns the
        target of the probe that this ends."""
        relay = self._relays.get(sequence)
        if relay is not None and relay.target == sender:
            del self._relays[sequence]
            self._timers.cancel(("relay", sequence))
            self._post(Ack, relay.origin_address, relay.origin, relay.origin_sequence)
            return None
        probe = self._probes.get(sequence)
        if probe is None or (sender != probe.target and sender not in probe.helpers):
            return None
        self._finish(sequence)
        self._health.improve()
        return probe.target

    def nacked(self, sequence: int, sender: NodeId) -> None:
        """A helper says that it did not reach the target either."""
        probe = self._probes.get(sequence)
        if probe is not None and sender in probe.helpers and sender not in probe.nacks:
            probe.nacks += (sender,)

    def link_answered(self, sequence: int) -> NodeId | None:
        """The target answered over a link: it lives, though its datagrams may not arrive.
        Returns the target of the probe that this ends."""
        probe = self._finish(sequence)
        return None if probe is None else probe.target

    def _begin(self, target: Member, now: float) -> int:
        sequence, config, factor = self._new_sequence(), self._config, self._health.factor
        self._probes[sequence] = probe = _Probe(
            target.node_id,
            fails_at=now + config.probe_interval_s * factor,
            rest_s=(config.probe_interval_s - config.probe_timeout_s) * factor,
            timer=("direct", sequence),
            was_alive=target.state == "alive",
        )
        self._sequences[target.node_id] = sequence
        self._ping(target, sequence)
        self._timers.set(probe.timer, now + config.probe_timeout_s * factor)
        return sequence

    def _hurry(self, sequence: int, now: float, *, alone: bool = False) -> None:
        """Gives the direct ping no more time."""
        key = self._probes[sequence].timer
        if key[0] == "direct":
            self._timers.cancel(key)
            self.widen(sequence, now, alone=alone)

    def _post(
        self, kind: type[Ack | Nack], address: Address, origin: NodeId, sequence: int
    ) -> None:
        self._courier.post(kind, address, self._table.get(origin), sequence=sequence)

    def _ping(self, target: Member, sequence: int) -> None:
        self._courier.post(
            Ping,
            target.address,
            target,
            sequence=sequence,
            target=target.node_id,
            incarnation=self._incarnation(),
            view=self._table.short_digest(),
        )

    def _finish(self, sequence: int) -> _Probe | None:
        probe = self._probes.pop(sequence, None)
        if probe is not None:
            del self._sequences[probe.target]
            self._timers.cancel(probe.timer)
        return probe

    def _new_sequence(self) -> int:
        while True:
            # Random, so that nobody who does not see the ping can forge its ack.
            sequence = self._rng.getrandbits(32)
            if sequence not in self._probes and sequence not in self._relays:
                return sequence
