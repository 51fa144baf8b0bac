"""Applies what befalls wall clocks. They bite whoever reads the clock meanwhile."""

from __future__ import annotations

from sim.faults import ClockDrift, ClockSkew, ClockStepBack, ClockStepForward
from sim.injection.applying import Bites, Strike, applies, nothing


@applies(ClockSkew)
async def _skew(strike: Strike, fault: ClockSkew) -> Bites:
    if strike.life(fault.node) is None:
        return nothing
    await strike.world.kill(fault.node)
    bites = _set_wrong(strike, fault.node, fault.for_s, ahead_s=fault.by_s)
    await strike.world.start(fault.node)
    return bites


@applies(ClockDrift)
async def _drift(strike: Strike, fault: ClockDrift) -> Bites:
    return _set_wrong(strike, fault.node, fault.for_s, rate=fault.rate)


@applies(ClockStepBack)
async def _step_back(strike: Strike, fault: ClockStepBack) -> Bites:
    return _set_wrong(strike, fault.node, fault.for_s, ahead_s=-fault.by_s)


@applies(ClockStepForward)
async def _step_forward(strike: Strike, fault: ClockStepForward) -> Bites:
    return _set_wrong(strike, fault.node, fault.for_s, ahead_s=fault.by_s)


def _set_wrong(
    strike: Strike, name: str, for_s: float, *, ahead_s: float = 0.0, rate: float = 0.0
) -> Bites:
    machine = strike.world.machines.get(name)
    if machine is None:
        return nothing
    wall = machine.wall
    reads_before = wall.reads
    reads_after: list[int] = []
    wall.set(ahead_s=ahead_s, rate=rate)

    def set_right() -> None:
        reads_after.append(wall.reads)
        wall.set()

    strike.ends(for_s, set_right)
    return lambda: (reads_after[0] if reads_after else wall.reads) - reads_before
