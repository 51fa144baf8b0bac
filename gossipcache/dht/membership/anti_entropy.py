"""When this node merges its view with another's, and whose: push/pull anti-entropy.

Gossip may miss somebody; pings tell where views differ, and a push/pull evens it out. The dead
and the seeds are tried again for ever, so that partitions heal by themselves.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from gossipcache.config import SwimConfig
from gossipcache.dht.membership.broadcast import BroadcastQueue
from gossipcache.dht.membership.effects import Effect, RequestJoin, RequestSync
from gossipcache.dht.membership.member import Member
from gossipcache.dht.membership.table import MemberTable
from gossipcache.dht.membership.timers import Timers
from gossipcache.ids import Address, NodeId

FLOOD = 24
"""So much news at once (a mass join, a healed partition) goes faster by push/pull, which sends
only what the other side lacks, than by gossip, which repeats everything."""
_RESYNC_INTERVALS = 1
"""Probe intervals between two push/pulls that a differing view asks for."""
_RECONNECTS = 4
"""About how many members try one of the dead again in each reconnect interval."""
_BEHIND = 4
"""A push/pull that brings more records shows that this node is behind: there may be more news
soon, so that it asks again."""


class AntiEntropy:
    """The push/pulls to ask for. Its timers are ("sync-tick" | "reconnect-tick" | "resync" |
    "catch-up", 0)."""

    def __init__(
        self,
        config: SwimConfig,
        table: MemberTable,
        queue: BroadcastQueue,
        timers: Timers,
        rng: random.Random,
        probe: Callable[[Member, float], None],
        emit: Callable[[Effect], None],
        seeds: tuple[Address, ...],
        now: float,
    ) -> None:
        self._config = config
        self._table = table
        self._queue = queue
        self._timers = timers
        self._rng = rng
        self._probe = probe
        self._emit = emit
        self._seeds = seeds
        self._seed_nodes: dict[Address, NodeId] = {}
        self._agreed = False
        """Whether an ack said, since the last sync tick, that another view is like this one."""
        timers.set(("sync-tick", 0), now + rng.random() * config.sync_interval_s)
        timers.set(("reconnect-tick", 0), now)

    def seed_answered(self, address: Address, node: NodeId) -> None:
        """Who a seed's address belongs to; it is not tried again while that node is live."""
        self._seed_nodes[address] = node

    @property
    def is_due(self) -> bool:
        """Whether gossip will not even out differing views: it rests, or it is flooded."""
        return not 0 < self._queue.count <= FLOOD

    def agreed(self) -> None:
        """Another view is like this one."""
        self._agreed |= not self._queue.count

    def differed(self, node: NodeId, now: float) -> None:
        """The view of `node` is another: no need to wait for the next tick."""
        if self._table.get(node) is None or not self.is_due or ("resync", 0) in self._timers:
            return
        self._timers.set(("resync", 0), now + _RESYNC_INTERVALS * self._config.probe_interval_s)
        self._emit(RequestSync(node))

    def brought(self, records: int, now: float) -> None:
        """A push/pull brought so many records: if many, there may be more news soon."""
        if records > _BEHIND and ("catch-up", 0) not in self._timers:
            wait_s = self._config.probe_interval_s * (0.25 + self._rng.random() / 2)
            self._timers.set(("catch-up", 0), now + wait_s)

    def catch_up(self) -> None:
        """Asks a seed, which hears of everybody who joins, or somebody else: they share the
        load of a mass join."""
        seeds = [node for node in self._seed_nodes.values() if self._is_other(node)]
        if seeds and self._rng.random() < 0.5:
            self._emit(RequestSync(self._rng.choice(seeds)))
        else:
            self._sync_with_any()

    def sync_tick(self, now: float) -> None:
        """Pings compare views all the time; push/pull is for when their answers stay away."""
        self._timers.set(("sync-tick", 0), now + self._config.sync_interval_s)
        agreed, self._agreed = self._agreed, False
        if not agreed:
            self._sync_with_any()

    def reconnect_tick(self, now: float) -> None:
        """Tries the dead and the seeds again, so that partitions heal by themselves."""
        phase = self._table.me.phase
        alone, joining = self._table.live_count == 1, phase == "joining"
        interval_s = self._config.reconnect_interval_s
        if alone or joining:
            interval_s = self._config.probe_interval_s
        self._timers.set(("reconnect-tick", 0), now + interval_s * (0.75 + self._rng.random() / 2))
        if phase == "left":
            return
        self._reconnect(now)
        if joining:
            # Whom others called before a seed answered knows all seeds, and joins through anybody.
            self._sync_with_any()
        missing = [seed for seed in self._seeds if not self._is_known(seed)]
        if missing and not alone:
            missing = [self._rng.choice(missing)]
        for seed in missing:
            self._emit(RequestJoin(seed))

    def _reconnect(self, now: float) -> None:
        """All together try each of the dead a few times an interval, however many they are."""
        share = _RECONNECTS * self._table.dead_count / self._table.live_count
        dead = self._table.random_dead() if self._rng.random() < share else None
        if dead is not None:
            self._probe(dead, now)
            self._emit(RequestSync(dead.node_id))

    def _sync_with_any(self) -> None:
        for member in self._table.sample(1):
            self._emit(RequestSync(member.node_id))

    def _is_other(self, node: NodeId) -> bool:
        held = self._table.get(node)
        return held is not None and held.is_live and node != self._table.me.node_id

    def _is_known(self, seed: Address) -> bool:
        node = self._seed_nodes.get(seed)
        held = self._table.at(seed) if node is None else self._table.get(node)
        return held is not None and held.is_live
