"""A busy parent's word that others come first, and how long it is believed.

It costs a child nothing to wait in line, for it asks others for the same pieces meanwhile; yet one
that promises for ever holds a place among the parents.
"""

from __future__ import annotations

from dataclasses import dataclass

from gossipcache.transfer.promise import REPEAT_S

PATIENCE_S = 60.0
"""A parent may correct itself for so long, and keep a child waiting, before that counts."""
PATIENCE_FACTOR = 2.0
"""What it promised by then may take so many times as long."""


@dataclass(slots=True)
class Wait:
    """What one parent said since it gave a piece last. Times are those of the core."""

    since: float
    due: float
    """When the turn comes by what was said last."""
    heard_at: float
    given_up_at: float
    """When it is believed no more."""
    is_over: bool = False
    """The turn has come."""

    @classmethod
    def begin(cls, wait_s: float, now: float) -> Wait:
        """It says for the first time that its turn comes in `wait_s`."""
        return cls(now, now + wait_s, now, now + max(PATIENCE_S, PATIENCE_FACTOR * wait_s))

    def told(self, wait_s: float, now: float) -> None:
        """It says so again; 0: the turn has come."""
        self.due, self.heard_at, self.is_over = now + wait_s, now, wait_s <= 0
        if now <= self.since + PATIENCE_S:
            self.given_up_at = max(self.given_up_at, now + PATIENCE_FACTOR * wait_s)

    @property
    def quiet_until(self) -> float:
        """Until then it need not be heard of."""
        return min(self.due, self.heard_at + REPEAT_S)
