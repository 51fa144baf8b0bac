"""Applies faults to a bare world, and keeps count of those that took effect; see
`sim.injection` for what armed and bit mean."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import msgspec

from gossipcache.errors import UsageError
from sim.bare.world import BareWorld
from sim.faults import (
    AnyFault,
    Delay,
    Duplication,
    Kill,
    Leave,
    Loss,
    Partition,
    Pause,
    PowerLoss,
    Restart,
    kind_of,
)
from sim.impairment import Impairment
from sim.injection import FaultCount


@dataclass(slots=True, eq=False)
class _Armed:
    fault: AnyFault | None
    bites: Callable[[], int] = field(default=lambda: 0)


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
        armed.bites = self._apply(applied)
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

    def _apply(self, fault: AnyFault) -> Callable[[], int]:
        world = self._world
        match fault:
            case Kill(node=name) | PowerLoss(node=name):
                return self._kill(name, power_loss=isinstance(fault, PowerLoss))
            case Restart(node=name):
                world.start(name)
                return lambda: 1
            case Leave(node=name):
                world.machines[name].membership.leave()
                return lambda: 1
            case Pause(node=name, for_s=for_s):
                return self._pause(name, for_s)
            case _:
                return self._impair(fault)

    def _kill(self, name: str, *, power_loss: bool) -> Callable[[], int]:
        machine = self._world.machines[name]
        host, process = machine.host, machine.process
        open_links = 0 if process is None or process.is_dead else len(process.links.all())
        self._world.kill(name, power_loss=power_loss)
        return lambda: open_links + host.missed

    def _pause(self, name: str, for_s: float) -> Callable[[], int]:
        process = self._world.machines[name].process
        assert process is not None
        process.pause()
        self._later(for_s, process.resume)
        return lambda: process.held_steps

    def _impair(self, fault: AnyFault) -> Callable[[], int]:
        network = self._world.network
        impairments = self._impairments(fault)
        for each in impairments:
            network.impair(each)
        if isinstance(fault, Partition):
            self._world.suspect_links(set(fault.island))

        def repair() -> None:
            for each in impairments:
                network.repair(each)

        self._later(getattr(fault, "for_s", 0.0), repair)
        return lambda: sum(each.bit for each in impairments)

    def _impairments(self, fault: AnyFault) -> list[Impairment]:
        match fault:
            case Partition(island=island, one_way=one_way):
                inside = self._ips(*island)
                outside = self._ips(*(set(self._world.machines) - set(island)))
                there = Impairment(inside, outside, loss=1.0)
                return [there] if one_way else [there, Impairment(outside, inside, loss=1.0)]
            case Loss(probability=probability):
                return [Impairment(loss=probability)]
            case Duplication(probability=probability):
                return [Impairment(duplication=probability)]
            case Delay(node=name, seconds=seconds):
                there = Impairment(sources=self._ips(name), delay_s=seconds)
                return [there, replace(there, sources=None, targets=self._ips(name))]
            case _:
                raise UsageError(
                    f"bare nodes know no fault {kind_of(fault)!r}", "play it on whole nodes"
                )

    def _ips(self, *names: str) -> frozenset[str]:
        return frozenset(self._world.machines[name].host.address.host for name in names)

    def _later(self, wait_s: float, work: Callable[[], None]) -> None:
        self._world.timeline.push(self._world.timeline.now + wait_s, work)
