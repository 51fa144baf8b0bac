"""What this node answers to claims about itself: refutes at once, or waits (flap damping).

A claim is an accusation, or a record that this key signed in an earlier life.
"""

from __future__ import annotations

from collections.abc import Callable

from gossipcache.config import SwimConfig
from gossipcache.dht.membership.broadcast import BroadcastQueue
from gossipcache.dht.membership.health import LocalHealth
from gossipcache.dht.membership.member import MAX_INCARNATION, Member, next_boot
from gossipcache.dht.membership.readmission import Docket, Readmission
from gossipcache.dht.membership.suspicion import DEATH_QUORUM
from gossipcache.dht.membership.table import MemberTable
from gossipcache.dht.membership.timers import Timers
from gossipcache.ids import NodeId
from gossipcache.messages.gossip import Accusation, Phase
from gossipcache.metrics import Metrics

_PARTED_SHARE = 4
"""If one is dead for so many that live, it is the network that was broken, …"""
_PARTED_INTERVALS = 10
"""… and so many probe intervals after that it may have healed, and the verdicts go round."""


class Refutation:
    """The incarnations of this node. Its timer is ("refute", 0)."""

    def __init__(
        self,
        config: SwimConfig,
        table: MemberTable,
        queue: BroadcastQueue,
        timers: Timers,
        health: LocalHealth,
        metrics: Metrics,
        is_signed: Callable[[Accusation, Member], bool],
        sign: Callable[[int, Phase], None],
        now: float,
    ) -> None:
        """`is_signed` checks an accusation by a witness; `sign` makes this node's record anew,
        and spreads it."""
        self._config = config
        self._table = table
        self._queue = queue
        self._timers = timers
        self._health = health
        self._metrics = metrics
        self._is_signed = is_signed
        self._sign = sign
        self._refutable_at = float("-inf")
        self._claimed = 0
        self._parted_at = float("-inf")
        self._docket = Docket(table.me.incarnation)
        self.is_waiting = False
        """Whether this node is dead for others, and does not ask yet to be taken back: it says
        nothing of a later incarnation."""
        self.readmission = Readmission(config, now)

    def told_incarnation(self) -> int:
        """What this node says of its own incarnation."""
        return 0 if self.is_waiting else self._table.me.incarnation

    def accused(self, accusation: Accusation, now: float) -> bool:
        """Refutes at once, unless this node was called dead by enough others and before. Whether
        the accusation is sound, as far as it was looked at."""
        accuser, me = NodeId(accusation.accuser), self._table.me
        witness, of = self._table.get(accuser), accusation.incarnation
        if witness is None or witness is me or of > me.incarnation:
            return True
        is_current = of == me.incarnation
        is_death = accusation.verdict == "dead" or (
            is_current and self.readmission.is_hopeless(now)
        )
        is_verdict = is_death and self._docket.is_news(of, accuser)
        if not is_verdict and (self.is_waiting or not is_current):
            return True
        if not self._is_signed(accusation, witness):
            return False
        if is_current:
            self._health.worsen()
        if is_verdict and self._judge(of, accuser, now):
            self._wait(now)
        elif is_current and self._docket.is_open and self.readmission.is_on_probation(now):
            # Perhaps one liar's word: a second verdict would be here soon.
            if ("refute", 0) not in self._timers:
                self._timers.set(("refute", 0), now + 2 * self._config.probe_interval_s)
        elif is_current:
            self._refute_soon(now)
        return True

    def outbid(self, incarnation: int, now: float) -> None:
        """A record that this key signed, but not this process: an earlier life of it."""
        if incarnation >= self._table.me.incarnation and not self.is_waiting:
            self._claimed = max(self._claimed, incarnation)
            self._refute_soon(now)

    def refute(self, now: float) -> None:
        """Outlives every claim about this node that was heard so far, or waits on if it must
        not come back yet."""
        me = self._table.me
        if me.phase == "left":
            return
        if self.is_waiting and now < self.readmission.return_at():
            self._timers.set(("refute", 0), now + self._config.probe_interval_s)
            return
        incarnation = me.incarnation + 1
        if self._claimed >= me.incarnation:
            incarnation = next_boot(self._claimed)
        if incarnation > MAX_INCARNATION:
            self._metrics.count("gossip_incarnations_exhausted")
            return
        if self.is_waiting:
            self.readmission.returned(now)
        self._refutable_at = now + self._config.gossip_interval_s
        self._metrics.count("gossip_refutations")
        self.sign_anew(incarnation, me.phase)

    def sign_anew(self, incarnation: int, phase: Phase) -> None:
        """Says a later incarnation of this node, whether or not it waited."""
        self.is_waiting = False
        self._sign(incarnation, phase)

    def others_return(self, now: float) -> None:
        """A member came back or was renewed: if many are dead, a partition heals."""
        if self._is_parted:
            self._parted_at = now

    def _judge(self, incarnation: int, accuser: NodeId, now: float) -> bool:
        """Whether this node has died and has to wait. A quorum of verdicts is a death, as is one
        if this node's link is bad, so that it may not hear of others, or a suspicion if there is
        no hope to refute in time; but not if many others died for this node too, and some answer:
        then the network was parted, and no member flaps."""
        needed = DEATH_QUORUM if self.readmission.is_steady else 1
        if not self._docket.add(incarnation, accuser, needed) or not self._config.lifeguard:
            return False
        if self._was_parted(now) and not self.readmission.is_broken:
            return False
        self.readmission.died(now)
        return now < self.readmission.return_at()

    @property
    def _is_parted(self) -> bool:
        return self._table.dead_count * _PARTED_SHARE >= self._table.live_count

    def _was_parted(self, now: float) -> bool:
        interval_s = self._config.probe_interval_s
        return self._is_parted or now - self._parted_at < _PARTED_INTERVALS * interval_s

    def _wait(self, now: float) -> None:
        self.is_waiting = True
        self._queue.drop(self._table.me.node_id)
        self._timers.set(("refute", 0), now + self._config.probe_interval_s)

    def _refute_soon(self, now: float) -> None:
        # Limited in rate, so that two processes with one key do not flood the cluster.
        if now >= self._refutable_at:
            self.refute(now)
        else:
            self._timers.set(("refute", 0), self._refutable_at)
