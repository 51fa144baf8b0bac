"""Who makes a node check too many signatures waits; nobody else does."""

from __future__ import annotations

from gossipcache.budget import VOID_COST, VerificationBudget


def test_a_purse_is_emptied_by_checks_and_filled_by_time() -> None:
    budget = VerificationBudget(burst=10, per_s=2.0)
    for _ in range(10):
        assert not budget.is_spent("liar", 0.0)
        budget.charge("liar", 1, 0.0)
    assert budget.is_spent("liar", 0.0)
    assert not budget.is_spent("liar", 0.5)
    budget.charge("liar", 1, 0.5)
    assert budget.is_spent("liar", 0.5)
    assert not budget.is_spent("other", 0.5)


def test_void_signatures_cost_more() -> None:
    budget = VerificationBudget(burst=2 * VOID_COST, per_s=1.0)
    budget.blame("liar", 1, 0.0)
    assert not budget.is_spent("liar", 0.0)
    budget.blame("liar", 1, 0.0)
    assert budget.is_spent("liar", 0.0)


def test_sources_without_debts_are_forgotten() -> None:
    budget = VerificationBudget(burst=1, per_s=1.0)
    for number in range(20_000):
        budget.charge(number, 1, number * 0.001)
    assert len(budget._debts) < 10_000
