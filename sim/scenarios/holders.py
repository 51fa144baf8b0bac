"""Holders and parents that go, stall, or come back with less than they had."""

from __future__ import annotations

import trio

from sim.faults import Kill, Pause, Restart
from sim.scenarios.midway import busiest, struck_midway
from sim.whole import check
from sim.whole.scenario import Stage, scenario
from sim.whole.world import PIECE_BYTES, World

CID = "layers.oci"
SIZE = 40 * PIECE_BYTES + 7
BIG = 240 * PIECE_BYTES + 7
LEASE_S = 30.0


@scenario("wiped-holder")
async def wiped_holder(stage: Stage) -> None:
    """A holder comes back without its disk: when its lease is over nobody names it any more."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, SIZE)
    await world.export("n1", CID)
    await stage.faults.inject(Kill(node="n1"))
    await stage.faults.inject(Restart(node="n1", wiped=True))
    await world.wait_views(stage.nodes)
    await trio.sleep(LEASE_S + 5.0)
    found = await world.stat("n2", CID)
    holders = [world.name_of(holder.node) for holder in found.holders]
    if holders != ["n0"]:
        world.report(f"{holders} are named as holders, but only n0 has a copy")
    check.only_from(world, await world.export("n1", CID), ("n0",))


@scenario("two-parents")
async def two_parents(stage: Stage) -> None:
    """Two holders feed a child long after the second one came: each sends a part of it."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, BIG)
    await world.export("n1", CID)
    await trio.sleep(LEASE_S + 5.0)  # until its session is forgotten
    sent_before = _sent(world, "n0", "n1")
    result = await world.export("n2", CID)
    check.each_byte_once(world, result, BIG)
    if len(result.bytes_by_source) != 2:
        world.report("one of two holders gave nothing")
    sent = _sent(world, "n0", "n1") - sent_before
    world.metrics["sent of what was needed"] = round(sent / BIG, 3)
    if sent > 1.2 * BIG:
        world.report(f"the parents sent {sent} bytes of {BIG}")


@scenario("stalled-parent")
async def stalled_parent(stage: Stage) -> None:
    """A parent hangs in mid-export: the other one gives what it owes, within a few seconds."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, BIG)
    await world.export("n1", CID, sync=True)
    struck_at = 0.0

    async def strike(sources: dict[str, int]) -> None:
        nonlocal struck_at
        struck_at = await stage.faults.inject(Pause(node=busiest(world, sources), for_s=28.0))

    check.each_byte_once(world, await struck_midway(world, "n2", CID, strike), BIG)
    took_s = world.clock.now - struck_at
    world.metrics["export after the stall s"] = round(took_s, 3)
    if took_s > 4.0:
        world.report(f"a parent hung, and the export took {took_s:.1f} s more")


@scenario("owner-then-parent-death", nodes=7)
async def owner_then_parent_death(stage: Stage) -> None:
    """Owner and only parent die in mid-export; another holder comes back and ends it."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    owner, replicas = await world.owner_of("n0", CID)
    parent, second, child, *_ = [n for n in world.up() if n not in (owner, *replicas)]
    await world.import_content(parent, CID, BIG)
    await world.export(second, CID)
    await stage.faults.inject(Kill(node=second))
    await world.wait_views(stage.nodes - 1)

    async def strike(_sources: dict[str, int]) -> None:
        await stage.faults.inject(Kill(node=owner))
        await stage.faults.inject(Kill(node=parent))
        await stage.faults.inject(Restart(node=second))

    check.each_byte_once(world, await struck_midway(world, child, CID, strike), BIG)


def _sent(world: World, *names: str) -> int:
    return sum(int(world.node(name).metrics.value("piece_bytes_sent")) for name in names)
