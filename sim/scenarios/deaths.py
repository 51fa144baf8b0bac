"""Nodes die at the worst moment: keepers, parents, importers."""

from __future__ import annotations

from contextlib import suppress

import trio

from gossipcache.requests import TaskQuery
from gossipcache.results import ExportResult, Progress
from sim.faults import Kill, PowerLoss, Restart
from sim.scenarios.midway import busiest, struck_midway
from sim.whole import check
from sim.whole.machine import NodeKilled
from sim.whole.scenario import Stage, scenario
from sim.whole.world import PIECE_BYTES, World

CID = "report.csv"
SIZE = 64 * PIECE_BYTES + 17
BIG = 240 * PIECE_BYTES + 17


@scenario("owner-death")
async def owner_death(stage: Stage) -> None:
    """The owner of a task dies between import and stat."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    owner, _, holder = await _imported_away_from_its_keepers(stage, SIZE)
    await stage.faults.inject(Kill(node=owner))
    for name in [each for each in world.up() if each != holder][:2]:
        await _can_be_had(world, name, SIZE)


@scenario("owner-power-loss")
async def owner_power_loss(stage: Stage) -> None:
    """The owner's machine goes off without a word; then it comes back."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    owner, _, holder = await _imported_away_from_its_keepers(stage, SIZE)
    await stage.faults.inject(PowerLoss(node=owner))
    child = next(each for each in world.up() if each != holder)
    await _can_be_had(world, child, SIZE)
    await stage.faults.inject(Restart(node=owner))
    await world.wait_views(stage.nodes)
    await _can_be_had(world, owner, SIZE)


@scenario("owner-and-replica-death", nodes=6)
async def owner_and_replica_death(stage: Stage) -> None:
    """The owner and one replica die together, between import and stat."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    owner, replicas, holder = await _imported_away_from_its_keepers(stage, SIZE)
    await stage.faults.inject(Kill(node=owner))
    await stage.faults.inject(Kill(node=replicas[0]))
    child = next(each for each in world.up() if each != holder)
    await _can_be_had(world, child, SIZE)


@scenario("owner-death-during-export", nodes=6)
async def owner_death_during_export(stage: Stage) -> None:
    """The owner and one replica die while a task is exported; nothing is fetched twice."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    owner, replicas, holder = await _imported_away_from_its_keepers(stage, BIG)
    child = next(each for each in world.up() if each not in (owner, *replicas, holder))

    async def strike(_sources: dict[str, int]) -> None:
        await stage.faults.inject(Kill(node=owner))
        await stage.faults.inject(Kill(node=replicas[0]))

    result = await struck_midway(world, child, CID, strike)
    check.each_byte_once(world, result, BIG)


@scenario("parent-death", nodes=6)
async def parent_death(stage: Stage) -> None:
    """The parent dies in mid-export; another holder is alive; no piece is fetched twice."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    owner, replicas, holder = await _imported_away_from_its_keepers(stage, BIG)
    others = [each for each in world.up() if each not in (owner, *replicas, holder)]
    second, child = others[0], others[1] if len(others) > 1 else replicas[-1]
    await world.export(second, CID)

    async def strike(sources: dict[str, int]) -> None:
        await stage.faults.inject(Kill(node=busiest(world, sources)))

    result = await struck_midway(world, child, CID, strike)
    check.each_byte_once(world, result, BIG)
    check.only_from(world, result, (holder, second))


@scenario("owner-death-while-forming")
async def owner_death_while_forming(stage: Stage) -> None:
    """A task is imported while the cluster still forms, and its owner dies at once."""
    world = stage.world
    for _ in range(stage.nodes):
        world.add_machine()
    async with trio.open_nursery() as nursery:
        for name in world.machines:
            nursery.start_soon(world.start, name)
    await world.wait_views(stage.nodes)
    apart: list[str] = []

    def somebody_is_not_the_owner() -> bool:
        apart[:] = [name for name in world.up() if _owner_on(world, name) not in (None, name)]
        return bool(apart)

    assert await world.wait_until("somebody is not the owner", somebody_is_not_the_owner, 30.0)
    holder = world.streams.named("scenario").choice(apart)
    world.metrics["schedulers"] = len(world.node(holder).ring(None).schedulers)
    await world.import_content(holder, CID, SIZE)
    owner, replicas = await world.owner_of(holder, CID)
    await stage.faults.inject(Kill(node=owner if owner != holder else replicas[0]))
    for name in [each for each in world.up() if each != holder][:2]:
        await _can_be_had(world, name, SIZE)


@scenario("parents-die-in-turn", nodes=6)
async def parents_die_in_turn(stage: Stage) -> None:
    """Each of three parents dies in mid-export and restarts: the child ends with every piece."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    parents = ["n0", "n1", "n2"]
    await world.import_content("n0", CID, BIG)
    for name in parents[1:]:
        await world.export(name, CID)
    done_bytes = 0
    news = trio.Event()
    done: list[ExportResult] = []

    def watch(progress: Progress) -> None:
        nonlocal done_bytes
        done_bytes = progress.done_bytes
        news.set()

    async def export() -> None:
        done.append(await world.export("n3", CID, progress=watch))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(export)
        for turn, name in enumerate(parents):
            while done_bytes * (len(parents) + 1) < (turn + 1) * BIG:
                news = trio.Event()
                await news.wait()
            assert not done, "the export was over before the fault"
            await stage.faults.inject(Kill(node=name))
            nursery.start_soon(_restart_later, stage, name)
    check.each_byte_once(world, done[0], BIG)
    check.only_from(world, done[0], parents)


async def _restart_later(stage: Stage, name: str) -> None:
    await trio.sleep(2.0)
    await stage.faults.inject(Restart(node=name))


@scenario("cluster-power-loss")
async def cluster_power_loss(stage: Stage) -> None:
    """All machines lose power the moment an import has returned; it is there when they are."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n1", CID, SIZE)
    names = list(world.machines)
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(stage.faults.inject, PowerLoss(node=name))
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(stage.faults.inject, Restart(node=name))
    await world.wait_views(stage.nodes)
    await _can_be_had(world, names[-1], SIZE)


@scenario("import-death")
async def import_death(stage: Stage) -> None:
    """A node dies at some point of an import; after its restart no half task is shown."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    victim, other = "n1", "n2"
    moment_s = stage.world.streams.named("scenario").uniform(0.0, 0.15)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_import_and_die, world, victim)
        await trio.sleep(moment_s)
        await stage.faults.inject(Kill(node=victim))
    await stage.faults.inject(Restart(node=victim))
    await world.wait_views(stage.nodes)
    await check.stores_are_true(world, victim)
    if any(not task.complete for task in world.node(victim).list_tasks()):
        world.report(f"{victim} shows half a task")
    await world.import_content(victim, CID, BIG)
    await _can_be_had(world, other, BIG)


async def _import_and_die(world: World, victim: str) -> None:
    with suppress(NodeKilled):
        await world.import_content(victim, CID, BIG)


def _owner_on(world: World, name: str) -> str | None:
    """The owner of the task on one node's view of the ring, which may be empty yet."""
    owner = world.node(name).ring(TaskQuery(CID)).owner
    return None if owner is None else world.name_of(owner)


async def _imported_away_from_its_keepers(stage: Stage, size: int) -> tuple[str, list[str], str]:
    """Imports on a node that keeps no record of the task, if there is one; (owner, replicas,
    holder)."""
    world = stage.world
    owner, replicas = await world.owner_of("n0", CID)
    away = [name for name in world.up() if name not in (owner, *replicas)]
    holder = (away or replicas[-1:])[0]
    done = await world.import_content(holder, CID, size)
    world.metrics["record copies"] = done.record_copies
    return owner, replicas, holder


async def _can_be_had(world: World, name: str, size: int) -> None:
    """stat and export work on a node, at once."""
    started = world.clock.now
    found = await world.stat(name, CID)
    assert found.size == size, f"stat says {found.size} bytes, not {size}"
    world.metrics["stat after death s"] = round(world.clock.now - started, 3)
    result = await world.export(name, CID)
    check.each_byte_once(world, result, size)
    world.metrics["export s"] = round(world.clock.now - started, 3)
