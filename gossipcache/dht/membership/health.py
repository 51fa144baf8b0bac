"""Local health: whether this node itself is the slow one (Lifeguard, LHA-Probe)."""

from __future__ import annotations


class LocalHealth:
    """A score from 0 (healthy) to `limit`; intervals and timeouts of probes grow with it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.score = 0

    @property
    def factor(self) -> int:
        """What probe intervals and timeouts are multiplied by."""
        return self.score + 1

    def worsen(self, by: int = 1) -> None:
        """A probe failed, helpers stayed silent, or this node was suspected or delayed."""
        self.score = min(self.score + by, self._limit)

    def improve(self) -> None:
        """A probe was answered in time."""
        if self.score:
            self.score -= 1
