"""Applies faults to a bare world, and keeps count of those that took effect; see
`sim.injection` for what armed and bit mean."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from sim.bare.applying import Bites, apply
from sim.bare.world import BareWorld
from sim.faults import AnyFault, kind_of
from sim.injection import FaultCount


@dataclass(slots=True, eq=False)
class _Armed:
    fault: AnyFault | None
    bites: Bites = lambda: 0


class BareInjector:
    """All the faults of one bare run; a `plan` replaces the scenario's own in their order, and
    leaves out what is None in it and all beyond the last."""

    def __init__(self, world: BareWorld, plan: Iterable[AnyFault | None] | None = None) -> None:
        self._world = world
        self._plan = None if plan is None else deque(plan)
        self._armed: list[_Armed] = []

    def inject(self, fault: AnyFault) -> float:
        """Applies `fault` now, or what the plan says at its instant; returns when it struck.
        What it undoes after a while, it undoes by itself."""
        timeline = self._world.timeline
        armed = _Armed(None)
        self._armed.append(armed)
        if self._plan is not None:
            planned = self._plan.popleft() if self._plan else None
            if planned is None:
                return timeline.now
            fault = planned
            timeline.run_to(fault.at_s)
        armed.fault = applied = msgspec.structs.replace(fault, at_s=timeline.now)
        armed.bites = apply(self._world, applied)
        return applied.at_s

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
