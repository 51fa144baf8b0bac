"""How long a download waits for its parents, and which of them are slow.

A parent that is silent has *stalled*: others are asked for what it owes, and later it is dropped. A
parent that is busy may be silent until the time that it names. One that sends is *slow* by
deviation from the others (`gossipcache.deviation`), and late by that as well as by its own past.
"""

from __future__ import annotations

from collections.abc import Collection
from math import inf

from gossipcache.config import TransferConfig
from gossipcache.deviation import slow_below
from gossipcache.transfer.download.endgame import LATE_S
from gossipcache.transfer.download.parent import Parent
from gossipcache.transfer.download.requests import Request

OPEN_TIMEOUT_S = 10.0
"""A parent that has not opened the task by then, nor sent any byte meanwhile, is given up."""
_OVERDUE_FACTOR = 4.0
_LEAST_RATES = 3
"""A child has few parents: of so many one can be told to be slow."""


class Patience:
    """Of one download with its parents."""

    def __init__(self, config: TransferConfig) -> None:
        self._config = config
        self._slow_below = 0.0
        """Bytes a second."""

    def measure(self, parents: Collection[Parent]) -> None:
        """Their rates have changed."""
        rates = [parent.meter.rate for parent in parents if parent.meter.rate]
        self._slow_below = slow_below(rates, _LEAST_RATES)

    def is_slow(self, parent: Parent) -> bool:
        """Whether it gives less than the others, by far, or has yet to give what is late."""
        rate = parent.meter.rate
        return parent.is_late or (rate is not None and rate < self._slow_below)

    def look_at(self, parent: Parent) -> float:
        """When it is to be looked at next; infinity: never, as things are."""
        at = inf if parent.is_open else self.unopened_at(parent)
        if parent.paused_until is not None:
            at = min(at, parent.paused_until)
        if not (parent.requests or parent.stalled):
            return at
        at = min(at, self.silent_at(parent))
        if parent.wait is not None and not parent.wait.is_over:
            at = min(at, parent.wait.given_up_at)
        if (oldest := parent.oldest_kept) is not None:
            at = min(at, self.late_at(parent, oldest), self.overdue_at(parent, oldest))
        return at

    def unopened_at(self, parent: Parent) -> float:
        """When it has taken too long to open the task."""
        return parent.progress_at + OPEN_TIMEOUT_S

    def silent_at(self, parent: Parent) -> float:
        """When it has been silent for too long: first it has stalled, then it is given up."""
        silence_s = self._config.piece_timeout_s if parent.stalled else self._config.stall_s
        quiet_until = parent.wait.quiet_until if parent.is_waiting and parent.wait else 0.0
        return max(parent.progress_at, quiet_until) + silence_s

    def breaks_word(self, parent: Parent, now: float) -> bool:
        """Whether it has promised a turn for longer than it is believed."""
        return parent.is_waiting and parent.wait is not None and now >= parent.wait.given_up_at

    def late_at(self, parent: Parent, oldest: Request) -> float:
        """When the oldest request is so late, by its own past and by the others, that one of them
        is to have a try as well; once, until it has given a piece: what is sent twice is little."""
        if parent.is_late or not self._slow_below:
            return inf
        others_s = parent.window * oldest.size / self._slow_below
        late_s = max(LATE_S, others_s, self._usual_s(parent, oldest))
        return parent.begun_at(oldest) + late_s

    def overdue_at(self, parent: Parent, oldest: Request) -> float:
        """When the oldest request is no longer left to this parent, bytes or no bytes."""
        overdue_s = max(self._config.piece_timeout_s, self._usual_s(parent, oldest))
        return parent.begun_at(oldest) + overdue_s

    def _usual_s(self, parent: Parent, oldest: Request) -> float:
        return _OVERDUE_FACTOR * parent.window * parent.piece_s(oldest.size)
