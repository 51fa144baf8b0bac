"""A suspicion: who accuses a member, and until when it may refute (Lifeguard, LHA-Suspicion)."""

from __future__ import annotations

import math

from gossipcache.config import SwimConfig
from gossipcache.ids import NodeId
from gossipcache.messages.gossip import Accusation

DEATH_QUORUM = 2
"""Distinct accusers, one of them with the verdict dead, that end a suspicion before its time:
no single member can declare another one dead in the eyes of a third."""
MAX_REFUSAL_WITNESSES = 3
"""Others who accuse a member that refused this node's connection, each of whom shortens the
time in which it may still answer."""


class Suspicion:
    """The accusations against one incarnation of one member.

    The suspicion starts long and gets shorter with each further distinct accuser, logarithmically,
    down to its minimum; refused connections shorten it to one probe interval.
    """

    def __init__(self, config: SwimConfig, live_count: int, now: float) -> None:
        self._started = now
        self._quorum = DEATH_QUORUM if config.lifeguard else 1
        self._minimum_s = (
            config.suspicion_factor * max(1.0, math.log10(live_count)) * config.probe_interval_s
        )
        self._maximum_s = self._minimum_s * config.suspicion_max_factor
        self._interval_s = config.probe_interval_s
        # Only others than this node and the subject can confirm.
        self._confirmations = max(0, min(config.indirect_probes, live_count - 2))
        if not config.lifeguard:
            self._confirmations = 0
        self._accusations: dict[NodeId, Accusation] = {}
        self._verdicts = 0
        """How many of them say dead."""
        self._refused_at: float | None = None
        self._looked_at: float | None = None

    def __contains__(self, accuser: NodeId) -> bool:
        return accuser in self._accusations

    @property
    def proofs(self) -> tuple[Accusation, ...]:
        """The accusations, those of death first."""
        return tuple(sorted(self._accusations.values(), key=lambda one: one.verdict != "dead"))

    def is_news(self, accusation: Accusation) -> bool:
        """Whether this adds to what is known: another accuser while there are few, or one who
        now says dead while fewer than `DEATH_QUORUM` do."""
        known = self._accusations.get(NodeId(accusation.accuser))
        if accusation.verdict != "dead":
            return known is None and len(self._accusations) <= self._confirmations
        if known is not None and known.verdict == "dead":
            return False
        return self._verdicts < self._quorum

    def add(self, accusation: Accusation) -> None:
        """Counts an accusation whose signature holds."""
        accuser = NodeId(accusation.accuser)
        known = self._accusations.get(accuser)
        self._verdicts += accusation.verdict == "dead"
        self._verdicts -= known is not None and known.verdict == "dead"
        self._accusations[accuser] = accusation

    def refused(self, now: float) -> None:
        """This node's own connection to the subject was refused."""
        if self._refused_at is None:
            self._refused_at = now

    def answered(self, now: float) -> None:
        """The subject answered this node after all: it gets the full time to refute, anew."""
        self._started = now
        self._refused_at = self._looked_at = None

    def looked(self, now: float) -> None:
        """This node looks for itself once more before it buries the subject."""
        self._looked_at = now

    def next_step(self, me: NodeId) -> float:
        """When the last look is due, or if that was taken, the burial. Who saw the subject fail
        looks in time for the burial; who only heard of it waits for their verdict first."""
        deadline = self.deadline()
        if self._refused_at is not None:
            return deadline
        if self._looked_at is not None:
            return max(deadline, self._looked_at + self._interval_s)
        return deadline - self._interval_s if me in self else deadline

    @property
    def is_looked_at(self) -> bool:
        """Whether nothing is left to do but to bury the subject."""
        return self._looked_at is not None or self._refused_at is not None

    def deadline(self) -> float:
        """When the subject is dead unless it refutes."""
        confirmed = max(0, len(self._accusations) - 1)
        if self._confirmations == 0:
            length_s = self._minimum_s
        else:
            share = math.log(confirmed + 1) / math.log(self._confirmations + 1)
            length_s = self._maximum_s - share * (self._maximum_s - self._minimum_s)
        deadline = self._started + max(length_s, self._minimum_s)
        if self._refused_at is not None:
            share = 1 / (1 + min(confirmed, MAX_REFUSAL_WITNESSES))
            deadline = min(deadline, self._refused_at + self._interval_s * share)
        return deadline

    def is_proven(self, me: NodeId) -> bool:
        """Whether enough distinct members, this node counted, hold the subject for dead."""
        deaths = {
            NodeId(one.accuser) for one in self._accusations.values() if one.verdict == "dead"
        }
        if me in self._accusations:
            return len(deaths | {me}) >= self._quorum
        return len(deaths) >= self._quorum
