"""A storm: faults of some kinds strike nodes at work, everything is healed, and all is well."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from gossipcache.ids import task_id_of
from sim.chaos.clients import Clients
from sim.chaos.draws import draw
from sim.chaos.pick import Pick
from sim.faults import Fault
from sim.whole.scenario import Stage
from sim.whole.world import World

VIEWS_WITHIN_S = 60.0
RECORDS_WITHIN_S = 60.0


async def storm(stage: Stage, kinds: Sequence[type[Fault]], *, gap_s: float, calm_s: float) -> None:
    """One fault after the other of `kinds`, on the average one in `gap_s` seconds, while users
    work on every node, and then a new task of each goes to everybody at once; `calm_s` later
    comes the healing, and what must hold after it."""
    world = stage.world
    rng = world.streams.named("chaos")
    pick = Pick(world, rng)
    await world.start_cluster(stage.nodes)
    clients = Clients(world, world.streams.named("workload"))
    await clients.begin(world.up()[:3])
    async with trio.open_nursery() as work:
        work.start_soon(clients.run)
        async with trio.open_nursery() as struck:
            for kind in kinds:
                await trio.sleep(max(0.1, rng.expovariate(1 / gap_s)))
                # One a strike, whatever can be struck: a plan replaces them in their order.
                struck.start_soon(stage.faults.inject, draw(kind, kinds, pick))
            await clients.spread_all()
        await trio.sleep(calm_s)
        clients.stop()
        await heal(stage)
    world.metrics["verbs done"] = clients.done
    world.metrics["verbs failed"] = clients.failed
    await all_is_well(world)


async def heal(stage: Stage) -> None:
    """Ends all faults and visits; starts what is down."""
    world = stage.world
    stage.faults.heal()
    for name, machine in world.machines.items():
        if machine.is_visitor:
            await world.kill(name)
    async with trio.open_nursery() as nursery:
        for name, machine in world.machines.items():
            if not machine.is_visitor:
                nursery.start_soon(world.start, name)


async def all_is_well(world: World) -> None:
    """Liveness: one view, one ring, every record on all of its keepers, deletions everywhere."""
    residents = [name for name, machine in world.machines.items() if not machine.is_visitor]
    if world.up() != residents:
        world.report(f"{sorted(set(residents) - set(world.up()))} do not run after the healing")
        return
    await world.wait_views(len(residents), VIEWS_WITHIN_S)
    await world.wait_until(
        "all records are on all their keepers",
        lambda: all(_is_kept(world, cid) for cid, _ in world.witness.model.acknowledged),
        RECORDS_WITHIN_S,
    )
    await world.wait_until(
        "what was deleted is nowhere",
        lambda: not any(_is_held(world, cid) for cid, _ in world.witness.model.deleted),
        RECORDS_WITHIN_S,
    )


def _is_kept(world: World, cid: str) -> bool:
    """Whether all keepers of a task, on everybody's ring, hold its record."""
    task_id = task_id_of(cid, "")
    for name in world.up():
        node = world.node(name)
        for keeper in node.services.keepers(task_id):
            held = world.node(world.name_of(keeper.hex())).services.records.local(task_id)
            if held is None or held.manifest is None:
                return False
    return True


def _is_held(world: World, cid: str) -> bool:
    return any(task.cid == cid for name in world.up() for task in world.node(name).list_tasks())
