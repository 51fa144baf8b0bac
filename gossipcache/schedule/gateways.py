"""Core: who of a zone's children fetches which share of a task from other zones.

Each share is fetched by one child, its *gateway*, and comes to the others from it: so each piece
crosses into the zone once, over as many links as there are gateways. A gateway that ended, gains
nothing, or falls behind the other gateways loses its shares to the next child that is reviewed; one
whose share does not reach a child, whatever it says it has, loses that to the child.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from gossipcache.deviation import slow_below
from gossipcache.schedule.task import STARVED_S, Child
from gossipcache.swarm import SHARES, pieces_of_shares

GATEWAY_PATIENCE_S = 10.0
"""How long a gateway may gain nothing before others fetch its shares."""
TRIAL_S = 2.0
"""How long a share stays with its gateway before it may be found to fall behind."""


class _Gain(NamedTuple):
    pieces: int
    at: float
    """When that was first seen (monotonic s)."""


class Gateways:
    """Of one zone and task."""

    def __init__(self) -> None:
        self._fetchers: list[Child | None] = [None] * SHARES
        self._since = [float("-inf")] * SHARES
        self._trial_until = [float("-inf")] * SHARES
        """Until then a child that took a share since it went short of it may keep it."""
        self._gains: dict[Child, list[_Gain]] = {}
        """What each child has of each share, by its own word."""

    def shares(self, child: Child) -> int:
        """What a child is to fetch from other zones (bit set)."""
        return sum(1 << share for share in self._of(child))

    def remove(self, child: Child) -> None:
        """A child is gone, or has no more need of other zones."""
        self._gains.pop(child, None)
        for share in self._of(child):
            self._fetchers[share] = None

    @property
    def is_idle(self) -> bool:
        """Whether nobody fetches anything."""
        return all(fetcher is None for fetcher in self._fetchers)

    def settle(self, child: Child, now: float) -> tuple[Child, ...]:
        """Gives a child its part of the shares: those that nobody fetches, and some of who fetches
        many. Returns whom they were taken from, so that they can be told soon."""
        self._release(now)
        robbed: dict[Child, None] = {}
        while (share := self._next(child)) is not None:
            robbed |= self._give(share, child, now)
        self._look(child, now)
        if (share := self._behind(child, now)) is not None:
            robbed |= self._give(share, child, now)
        if (share := self._starving(child, now)) is not None:
            robbed |= self._give(share, child, now)
            self._trial_until[share] = now + GATEWAY_PATIENCE_S
        return tuple(robbed)

    def _look(self, child: Child, now: float) -> None:
        gains = self._gains.setdefault(child, [_Gain(-1, now) for _ in range(SHARES)])
        for share, gain in enumerate(gains):
            pieces = self._came(share, child)
            if pieces != gain.pieces:
                gains[share] = _Gain(pieces, now)

    def _starving(self, child: Child, now: float) -> int | None:
        """A share of which nothing reaches this child; one after the other, so that it can show
        that it does better."""
        if any(now < self._trial_until[share] for share in self._of(child)):
            return None
        for share, fetcher in enumerate(self._fetchers):
            given_at = max(self._gains[child][share].at, self._since[share])
            lacks = pieces_of_shares(1 << share, child.piece_count) & child.missing
            if fetcher is not child and lacks and now >= given_at + STARVED_S:
                return share
        return None

    def _give(self, share: int, child: Child, now: float) -> dict[Child, None]:
        """Returns who had the share."""
        loser = self._fetchers[share]
        self._fetchers[share], self._since[share] = child, now
        self._trial_until[share] = float("-inf")
        return {} if loser is None else {loser: None}

    def _of(self, child: Child) -> list[int]:
        return [share for share, fetcher in enumerate(self._fetchers) if fetcher is child]

    def _release(self, now: float) -> None:
        """Frees the shares of those who are complete, or gained nothing for long."""
        for share, fetcher in enumerate(self._fetchers):
            if fetcher is None:
                continue
            patient_until = max(fetcher.gained_at + GATEWAY_PATIENCE_S, self._trial_until[share])
            if fetcher.done or now >= patient_until:
                self._fetchers[share] = None

    def _next(self, child: Child) -> int | None:
        """A share that nobody fetches, or one of who fetches the most, at least two more."""
        if None in self._fetchers:
            return self._fetchers.index(None)
        count = Counter(self._fetchers)
        richest, most = max(count.items(), key=lambda item: item[1])
        return self._fetchers.index(richest) if most >= count[child] + 2 else None

    def _behind(self, child: Child, now: float) -> int | None:
        """A share that came much less far than the others, unless this child fetches such a one
        itself."""
        came = [self._came(share, fetcher) for share, fetcher in enumerate(self._fetchers)]
        limit = slow_below(came)
        behind = [share for share, pieces in enumerate(came) if pieces < limit]
        if any(self._fetchers[share] is child for share in behind):
            return None
        tried = (share for share in behind if now >= self._since[share] + TRIAL_S)
        return next(tried, None)

    @staticmethod
    def _came(share: int, fetcher: Child | None) -> int:
        if fetcher is None:
            return 0
        pieces = pieces_of_shares(1 << share, fetcher.piece_count)
        return (fetcher.have & pieces).bit_count()
