"""The faults of one run: what a plan puts in their place, and how many of them took effect.

A fault is *armed* when it is applied, and has *bit* when something met it: a packet fell into
the partition, someone called the dead node, a write found the disk full. A run with an armed
fault that never bit proves nothing about it and is reported as vacuous.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sim.faults import AnyFault, kind_of


@dataclass(slots=True)
class FaultCount:
    """How many faults of a kind were applied, and how many of them took effect."""

    armed: int = 0
    bit: int = 0


@dataclass(slots=True, eq=False)
class Armed:
    """A fault that was asked for; None: it was left out, or waits for its instant."""

    fault: AnyFault | None = None
    bites: Callable[[], int] = lambda: 0
    """How often it took effect so far."""


class Tally:
    """With a `plan` (the faults of an earlier run, in the order in which they were asked for; None
    for one that is left out, as are all beyond the last) each fault that a scenario asks for is
    replaced by the next of the plan, and waits for its instant.
    """

    def __init__(self, plan: Iterable[AnyFault | None] | None = None) -> None:
        self._plan = None if plan is None else deque(plan)
        self._armed: list[Armed] = []

    @property
    def is_planned(self) -> bool:
        """Whether faults wait for the instants that a plan gives them."""
        return self._plan is not None

    def ask(self, fault: AnyFault) -> tuple[Armed, AnyFault | None]:
        """The place of a fault that a scenario asks for, and what is to be applied instead."""
        armed = Armed()
        self._armed.append(armed)
        if self._plan is None:
            return armed, fault
        return armed, self._plan.popleft() if self._plan else None

    def schedule(self) -> list[AnyFault | None]:
        """What was applied and when, so that it can be played again."""
        return [armed.fault for armed in self._armed]

    def counts(self) -> dict[str, FaultCount]:
        """Armed and bit, by kind of fault."""
        found: dict[str, FaultCount] = {}
        for armed in self._armed:
            if armed.fault is not None:
                count = found.setdefault(kind_of(armed.fault), FaultCount())
                count.armed += 1
                count.bit += armed.bites() > 0
        return dict(sorted(found.items()))
