"""Many small tasks at once, while nodes die, lie and delete."""

from __future__ import annotations

import trio

from gossipcache.errors import GossipcacheError, TaskNotFound
from gossipcache.results import ExportResult
from sim.faults import Kill, LyingParent, Restart
from sim.whole.machine import NodeKilled
from sim.whole.scenario import Stage, scenario

FILES = 150
SIZE = 3000
CIDS = [f"shard-{number:03}" for number in range(FILES)]
BATCH_S = 0.12
"""About as long as a batch takes."""
HEARD_S = 20.0
"""Within this time all that is up has heard of a deletion."""


@scenario("batch-keeper-dies", nodes=5)
async def batch_keeper_dies(stage: Stage) -> None:
    """A keeper dies within a batch of imports, and comes back: every task of it can be had."""
    world = stage.world
    rng = world.streams.named("scenario")
    await world.start_cluster(stage.nodes)
    importer, dying, child = rng.sample(world.up(), 3)

    async def kill() -> None:
        await trio.sleep(rng.uniform(0.0, BATCH_S))
        await stage.faults.inject(Kill(node=dying))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        imported = await world.import_many(importer, CIDS, SIZE)
    failed = [cid for cid, outcome in imported.items() if isinstance(outcome, GossipcacheError)]
    if failed or len(imported) < FILES:
        world.report(
            f"{FILES - len(imported) + len(failed)} imports failed with one keeper of five"
        )
    exported = await world.export_many(child, CIDS)
    if not all(isinstance(outcome, ExportResult) for outcome in exported.values()):
        world.report("not all can be exported while the keeper is dead")
    await stage.faults.inject(Restart(node=dying))
    await world.wait_views(stage.nodes)
    for cid in rng.sample(CIDS, 10):
        await world.stat(dying, cid)


@scenario("batch-importer-dies", nodes=5)
async def batch_importer_dies(stage: Stage) -> None:
    """The node that imports a batch dies in it: what it acknowledged is there when it is back."""
    world = stage.world
    rng = world.streams.named("scenario")
    await world.start_cluster(stage.nodes)
    importer, child = rng.sample(world.up(), 2)

    async def import_all() -> None:
        try:
            await world.import_many(importer, CIDS, SIZE)
        except NodeKilled:
            return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(import_all)
        await trio.sleep(rng.uniform(0.0, BATCH_S))
        await stage.faults.inject(Kill(node=importer))
    await stage.faults.inject(Restart(node=importer))
    await world.wait_views(stage.nodes)
    await world.export_many(child, CIDS)


@scenario("lying-content", nodes=6)
async def lying_content(stage: Stage) -> None:
    """One of two holders answers with wrong content: nothing of it is kept, all come right."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_many("n0", CIDS, SIZE)
    await world.export_many("n1", CIDS)
    await trio.sleep(1.0)
    await stage.faults.inject(LyingParent(node="n1", for_s=300.0))
    bad = 0
    for child in ("n2", "n3"):
        exported = await world.export_many(child, CIDS)
        for cid, outcome in exported.items():
            if not isinstance(outcome, ExportResult):
                world.report(f"{cid} does not come to {child}: {outcome}")
            elif any(source.name == "n1" for source in outcome.sources):
                world.report(f"{child} took {cid} from a liar")
        bad += world.node(child).metrics.value("contents_bad")
    world.metrics["bad contents"] = bad


@scenario("small-delete-race", nodes=5)
async def small_delete_race(stage: Stage) -> None:
    """Small tasks are deleted while others export them and a keeper dies: they stay gone."""
    world = stage.world
    rng = world.streams.named("scenario")
    await world.start_cluster(stage.nodes)
    importer, deleter, dying, *children = rng.sample(world.up(), stage.nodes)
    await world.import_many(importer, CIDS, SIZE)
    doomed = rng.sample(CIDS, 20)

    async def delete(cid: str) -> None:
        await trio.sleep(rng.uniform(0.0, BATCH_S))
        await world.delete(deleter, cid)

    async def kill() -> None:
        await trio.sleep(rng.uniform(0.0, BATCH_S))
        await stage.faults.inject(Kill(node=dying))

    async with trio.open_nursery() as nursery:
        for cid in doomed:
            nursery.start_soon(delete, cid)
        nursery.start_soon(kill)
        for child in children:
            nursery.start_soon(world.export_many, child, CIDS)
    await stage.faults.inject(Restart(node=dying))
    await world.wait_views(stage.nodes)
    await trio.sleep(HEARD_S)
    for cid in doomed:
        for name in world.up():
            try:
                await world.stat(name, cid)
            except TaskNotFound:
                continue
            world.report(f"{cid} was deleted, and {name} finds it")
