"""Applies faults to a world, and keeps count of those that took effect.

A fault is *armed* when it is applied, and has *bit* when something met it: a packet fell into
the partition, someone called the dead node, a write found the disk full. A run with an armed
fault that never bit proves nothing about it and is reported as vacuous.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import PurePath

import msgspec
import trio

from sim.faults import (
    AnyFault,
    BitRot,
    Delay,
    DiskFull,
    Duplication,
    ForgedAnnouncements,
    Kill,
    Leave,
    Loss,
    LyingParent,
    Partition,
    Pause,
    PowerLoss,
    Restart,
    kind_of,
)
from sim.forgery import forge_announcements
from sim.network import Impairment
from sim.world import World


@dataclass(slots=True)
class FaultCount:
    """How many faults of a kind were applied, and how many of them took effect."""

    armed: int = 0
    bit: int = 0


@dataclass(slots=True, eq=False)
class _Armed:
    fault: AnyFault | None
    bites: Callable[[], int] = field(default=lambda: 0)


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
        armed = _Armed(None)
        self._armed.append(armed)
        if self._plan is not None:
            planned = self._plan.popleft() if self._plan else None
            if planned is None:
                return clock.now
            fault = planned
            if fault.at_s > clock.now:
                await trio.sleep_until(fault.at_s)
        armed.fault = applied = msgspec.structs.replace(fault, at_s=clock.now)
        armed.bites = await self._apply(applied)
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

    async def _apply(self, fault: AnyFault) -> Callable[[], int]:
        match fault:
            case Kill(node=name) | PowerLoss(node=name):
                return await self._kill(name, power_loss=isinstance(fault, PowerLoss))
            case Restart(node=name, wiped=wiped):
                if wiped:
                    self._world.wipe(name)
                await self._world.start(name)
                return lambda: 1
            case Leave(node=name):
                await self._world.stop(name)
                return lambda: 1
            case Pause(node=name, for_s=for_s):
                return self._pause(name, for_s)
            case DiskFull(node=name, free_bytes=free, for_s=for_s):
                return self._fill(name, free, for_s)
            case BitRot(node=name, path=path, offset=offset):
                disk = self._world.machines[name].disk
                disk.rot(PurePath(path), offset)
                return lambda: disk.bites.get("rot", 0)
            case LyingParent(node=name, for_s=for_s):
                return self._lie(name, for_s)
            case ForgedAnnouncements(node=name, victim=victim, cid=cid):
                dropped = await forge_announcements(self._world, name, victim, cid)
                return lambda: dropped
            case _:
                return self._impair(fault)

    async def _kill(self, name: str, *, power_loss: bool) -> Callable[[], int]:
        life = self._world.machines[name].life
        open_streams = 0 if life is None or life.is_ending else len(life.host.streams)
        await self._world.kill(name, power_loss=power_loss)
        return lambda: open_streams + (life.host.missed if life is not None else 0)

    def _pause(self, name: str, for_s: float) -> Callable[[], int]:
        life = self._world.machines[name].life
        assert life is not None
        life.process.hold()

        def resume() -> None:
            if not life.is_ending:
                life.process.release()

        self._world.clock.call_later(for_s, resume)
        return lambda: life.process.held_wakeups

    def _fill(self, name: str, free_bytes: int, for_s: float) -> Callable[[], int]:
        disk = self._world.machines[name].disk
        before = disk.medium.capacity_bytes
        bites = disk.bites.get("no_space", 0)
        used = before - disk.free_bytes(PurePath("/"))
        disk.medium.capacity_bytes = used + free_bytes

        def empty() -> None:
            disk.medium.capacity_bytes = before

        self._world.clock.call_later(for_s, empty)
        return lambda: disk.bites.get("no_space", 0) - bites

    def _lie(self, name: str, for_s: float) -> Callable[[], int]:
        liars = self._world.witness.lies
        lies: list[str] = []
        liars[name] = lies

        def repent() -> None:
            liars.pop(name, None)

        self._world.clock.call_later(for_s, repent)
        return lambda: len(lies)

    def _impair(self, fault: AnyFault) -> Callable[[], int]:
        impairments = self._impairments(fault)
        for each in impairments:
            self._world.fabric.impair(each)

        def repair() -> None:
            for each in impairments:
                self._world.fabric.repair(each)

        for_s: float = getattr(fault, "for_s", 0.0)
        self._world.clock.call_later(for_s, repair)
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
                raise TypeError(f"no way to apply {fault}")

    def _ips(self, *names: str) -> frozenset[str]:
        return frozenset(self._world.machines[name].ip for name in names)
