"""Members that go, stall, move, or lose sight of each other."""

from __future__ import annotations

import trio

from sim.faults import AddressChange, ClockSkew, Kill, Leave, Partition, Pause, PowerLoss
from sim.scenarios.seeing import never_dead, owns_keys, state_on
from sim.whole import check
from sim.whole.scenario import Stage, scenario
from sim.whole.world import PIECE_BYTES

CID = "notes.txt"
SIZE = 5 * PIECE_BYTES + 3


@scenario("leave")
async def leave(stage: Stage) -> None:
    """A node leaves in order: all others know at once, and nobody thinks that it crashed."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, SIZE)
    others = [name for name in world.machines if name != "n1"]
    async with never_dead(world, "n1", others):
        await stage.faults.inject(Leave(node="n1"))
        await world.wait_until(
            "all know that it left",
            lambda: all(state_on(world, name, "n1") == "left" for name in others),
            within_s=2.0,
        )
    await world.export(others[-1], CID)


@scenario("suspect-keeps-its-keys")
async def suspect_keeps_its_keys(stage: Stage) -> None:
    """A suspected scheduler keeps its keys and is cleared; one that is off loses them."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    others = [name for name in world.machines if name != "n1"]
    await stage.faults.inject(Pause(node="n1", for_s=2.0))
    suspected = False
    for _ in range(60):
        await trio.sleep(0.05)
        for name in others:
            suspected |= state_on(world, name, "n1") == "suspect"
            if not owns_keys(world, name, "n1"):
                world.report(f"on {name} n1 lost its keys, and was only slow")
                return
    assert suspected, "nobody suspected the node that stopped"
    await world.wait_until(
        "the slow node is cleared",
        lambda: all("n1" in world.alive_on(name) for name in others),
        within_s=5.0,
    )
    await stage.faults.inject(PowerLoss(node="n1"))
    await world.wait_until(
        "the node that is off lost its keys",
        lambda: not any(owns_keys(world, name, "n1") for name in others),
        within_s=20.0,
    )


@scenario("moved-node")
async def moved_node(stage: Stage) -> None:
    """A node comes back at another address: all find it there, with what it holds."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    moving = list(world.machines)[-1]
    await world.import_content(moving, CID, SIZE)
    await stage.faults.inject(AddressChange(node=moving))
    await world.wait_views(stage.nodes, within_s=20.0)
    check.only_from(world, await world.export("n1", CID, timeout_s=20), (moving,))


@scenario("partition-without-seeds", nodes=6)
async def partition_without_seeds(stage: Stage) -> None:
    """The seeds are gone for good when the rest is cut in two: it becomes one cluster again."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    seeds, rest = list(world.machines)[:3], list(world.machines)[3:]
    for name in seeds:
        await stage.faults.inject(Kill(node=name))
    await world.wait_views(len(rest))
    island = set(rest[:1])
    struck = await stage.faults.inject(Partition(island=tuple(rest[:1]), for_s=40.0))
    await world.wait_until(
        "both sides see the split",
        lambda: all(
            world.alive_on(name) == (island if name in island else set(rest) - island)
            for name in rest
        ),
        within_s=35.0,
    )
    await trio.sleep_until(struck + 40.0)
    await world.wait_views(len(rest))


@scenario("clock-behind")
async def clock_behind(stage: Stage) -> None:
    """A node restarts with a clock that is minutes behind, and can refute all the same."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n1", CID, SIZE)
    await stage.faults.inject(ClockSkew(node="n1", by_s=-200.0, for_s=60.0))
    await world.wait_views(stage.nodes, within_s=20.0)
    await stage.faults.inject(Pause(node="n1", for_s=3.0))
    await trio.sleep(15.0)
    await world.wait_views(stage.nodes, within_s=1.0)
    check.only_from(world, await world.export("n2", CID, timeout_s=20), ("n1",))
