"""Applies faults to a bare world."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sim.bare.applying import apply
from sim.bare.world import BareWorld
from sim.faults import AnyFault
from sim.faults.tally import Tally


class BareInjector(Tally):
    """All the faults of one bare run."""

    def __init__(self, world: BareWorld, plan: Iterable[AnyFault | None] | None = None) -> None:
        super().__init__(plan)
        self._world = world

    def inject(self, fault: AnyFault) -> float:
        """Applies `fault` now, or what the plan says at its instant; returns when it struck.
        What it undoes after a while, it undoes by itself."""
        timeline = self._world.timeline
        armed, wanted = self.ask(fault)
        if wanted is None:
            return timeline.now
        if self.is_planned:
            timeline.run_to(wanted.at_s)
        armed.fault = applied = msgspec.structs.replace(wanted, at_s=timeline.now)
        armed.bites = apply(self._world, applied)
        return applied.at_s
