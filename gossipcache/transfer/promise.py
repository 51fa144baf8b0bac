"""When a child that waits in line for a piece is told how long.

Sans-IO; times are monotonic seconds. An estimate that proves wrong is mended, at a bounded rate,
and none is left to stand for long: a child learns from it that its parent lives.
"""

from __future__ import annotations

TOLD_FROM_S = 1.0
"""Who has to wait less than this is not told."""
TOLD_AFTER_S = 2.0
"""Who has waited so long without a word is told in any case."""
LOOK_INTERVAL_S = 1.0
"""One who waits is told no more often than this."""
REPEAT_S = 10.0
"""Nor less often, once it was told."""
TOLERANCE = 0.25
"""A promise stands while it is wrong by less than this share of the time that is left."""


class Promise:
    """What one who waits was told, and whether it is to be told again."""

    def __init__(self, now: float) -> None:
        self.look_at = now
        """When to look next."""
        self.is_made = False
        """Whether it was told anything."""
        self._repeat_at = now + TOLD_AFTER_S
        self._due = now
        """When its turn comes by what it was told."""

    def look(self, wait_s: float, now: float) -> bool:
        """Whether it is to be told that it waits for `wait_s` from now on; then that counts as
        told."""
        tells = now >= self._repeat_at or self._is_news(wait_s, now)
        if tells:
            self.is_made, self._due, self._repeat_at = True, now + wait_s, now + REPEAT_S
        soon = now + max(LOOK_INTERVAL_S, TOLERANCE * wait_s)
        self.look_at = min(soon, self._repeat_at)
        return tells

    def _is_news(self, wait_s: float, now: float) -> bool:
        if not self.is_made:
            return wait_s >= TOLD_FROM_S
        return abs(now + wait_s - self._due) > max(LOOK_INTERVAL_S, TOLERANCE * wait_s)
