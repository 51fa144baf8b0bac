"""Admitted nodes that lie."""

from __future__ import annotations

import trio

from sim import check
from sim.faults import ForgedAnnouncements, LyingParent
from sim.scenario import Stage, scenario
from sim.world import PIECE_BYTES

CID = "index.db"
SIZE = 80 * PIECE_BYTES + 9


@scenario("lying-parent", nodes=6)
async def lying_parent(stage: Stage) -> None:
    """One of two parents serves wrong bytes: it is dropped, and no wrong byte comes through."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, SIZE)
    await world.export("n1", CID)
    await stage.faults.inject(LyingParent(node="n1", for_s=300.0))
    for child in ("n2", "n3"):
        result = await world.export(child, CID)
        check.each_byte_once(world, result, SIZE)
        honest = {"n0", *(("n2",) if child == "n3" else ())}
        check.only_from(world, result, honest)
        world.metrics["bad pieces"] = world.node(child).metrics.value("pieces_bad")


@scenario("forged-announcements", nodes=6)
async def forged_announcements(stage: Stage) -> None:
    """An admitted node forges and replays announcements: each is dropped, the holders stay."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, SIZE)
    liar, child = "n1", "n2"
    for _ in range(2):
        fault = ForgedAnnouncements(node=liar, victim="n0", cid=CID)
        await stage.faults.inject(fault)
        found = await world.stat(child, CID)
        holders = [world.name_of(holder.node) for holder in found.holders]
        if holders != ["n0"]:
            world.report(f"after forged announcements the holders are {holders}")
        await trio.sleep(5.0)
    result = await world.export(child, CID)
    check.each_byte_once(world, result, SIZE)
    check.only_from(world, result, ("n0",))
