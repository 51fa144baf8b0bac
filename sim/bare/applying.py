"""What each kind of fault does to a bare world; see `sim.injection` for whole nodes.

A fault whose node is dead, or not there, does nothing and bites nobody. Kinds that need what
bare nodes have not (a real disk, content, a liar's wire) are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from gossipcache.errors import UsageError
from gossipcache.ids import Address
from sim import faults
from sim.bare.disk import BareDisk
from sim.bare.world import PORT, BareWorld
from sim.faults import AnyFault, kind_of
from sim.network.impairment import Burst, Impairment

Bites = Callable[[], int]
"""How often a fault took effect so far."""

_SHORT_QUEUE_S = 0.05


def apply(world: BareWorld, fault: AnyFault) -> Bites:
    """Applies `fault`. What it undoes after a while, it undoes by itself."""
    for_s = getattr(fault, "for_s", 0.0)
    match fault:
        case faults.Loss(probability=probability, nodes=names, carrier=carrier):
            lossy = Impairment(loss=probability, carrier=carrier)
            return _on_nodes(world, names, for_s, lossy) if names else _impair(world, for_s, lossy)
        case faults.BurstyLoss(enter=enter, exit=leave, loss=loss):
            return _impair(world, for_s, Impairment(burst=Burst(enter, leave, loss)))
        case faults.Duplication(probability=probability):
            return _impair(world, for_s, Impairment(duplication=probability))
        case faults.Corruption(probability=probability):
            return _impair(world, for_s, Impairment(corruption=probability))
        case faults.Reordering(probability=share, seconds=seconds):
            held = Impairment(carrier="datagram", reordering=share, jitter_s=seconds)
            return _impair(world, for_s, held)
        case faults.Replay(node=name, probability=share, after_s=after_s):
            caught = Impairment(_ips(world, name), duplication=share, echo_s=after_s)
            return _impair(world, for_s, caught)
        case faults.Partition(island=island, one_way=one_way):
            out, back = _cuts(world, island)
            return _impair(world, for_s, out, *(() if one_way else (back,)))
        case faults.PartialPartition(one=one, other=other):
            there, here = _ips(world, one), _ips(world, other)
            cuts = Impairment(there, here, loss=1.0), Impairment(here, there, loss=1.0)
            return _impair(world, for_s, *cuts)
        case faults.Isolation(node=name):
            return _impair(world, for_s, *_cuts(world, (name,)))
        case faults.FlappingPartition(island=island, every_s=every_s, one_way=one_way):
            cuts = _cuts(world, island)
            return _flap(world, for_s, every_s, cuts[:1] if one_way else cuts)
        case _:
            return _befall(world, fault, for_s)


def _befall(world: BareWorld, fault: AnyFault, for_s: float) -> Bites:
    """Faults of one node's links, and of its process."""
    match fault:
        case faults.DatagramsBlocked(node=name):
            return _on_node(world, name, for_s, Impairment(loss=1.0, carrier="datagram"))
        case faults.StreamsBlocked(node=name):
            return _on_node(world, name, for_s, Impairment(loss=1.0, carrier="stream"))
        case faults.Delay(node=name, seconds=seconds):
            return _on_node(world, name, for_s, Impairment(delay_s=seconds))
        case faults.Jitter(node=name, seconds=seconds):
            return _on_node(world, name, for_s, Impairment(jitter_s=seconds))
        case faults.MtuBlackHole(node=name, mtu_bytes=mtu_bytes):
            return _on_node(world, name, for_s, Impairment(mtu_bytes=mtu_bytes))
        case faults.BandwidthCap(node=name, bytes_per_s=rate):
            shaped = Impairment(_ips(world, name), bytes_per_s=rate, queue_s=_SHORT_QUEUE_S)
            return _impair(world, for_s, shaped)
        case faults.Bufferbloat(node=name, bytes_per_s=rate):
            return _impair(world, for_s, Impairment(_ips(world, name), bytes_per_s=rate))
        case faults.Kill(node=name):
            return kill(world, name)
        case faults.PowerLoss(node=name):
            return kill(world, name, power_loss=True)
        case faults.Restart(node=name, wiped=wiped):
            return _start(world, name, disk=BareDisk() if wiped else None)
        case faults.OldSnapshot(node=name, after_s=after_s):
            return _set_back(world, name, after_s)
        case faults.Leave(node=name):
            return _leave(world, name)
        case faults.AddressChange(node=name):
            return _move(world, name)
        case faults.Pause(node=name):
            return _stall(world, name, for_s, for_s, for_s)
        case faults.Stall(node=name, stall_s=stall_s, every_s=every_s):
            return _stall(world, name, stall_s, every_s, for_s)
        case faults.SlowCpu(node=name, step_s=step_s):
            return _slow_down(world, name, step_s, for_s)
        case _:
            return _befall_many(world, fault, for_s)


def _befall_many(world: BareWorld, fault: AnyFault, for_s: float) -> Bites:
    """Lives of processes, one after the other or many at once."""
    match fault:
        case faults.RollingRestart(nodes=names, down_s=down_s, interval_s=interval_s):
            return _each_in_turn(world, names, down_s, interval_s)
        case faults.SchedulerDeath(down_s=down_s):
            machines = world.machines.values()
            names = tuple(each.name for each in machines if "scheduler" in each.roles)
            return _each_in_turn(world, names, down_s, 0.0)
        case faults.CrashLoop(node=name, times=times, up_s=up_s, down_s=down_s):
            return _each_in_turn(world, (name,) * times, down_s, up_s + down_s)
        case faults.FlashJoin(count=count):
            visitors = [world.add_machine().name for _ in range(count)]
            for name in visitors:
                world.start(name)
            return _later_bites(world, for_s, [partial(kill, world, name) for name in visitors])
        case faults.ClonedKey(node=name):
            return _clone(world, name, for_s)
        case faults.ClockSkew(node=name, by_s=by_s):
            return _skew(world, name, by_s, for_s)
        case _:
            raise UsageError(
                f"bare nodes know no fault {kind_of(fault)!r}", "play it on whole nodes"
            )


def kill(world: BareWorld, name: str, *, power_loss: bool = False) -> Bites:
    """Ends a node's process; bites whoever was connected, or calls it in vain."""
    machine = world.machines.get(name)
    if machine is None or machine.process is None or machine.process.is_dead:
        return _nothing
    host, open_links = machine.host, len(machine.process.links.all())
    world.kill(name, power_loss=power_loss)
    return lambda: open_links + host.missed


def _impair(world: BareWorld, for_s: float, *impairments: Impairment) -> Bites:
    for each in impairments:
        world.network.impair(each)
        _later(world, for_s, partial(world.network.repair, each))
    if any(each.loss >= 1.0 or each.mtu_bytes for each in impairments):
        world.suspect_links()
    return lambda: sum(each.bit for each in impairments)


def _on_node(world: BareWorld, name: str, for_s: float, there: Impairment) -> Bites:
    return _on_nodes(world, (name,), for_s, there)


def _on_nodes(world: BareWorld, names: tuple[str, ...], for_s: float, there: Impairment) -> Bites:
    ips = _ips(world, *names)
    return _impair(world, for_s, replace(there, sources=ips), replace(there, targets=ips))


def _cuts(world: BareWorld, island: tuple[str, ...]) -> tuple[Impairment, Impairment]:
    inside = set(island)
    outside = [name for name in world.machines if name not in inside]
    inner, outer = _ips(world, *island), _ips(world, *outside)
    return Impairment(inner, outer, loss=1.0), Impairment(outer, inner, loss=1.0)


def _flap(world: BareWorld, for_s: float, every_s: float, cuts: tuple[Impairment, ...]) -> Bites:
    def set_cut(is_cut: bool) -> None:
        for each in cuts:
            each.is_cut = is_cut
        if is_cut:
            world.suspect_links()

    for turn in range(int(for_s / every_s)):
        _later(world, (turn + 0.5) * every_s, partial(set_cut, False))
        _later(world, (turn + 1.0) * every_s, partial(set_cut, True))
    return _impair(world, for_s, *cuts)


def _start(
    world: BareWorld, name: str, address: Address | None = None, disk: BareDisk | None = None
) -> Bites:
    if name not in world.machines or world.machines[name].is_up:
        return _nothing
    world.machines[name].disk = disk or world.machines[name].disk
    world.start(name, address=address)
    return _once


def _set_back(world: BareWorld, name: str, after_s: float) -> Bites:
    if name not in world.machines:
        return _nothing
    image = world.machines[name].disk.image()

    def restore() -> Bites:
        kill(world, name)
        return _start(world, name, disk=image)

    return _later_bites(world, after_s, [restore])


def _leave(world: BareWorld, name: str) -> Bites:
    if name not in world.machines or not world.machines[name].is_up:
        return _nothing
    world.machines[name].membership.leave()
    return _once


def _move(world: BareWorld, name: str) -> Bites:
    kill(world, name)
    number = world.machines[name].number if name in world.machines else 0
    return _start(world, name, Address(f"10.9.{number // 250}.{number % 250 + 1}", PORT))


def _stall(world: BareWorld, name: str, stall_s: float, every_s: float, for_s: float) -> Bites:
    machine = world.machines.get(name)
    process = None if machine is None or not machine.is_up else machine.process
    if process is None:
        return _nothing

    def stall() -> None:
        process.pause()
        _later(world, stall_s, process.resume)

    stall()
    for turn in range(1, int(for_s / every_s)):
        _later(world, turn * every_s, stall)
    return lambda: process.held_steps


def _slow_down(world: BareWorld, name: str, step_s: float, for_s: float) -> Bites:
    machine = world.machines.get(name)
    process = None if machine is None or not machine.is_up else machine.process
    if process is None:
        return _nothing
    process.slow_down(step_s)
    _later(world, for_s, partial(process.slow_down, 0.0))
    return lambda: process.held_steps


def _each_in_turn(
    world: BareWorld, names: tuple[str, ...], down_s: float, interval_s: float
) -> Bites:
    bites: list[Bites] = []

    def strike(name: str) -> None:
        bites.append(kill(world, name))
        _later(world, down_s, partial(start, name))

    def start(name: str) -> None:
        bites.append(_start(world, name))

    for turn, name in enumerate(names):
        _later(world, turn * interval_s, partial(strike, name))
    return lambda: sum(each() for each in bites)


def _clone(world: BareWorld, name: str, for_s: float) -> Bites:
    if name not in world.machines:
        return _nothing
    original = world.machines[name]
    clone = world.add_machine(identity=original.identity)
    clone.seeds = (original.host.address, *clone.seeds)
    world.start(clone.name)
    refuted = world.metrics.value("gossip_refutations")
    _later(world, for_s, partial(kill, world, clone.name))
    return lambda: world.metrics.value("gossip_refutations") - refuted


def _skew(world: BareWorld, name: str, by_s: float, for_s: float) -> Bites:
    if name not in world.machines:
        return _nothing
    machine = world.machines[name]
    kill(world, name)
    machine.wall_skew_s += by_s

    def set_right() -> None:
        machine.wall_skew_s -= by_s

    _later(world, for_s, set_right)
    return _start(world, name)


def _later_bites(world: BareWorld, wait_s: float, works: list[Callable[[], Bites]]) -> Bites:
    bites: list[Bites] = []

    def strike() -> None:
        bites.extend(work() for work in works)

    _later(world, wait_s, strike)
    return lambda: sum(each() for each in bites)


def _later(world: BareWorld, wait_s: float, work: Callable[[], Bites | None]) -> None:
    def happen() -> None:
        work()

    world.timeline.push(world.timeline.now + wait_s, happen)


def _ips(world: BareWorld, *names: str) -> frozenset[str]:
    machines = world.machines
    return frozenset(machines[name].host.address.host for name in names if name in machines)


def _nothing() -> int:
    return 0


def _once() -> int:
    return 1
