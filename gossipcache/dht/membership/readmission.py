"""When a node that was called dead asks to be taken back: flap damping by the node itself.

Only a member itself can sign the incarnation that brings it back, so the one that flaps waits,
and all views stay equal. The first return in ten minutes is free. For each further one the node
must have seen its own pings answered for a time that doubles; a bad or one-way link keeps it
out, a good one lets it in. A new process starts with a clean sheet.
"""

from __future__ import annotations

import math

from gossipcache.config import SwimConfig
from gossipcache.ids import NodeId

WINDOW_S = 600.0
"""How long a death counts, and the longest wait."""
_MEMORY_S = 16.0
_STEADY_SHARE = 0.6
"""The share of direct pings answered below which the own link is bad."""
_BROKEN_SHARE = 0.35
"""… and below which it is hardly one at all."""


class Readmission:
    """The deaths of this node that others agreed on, and how its own pings fare."""

    def __init__(self, config: SwimConfig, now: float) -> None:
        self._first_wait_s = config.readmission_s
        self._deaths: list[float] = []
        self._answered_share = 1.0
        self._probed_at = now
        self._steady_since = float("-inf")

    def probed(self, now: float, *, answered: bool) -> None:
        """A direct ping of this node was answered in time, or not."""
        was_steady = self.is_steady
        weight = 1 - math.exp((self._probed_at - now) / _MEMORY_S)
        self._answered_share += weight * (answered - self._answered_share)
        self._probed_at = now
        # The time before the ping that made it steady was a bad one, however long ago the last was.
        if not (was_steady and self.is_steady):
            self._steady_since = now

    @property
    def is_steady(self) -> bool:
        """Whether most pings are answered at present."""
        return self._answered_share >= _STEADY_SHARE

    @property
    def is_broken(self) -> bool:
        """Whether hardly any ping is answered at present."""
        return self._answered_share < _BROKEN_SHARE

    def is_hopeless(self, now: float) -> bool:
        """Whether a death still counts, and the link is broken: a refutation would be
        late as often as not, and make this node flap."""
        return self.is_on_probation(now) and self.is_broken

    def died(self, now: float) -> None:
        """Others hold this node for dead."""
        self._deaths = [at for at in self._deaths if now - at < WINDOW_S]
        self._deaths.append(now)

    def returned(self, now: float) -> None:
        """This node comes back after it waited: its last death counts for as long again."""
        self._deaths[-1] = now

    def is_on_probation(self, now: float) -> bool:
        """Whether a death still counts."""
        return bool(self._deaths) and now - self._deaths[-1] < WINDOW_S

    def return_at(self) -> float:
        """When this node may come back from its last death, if its pings go on as they do."""
        if len(self._deaths) < 2:
            return float("-inf")
        wait_s = self._first_wait_s * float(2 ** (len(self._deaths) - 2))
        steady_at = max(self._deaths[-1], self._steady_since) + wait_s
        return min(steady_at, self._deaths[-1] + WINDOW_S)


class Docket:
    """Who calls this node dead, at which of its incarnations."""

    def __init__(self, incarnation: int) -> None:
        self._incarnation = incarnation
        """The one that is being judged; verdicts on earlier ones are old news."""
        self._judges: set[NodeId] = set()
        self._is_closed = False

    @property
    def is_open(self) -> bool:
        """Whether there are verdicts, but not enough."""
        return bool(self._judges) and not self._is_closed

    def is_news(self, incarnation: int, judge: NodeId) -> bool:
        """Whether that adds to what is known."""
        if incarnation == self._incarnation:
            return not self._is_closed and judge not in self._judges
        return incarnation > self._incarnation

    def add(self, incarnation: int, judge: NodeId, needed: int) -> bool:
        """Counts a verdict; whether it makes the `needed` ones full, which it does once."""
        if incarnation != self._incarnation:
            self._incarnation, self._judges, self._is_closed = incarnation, set(), False
        self._judges.add(judge)
        self._is_closed = len(self._judges) >= needed
        return self._is_closed
