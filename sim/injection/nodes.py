"""Applies what befalls processes and their machines."""

from __future__ import annotations

import trio

from gossipcache.ids import Address
from sim.faults import (
    ClonedKey,
    CrashLoop,
    FlashJoin,
    Kill,
    Leave,
    OldSnapshot,
    Pause,
    PowerLoss,
    Restart,
    RollingRestart,
    SchedulerDeath,
    SlowCpu,
    Stall,
)
from sim.injection.applying import Bites, Strike, applies, nothing
from sim.storage.disk import SimDisk
from sim.whole.world import World


@applies(Kill)
async def _kill(strike: Strike, fault: Kill) -> Bites:
    return await kill(strike.world, fault.node)


@applies(PowerLoss)
async def _lose_power(strike: Strike, fault: PowerLoss) -> Bites:
    return await kill(strike.world, fault.node, power_loss=fault.lost)


async def kill(world: World, name: str, *, power_loss: str = "") -> Bites:
    """Ends a node's process; bites whoever was connected, or calls it in vain."""
    machine = world.machines.get(name)
    life = machine.life if machine is not None else None
    if life is None:
        return nothing
    open_streams = 0 if life.is_ending else len(life.host.streams)
    await world.kill(name, power_loss=bool(power_loss), lose_all=power_loss == "all")
    return lambda: open_streams + life.host.missed


@applies(Restart)
async def _restart(strike: Strike, fault: Restart) -> Bites:
    world = strike.world
    if strike.life(fault.node) is not None or fault.node not in world.machines:
        return nothing
    if fault.wiped:
        world.wipe(fault.node)
    await world.start(fault.node)
    return lambda: 1


@applies(OldSnapshot)
async def _restore(strike: Strike, fault: OldSnapshot) -> Bites:
    world, name = strike.world, fault.node
    if strike.life(name) is None:
        return nothing
    image = world.machines[name].disk.medium.image()
    await trio.sleep(fault.after_s)
    await world.kill(name)
    world.machines[name].disk = SimDisk(medium=image)
    world.witness.restored(name)
    await world.start(name)
    return lambda: 1


@applies(Leave)
async def _leave(strike: Strike, fault: Leave) -> Bites:
    if strike.life(fault.node) is None:
        return nothing
    await strike.world.stop(fault.node)
    return lambda: 1


@applies(Pause)
async def _pause(strike: Strike, fault: Pause) -> Bites:
    life = strike.life(fault.node)
    if life is None:
        return nothing
    life.process.hold()

    def resume() -> None:
        if not life.is_ending:
            life.process.release()

    strike.ends(fault.for_s, resume)
    return lambda: life.process.held_wakeups


@applies(Stall)
async def _stall(strike: Strike, fault: Stall) -> Bites:
    life = strike.life(fault.node)
    if life is None:
        return nothing

    def resume() -> None:
        if not life.is_ending:
            life.process.release()

    def stall() -> None:
        if not life.is_ending:
            life.process.hold()
            strike.ends(fault.stall_s, resume)

    for turn in range(max(1, int(fault.for_s / fault.every_s))):
        strike.begins(turn * fault.every_s, stall)
    return lambda: life.process.held_wakeups


@applies(SlowCpu)
async def _slow_cpu(strike: Strike, fault: SlowCpu) -> Bites:
    life, clock = strike.life(fault.node), strike.world.clock
    if life is None:
        return nothing
    life.process.slow_down(clock, fault.step_s)
    strike.ends(fault.for_s, lambda: life.process.slow_down(clock, 0.0))
    return lambda: life.process.late_steps


@applies(RollingRestart)
async def _restart_in_turn(strike: Strike, fault: RollingRestart) -> Bites:
    bites: list[Bites] = []
    for name in fault.nodes:
        if strike.life(name) is None:
            continue
        bites.append(await kill(strike.world, name))
        await trio.sleep(fault.down_s)
        await strike.world.start(name)
        await trio.sleep(fault.interval_s)
    return lambda: sum(each() for each in bites)


@applies(SchedulerDeath)
async def _kill_schedulers(strike: Strike, fault: SchedulerDeath) -> Bites:
    world = strike.world
    names = [name for name in world.up() if "scheduler" in world.machines[name].config.roles]
    bites = [await kill(world, name) for name in names]
    await trio.sleep(fault.down_s)
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(world.start, name)
    return lambda: sum(each() for each in bites)


@applies(CrashLoop)
async def _crash_again_and_again(strike: Strike, fault: CrashLoop) -> Bites:
    bites: list[Bites] = []
    for _ in range(fault.times):
        if strike.life(fault.node) is None:
            break
        bites.append(await kill(strike.world, fault.node))
        await trio.sleep(fault.down_s)
        await strike.world.start(fault.node)
        await trio.sleep(fault.up_s)
    return lambda: sum(each() for each in bites)


@applies(FlashJoin)
async def _join_in_a_flash(strike: Strike, fault: FlashJoin) -> Bites:
    world = strike.world
    visitors = [world.add_machine() for _ in range(fault.count)]
    for visitor in visitors:
        visitor.is_visitor = True
    async with trio.open_nursery() as nursery:
        for visitor in visitors:
            nursery.start_soon(world.start, visitor.name)
    await trio.sleep(fault.for_s)
    bites = [await kill(world, visitor.name) for visitor in visitors]
    return lambda: sum(each() for each in bites)


@applies(ClonedKey)
async def _clone(strike: Strike, fault: ClonedKey) -> Bites:
    world = strike.world
    if fault.node not in world.machines:
        return nothing
    original = world.machines[fault.node]
    clone = world.add_machine(join=(Address(original.ip, 7100), *original.config.join))
    clone.identity, clone.is_visitor = original.identity, True
    await world.start(clone.name)
    life = clone.life
    confused = 0
    assert life is not None
    await trio.sleep(fault.for_s)
    for each in (life, strike.life(fault.node)):
        if each is not None and not each.is_ending:
            confused += int(each.node.metrics.value("gossip_refutations"))
    for name in world.up():
        believed = world.node(name).services.membership.resolve(clone.identity.node_id)
        confused += name != clone.name and believed is not None and believed.host == clone.ip
    await kill(world, clone.name)
    return lambda: confused
