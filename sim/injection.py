"""Applies faults to a world, and keeps count of those that took effect.

A fault is *armed* when it is applied, and has *bit* when something met it: a packet fell into
the partition, someone called the dead node, a write found the disk full. A run with an armed
fault that never bit proves nothing about it and is reported as vacuous.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePath

import msgspec
import trio

from sim.faults import (
    AnyFault,
    BitRot,
    Delay,
    DiskFull,
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
from sim.network import Impairment
from sim.world import World


@dataclass(slots=True)
class FaultCount:
    """How many faults of a kind were applied, and how many of them took effect."""

    armed: int = 0
    bit: int = 0


class Injector:
    """All the faults of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._armed: list[tuple[AnyFault, Callable[[], int]]] = []

    async def inject(self, fault: AnyFault) -> None:
        """Applies `fault` now; returns when it stands. What it undoes after a while, it undoes
        by itself."""
        applied = msgspec.structs.replace(fault, at_s=round(self._world.clock.now, 6))
        self._armed.append((applied, await self._apply(applied)))

    async def play(self, schedule: list[AnyFault]) -> None:
        """Applies each fault of a schedule at its instant."""
        for fault in sorted(schedule, key=lambda each: each.at_s):
            await trio.sleep_until(fault.at_s)
            await self.inject(fault)

    def schedule(self) -> list[AnyFault]:
        """What was applied and when, so that it can be played again."""
        return [fault for fault, _ in self._armed]

    def counts(self) -> dict[str, FaultCount]:
        """Armed and bit, by kind of fault."""
        found: dict[str, FaultCount] = {}
        for fault, bites in self._armed:
            count = found.setdefault(kind_of(fault), FaultCount())
            count.armed += 1
            count.bit += bites() > 0
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
