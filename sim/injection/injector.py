"""Injects the faults of a run into a world of whole nodes."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import trio

from sim.faults import AnyFault
from sim.faults.tally import Tally
from sim.injection.applying import Strike, apply
from sim.whole.world import World


class Injector(Tally):
    """All the faults of one run."""

    def __init__(self, world: World, plan: Iterable[AnyFault | None] | None = None) -> None:
        super().__init__(plan)
        self._world = world
        self._strikes: list[Strike] = []

    async def inject(self, fault: AnyFault) -> float:
        """Applies `fault` now, or what the plan says at its instant; returns when it stands, with
        the instant at which it struck. What it undoes after a while, it undoes by itself."""
        clock = self._world.clock
        armed, wanted = self.ask(fault)
        strike = Strike(self._world)
        self._strikes.append(strike)
        if wanted is None:
            return clock.now
        if self.is_planned and wanted.at_s > clock.now:
            await trio.sleep_until(wanted.at_s)
        armed.fault = applied = msgspec.structs.replace(wanted, at_s=clock.now)
        armed.bites = await apply(strike, applied)
        return applied.at_s

    def heal(self) -> None:
        """Ends, at once, all that would end by itself later."""
        for strike in self._strikes:
            strike.heal()
