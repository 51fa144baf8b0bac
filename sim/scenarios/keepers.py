"""Keepers of records that are away, cut off, wiped, or all dead at once."""

from __future__ import annotations

from contextlib import suppress

import trio

from gossipcache.config import RecordConfig
from gossipcache.dht.ring import Ring
from gossipcache.errors import Conflict, NotReady, TaskNotFound, TimedOut
from gossipcache.ids import NodeId, task_id_of
from gossipcache.requests import ImportRequest
from sim.faults import (
    DatagramsBlocked,
    Kill,
    PartialPartition,
    Partition,
    Pause,
    PowerLoss,
    Restart,
)
from sim.whole import check
from sim.whole.scenario import Stage, scenario
from sim.whole.world import PIECE_BYTES, World

CID = "ledger.db"
SIZE = 12 * PIECE_BYTES + 1
SMALL = 500
WRITE_QUORUM = 2
MAX_REDIRECTS = 2
AWAY_S = 2.2
"""Long enough for a join, too short for a death."""
OWNER_WAIT_S = RecordConfig().write_budget_s
"""How long a writer waits for a keeper before it turns to the next."""
RIVALS = 12
_CIDS = tuple(f"name-{number}" for number in range(200))


@scenario("keepers-die", nodes=7)
async def keepers_die(stage: Stage) -> None:
    """All three keepers of a task die at once: the holder rebuilds the record at others."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    owner, replicas = await world.owner_of("n0", CID)
    holder, child, *_ = [n for n in world.up() if n not in (owner, *replicas)]
    await world.import_content(holder, CID, SIZE)
    for keeper in (owner, *replicas):
        await stage.faults.inject(Kill(node=keeper))
    started = world.clock.now
    check.each_byte_once(world, await world.export(child, CID), SIZE)
    world.metrics["export after death s"] = round(world.clock.now - started, 3)


@scenario("asked-while-recovering", nodes=7)
async def asked_while_recovering(stage: Stage) -> None:
    """All three keepers of a name that nobody used die: a stat of it says so within its time."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    owner, replicas = await world.owner_of("n0", CID)
    asker = next(n for n in world.up() if n not in (owner, *replicas))
    for keeper in (owner, *replicas):
        await stage.faults.inject(Kill(node=keeper))
    started = world.clock.now
    try:
        await world.stat(asker, CID)
        world.report("a task was found that nobody imported")
    except TaskNotFound:
        world.metrics["stat while recovering s"] = round(world.clock.now - started, 3)
    except TimedOut as error:
        world.report(f"a stat ended without an answer: {error.message}")


@scenario("import-cut-off")
async def import_cut_off(stage: Stage) -> None:
    """Owner and importer are cut off when a write begins: it waits for a second keeper."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    owner, replicas = await world.owner_of("n0", CID)
    importer = next(n for n in world.up() if n not in (owner, *replicas))
    await stage.faults.inject(Partition(island=(owner, importer), for_s=2.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_is_not_shown, world, importer)
        result = await world.import_content(importer, CID, SIZE)
        nursery.cancel_scope.cancel()
    if result.record_copies < WRITE_QUORUM:
        world.report(f"an import was acknowledged with {result.record_copies} copy of its record")
    await trio.sleep(5.0)
    await world.export(replicas[-1], CID)


async def _is_not_shown(world: World, name: str) -> None:
    """No task that stands in the store already, and whose record does not, is shown."""
    node = world.node(name)
    while True:
        shown = {task.task_id for task in node.list_tasks()}
        for stored in node.services.store.tasks(unpublished=True):
            if not stored.published and stored.task_id.hex() in shown:
                world.report(f"{name} shows a task whose record does not stand yet")
                return
        await trio.sleep(0.0005)


@scenario("old-view")
async def old_view(stage: Stage) -> None:
    """A node has not heard that three new keepers took a task over: it is sent on to them."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    joining = [world.add_machine().name for _ in range(3)]
    ids = {name: machine.identity.node_id for name, machine in world.machines.items()}
    before, after = Ring(ids[name] for name in world.up()), Ring(ids.values())
    cid = next(
        cid
        for cid in (f"table-{number}" for number in range(5000))
        if not {*_keepers(before, cid)} & {*_keepers(after, cid)}
    )
    reader = next(n for n in world.up() if ids[n] not in _keepers(before, cid))
    await world.import_content("n0", cid, SMALL)
    await stage.faults.inject(DatagramsBlocked(node=reader, for_s=20.0))
    for name in joining:
        await world.start(name)
    old = [world.name_of(node.hex()) for node in _keepers(before, cid)]
    await world.wait_until(
        "the new keepers took over",
        lambda: all(_standing(world, name, cid) is None for name in old),
        within_s=20.0,
    )
    if len(world.node(reader).ring(None).schedulers) == len(ids):
        return  # it has heard after all
    started = world.clock.now
    await world.stat(reader, cid)
    took_s = world.clock.now - started
    world.metrics["stat by an old view s"] = round(took_s, 3)
    if took_s > 0.5:
        world.report(f"a stat by an old view took {took_s:.1f} s")


@scenario("keeper-away")
async def keeper_away(stage: Stage) -> None:
    """A replica stops while a task is deleted: it hears of that as soon as it goes on."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    owner, replicas = await world.owner_of("n0", CID)
    importer = next(n for n in world.up() if n not in (owner, *replicas))
    await world.import_content(importer, CID, SIZE)
    struck = await stage.faults.inject(Pause(node=replicas[-1], for_s=2.0))
    await world.delete(importer, CID)
    await trio.sleep_until(struck + 2.0)
    await world.wait_until(
        "all keepers know of the deletion", lambda: _is_kept(world, CID), within_s=2.5
    )


@scenario("differing-views", nodes=7)
async def differing_views(stage: Stage) -> None:
    """A peer is cut off while two schedulers join, until two others die: it asks by a ring
    that lacks the ones and has the others, and finds every record within two redirects."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    asker, dying = world.add_machine(roles=frozenset({"peer"})).name, ["n1", "n2"]
    await world.start(asker)
    await world.wait_views(stage.nodes + 1)
    cids = [f"shard-{number}" for number in range(24)]
    for cid in cids:
        await world.import_content("n3", cid, SMALL)
    newcomers = [world.add_machine().name for _ in range(2)]
    struck = await stage.faults.inject(Partition(island=(asker,), for_s=AWAY_S))
    for name in newcomers:
        await world.start(name)
    others = [name for name in world.up() if name != asker]
    await world.wait_until(
        "the newcomers keep records",
        lambda: all(len(world.node(n).ring(None).schedulers) == stage.nodes + 2 for n in others),
        within_s=AWAY_S,
    )
    await trio.sleep_until(struck + AWAY_S)
    for name in dying:
        await stage.faults.inject(Kill(node=name))
    ids = {world.node(name).node_id for name in newcomers}
    world.metrics["unseen"] = len(ids - set(world.node(asker).services.membership.ring.members))
    for cid in cids:
        await _is_served(world, asker, cid)


async def _is_served(world: World, asker: str, cid: str) -> None:
    node = world.node(asker)
    before = node.metrics.snapshot().get("record_redirects", 0)
    started = world.clock.now
    try:
        found = await world.on(
            asker, lambda node: node.services.records.read(task_id_of(cid, ""), timeout_s=5.0)
        )
    except TimedOut:
        found = None
    if found is None or found.manifest is None:
        world.report(f"{asker} was not told what {cid!r} is")
    took_s = round(world.clock.now - started, 3)
    world.metrics["slowest s"] = max(took_s, world.metrics.get("slowest s", 0))
    redirects = node.metrics.snapshot().get("record_redirects", 0) - before
    world.metrics["most redirects"] = max(redirects, world.metrics.get("most redirects", 0))
    if redirects > MAX_REDIRECTS:
        world.report(f"{asker} was redirected {redirects} times for {cid!r}")


@scenario("wiped-keeper", nodes=6)
async def wiped_keeper(stage: Stage) -> None:
    """A keeper comes back without its disk, and the holder is dead: others give it its records."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    cids = [f"shard-{number}" for number in range(16)]
    for cid in cids:
        await world.import_content("n0", cid, SMALL)
    for cid in cids[::2]:
        await world.delete("n0", cid)
    for name in ("n0", "n1"):
        await stage.faults.inject(Kill(node=name))
    await world.wait_views(stage.nodes - 2)
    await stage.faults.inject(Restart(node="n1", wiped=True))
    await world.wait_views(stage.nodes - 1)
    await world.wait_until(
        "all keepers hold the same",
        lambda: all(_is_kept(world, cid) for cid in cids),
        within_s=30.0,
    )


@scenario("keepers-power-loss")
async def keepers_power_loss(stage: Stage) -> None:
    """All keepers lose power when an import has returned: each copy of its record is durable."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    owner, replicas = await world.owner_of("n0", CID)
    holder = next(n for n in world.up() if n not in (owner, *replicas))
    imported = await world.import_content(holder, CID, SIZE)
    await stage.faults.inject(Kill(node=holder))  # it would bring lost copies back
    keepers = world.up()
    for name in keepers:
        await stage.faults.inject(PowerLoss(node=name))
    async with trio.open_nursery() as nursery:
        for name in keepers:
            nursery.start_soon(stage.faults.inject, Restart(node=name))
    await world.wait_views(len(keepers))
    await world.wait_until(
        "all acknowledged copies are back",
        lambda: (
            sum(_standing(world, name, CID) is not None for name in (owner, *replicas))
            >= imported.record_copies
        ),
        within_s=5.0,
    )
    await stage.faults.inject(Restart(node=holder))
    await world.wait_views(stage.nodes)
    await world.export(owner, CID)


@scenario("rival-imports")
async def rival_imports(stage: Stage) -> None:
    """Two nodes have different keepers write different content under one name: one wins."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    owner, cut_off, near, *_ = world.machines
    cids = [cid for cid in _CIDS if (await world.owner_of(owner, cid))[0] == owner][:RIVALS]
    await stage.faults.inject(PartialPartition(one=cut_off, other=owner, for_s=20.0))
    rng = world.streams.named("scenario")
    async with trio.open_nursery() as nursery:
        for cid in cids:
            nursery.start_soon(_rivals_import, world, cid, cut_off, near, rng.random())
    await trio.sleep(20.0)  # until what was left open is settled
    for cid in cids:
        for name in (cut_off, near):
            stored = world.node(name).services.store.find(task_id_of(cid, ""))
            if stored is not None and stored.published:
                world.witness.expect((cid, ""), _said_by(name, cid))


def _said_by(name: str, cid: str) -> bytes:
    return f"{cid} by {name}".encode()


async def _rivals_import(world: World, cid: str, cut_off: str, near: str, moment: float) -> None:
    """`cut_off` turns to the second keeper when it has waited for the owner: just then comes
    `near`, whose write the owner takes."""
    done: list[str] = []

    async def rival(name: str, delay_s: float) -> None:
        await trio.sleep(delay_s)
        path = world.machines[name].put_file(f"{cid}.rival", _said_by(name, cid))
        with suppress(Conflict, NotReady, TimedOut):
            await world.on(name, lambda node: node.import_file(ImportRequest(path=path, cid=cid)))
            done.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(rival, cut_off, 0.0)
        nursery.start_soon(rival, near, OWNER_WAIT_S - 0.03 + 0.05 * moment)
    if len(done) > 1:
        world.report(f"{done} were both told that theirs stands")


def _keepers(ring: Ring, cid: str) -> tuple[NodeId, ...]:
    return ring.keepers(task_id_of(cid, ""), 3)


def _standing(world: World, name: str, cid: str) -> bytes | None:
    """What a node keeps of a task: a name for its value."""
    held = world.node(name).services.records.local(task_id_of(cid, ""))
    if held is None:
        return None
    stated = held.tombstone.signed if held.tombstone is not None else None
    if stated is None and held.manifest is not None:
        stated = held.manifest.signed
    return b"" if stated is None else stated.payload


def _is_kept(world: World, cid: str) -> bool:
    """Whether all keepers of a task hold the same of it."""
    ring = world.node(world.up()[-1]).services.membership.ring
    names = [world.name_of(node.hex()) for node in _keepers(ring, cid)]
    held = [_standing(world, name, cid) for name in names]
    return None not in held and len(set(held)) == 1
