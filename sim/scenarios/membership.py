"""The cluster changes shape: nodes join, the network splits, everything restarts."""

from __future__ import annotations

import trio

from gossipcache.results import ExportResult
from sim.faults import Kill, Loss, Partition, Pause, Restart
from sim.whole import check
from sim.whole.scenario import Stage, scenario
from sim.whole.world import PIECE_BYTES

CID = "model.bin"
SIZE = 120 * PIECE_BYTES + 1


@scenario("scheduler-join")
async def scheduler_join(stage: Stage) -> None:
    """New schedulers join during an export, which notices nothing."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, SIZE)
    done: list[ExportResult] = []

    async def export() -> None:
        done.append(await world.export("n1", CID))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(export)
        for _ in range(3):
            await trio.sleep(0.02)
            await world.start(world.add_machine().name)
    check.each_byte_once(world, done[0], SIZE)
    await world.wait_views(stage.nodes + 3)
    result = await world.export(f"n{stage.nodes}", CID)
    check.each_byte_once(world, result, SIZE)


@scenario("partition-heal", nodes=6)
async def partition_heal(stage: Stage) -> None:
    """Two nodes are cut off for longer than it takes to call them dead, and come back."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, SIZE)
    island = ("n1", "n2")
    mainland = [name for name in world.machines if name not in island]
    struck = await stage.faults.inject(Partition(island=island, for_s=60.0))
    await world.wait_until(
        "both sides see the split",
        lambda: (
            all(world.alive_on(name) == set(island) for name in island)
            and all(world.alive_on(name) == set(mainland) for name in mainland)
        ),
        within_s=55.0,
    )
    await world.export(mainland[-1], CID)
    await trio.sleep_until(struck + 60.0)
    await world.wait_views(stage.nodes)
    for name in island:
        check.each_byte_once(world, await world.export(name, CID), SIZE)


@scenario("mass-restart")
async def mass_restart(stage: Stage) -> None:
    """Every node is killed and started again: all find each other, and nothing is lost."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, SIZE)
    await world.import_content("n1", "second", 3 * PIECE_BYTES)
    names = list(world.machines)
    for name in names:
        await stage.faults.inject(Kill(node=name))
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(stage.faults.inject, Restart(node=name))
    await world.wait_views(stage.nodes)
    started = world.clock.now
    check.each_byte_once(world, await world.export(names[-1], CID), SIZE)
    world.metrics["export after restart s"] = round(world.clock.now - started, 3)
    await world.export(names[-2], "second")


@scenario("lossy-network")
async def lossy_network(stage: Stage) -> None:
    """Five percent of all packets are lost: nobody is declared dead, and exports complete."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, SIZE // 4)
    await stage.faults.inject(Loss(probability=0.05, for_s=60.0))
    check.each_byte_once(world, await world.export("n1", CID), SIZE // 4)
    everybody = set(world.machines)
    for _ in range(60):
        await trio.sleep(1)
        for name in world.up():
            missing = everybody - world.alive_on(name)
            if missing:
                world.report(f"{name} lost sight of {sorted(missing)}, which are well")
                return


@scenario("pause")
async def pause(stage: Stage) -> None:
    """A node stops for 30 s and goes on: the others drop it, then see it again."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, PIECE_BYTES)
    struck = await stage.faults.inject(Pause(node="n1", for_s=30.0))
    others = [name for name in world.machines if name != "n1"]
    await world.wait_until(
        "the paused node is missed",
        lambda: all("n1" not in world.alive_on(name) for name in others),
        within_s=29.0,
    )
    await trio.sleep_until(struck + 30.0)
    await world.wait_views(stage.nodes)
    await world.export("n1", CID)
