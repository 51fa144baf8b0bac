"""How many signatures this node checks on behalf of one source.

A check costs some 100 µs, so who sends signatures faster than that, above all void ones, would
keep a processor busy. Each source has a purse (token bucket): checks take from it, void ones
more, time fills it again; while it is empty, nothing that the source says is checked.
"""

from __future__ import annotations

from collections.abc import Hashable

BURST_CHECKS = 8192
"""A push/pull of some thousand members passes at once."""
CHECKS_PER_S = 512.0
VOID_COST = 16
"""What a check costs whose signature does not hold: 512 of them at once, then 32 a second."""
STRANGERS = b"strangers"
"""The one purse of all who are no members."""
_FEW_DEBTORS = 4096


class VerificationBudget:
    """The purses of all sources; those that are full are not remembered."""

    def __init__(self, burst: int = BURST_CHECKS, per_s: float = CHECKS_PER_S) -> None:
        self._burst, self._per_s = burst, per_s
        self._debts: dict[Hashable, tuple[float, float]] = {}
        self._many = _FEW_DEBTORS

    @property
    def has_debtors(self) -> bool:
        """Whether anybody's purse may be other than full."""
        return bool(self._debts)

    def is_spent(self, source: Hashable, now: float) -> bool:
        """Whether `source` must wait."""
        debt = self._debt(source, now)
        if not debt:
            self._debts.pop(source, None)
        return debt >= self._burst

    def charge(self, source: Hashable, checks: int, now: float) -> None:
        """Takes `checks` out of the purse of `source`."""
        self._debts[source] = (self._debt(source, now) + checks, now)
        if len(self._debts) > self._many:
            self._forget_paid(now)

    def blame(self, source: Hashable, voids: int, now: float) -> None:
        """Charges for signatures that did not hold."""
        self.charge(source, voids * VOID_COST, now)

    def _forget_paid(self, now: float) -> None:
        self._debts = {
            each: debt for each, debt in self._debts.items() if self._debt(each, now) > 0
        }
        # Twice as many as are left, so that each charge pays for two looks at most.
        self._many = max(_FEW_DEBTORS, 2 * len(self._debts))

    def _debt(self, source: Hashable, now: float) -> float:
        debt, at = self._debts.get(source, (0.0, now))
        return max(0.0, debt - (now - at) * self._per_s)
