"""Injects the faults of a run, and keeps count of those that took effect.

A fault is *armed* when it is applied, and has *bit* when something met it: a packet fell into
the partition, someone called the dead node, a write found the disk full. A run with an armed
fault that never bit proves nothing about it and is reported as vacuous.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
import trio

from sim.faults import AnyFault, kind_of
from sim.injection.applying import Bites, Strike, apply, nothing
from sim.whole.world import World


@dataclass(slots=True)
class FaultCount:
    """How many faults of a kind were applied, and how many of them took effect."""

    armed: int = 0
    bit: int = 0


@dataclass(slots=True, eq=False)
class _Armed:
    fault: AnyFault | None
    strike: Strike
    bites: Bites = nothing


class Injector:
    """All the faults of one run.

    With a `plan` (the faults of an earlier run, in the order in which they were asked for; None
    for one that is left out, as are all beyond the last) each fault that a scenario asks for is
    replaced by the next of the plan, and waits for its instant.
    """

    def __init__(self, world: World, plan: Iterable[AnyFault | None] | None = None) -> None:
        self._world = world
        self._plan = None if plan is None else deque(plan)
        self._armed: list[_Armed] = []

    async def inject(self, fault: AnyFault) -> float:
        """Applies `fault` now; returns when it stands, with the instant at which it struck.
        What it undoes after a while, it undoes by itself."""
        clock = self._world.clock
        armed = _Armed(None, Strike(self._world))
        self._armed.append(armed)
        if self._plan is not None:
            planned = self._plan.popleft() if self._plan else None
            if planned is None:
                return clock.now
            fault = planned
            if fault.at_s > clock.now:
                await trio.sleep_until(fault.at_s)
        armed.fault = applied = msgspec.structs.replace(fault, at_s=clock.now)
        armed.bites = await apply(armed.strike, applied)
        return applied.at_s

    def heal(self) -> None:
        """Ends, at once, all that would end by itself later."""
        for armed in self._armed:
            armed.strike.heal()

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
