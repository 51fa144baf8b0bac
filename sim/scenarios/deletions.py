"""Deleted tasks that somebody still has: away, cut off, wiped, or set back to an old disk."""

from __future__ import annotations

import hashlib
import random
from contextlib import suppress
from dataclasses import dataclass

import trio

from gossipcache.errors import GossipcacheError, TaskNotFound
from gossipcache.ids import TaskId, task_id_of
from sim.faults import AnyFault, Kill, OldSnapshot, Partition, Pause, Restart
from sim.whole.machine import NodeKilled
from sim.whole.scenario import Stage, scenario
from sim.whole.world import World

SIZE = 2000
KINDS = ("spared", "cut off", "paused", "away", "wiped", "wiped", "set back")
PROBE_INTERVAL_S = 0.3
STORM_S = 11.0
"""Within it all faults strike, and end."""
DELETE_TIMEOUT_S = 5.0
KNOWN_S = 8.0
"""After all nodes see each other, how long a deletion may take to reach a node that was away."""


@dataclass
class _Storm:
    """What one seed drew, and what came of it."""

    stage: Stage
    rng: random.Random
    cid: str
    content: bytes
    steady: list[str]
    """Nodes that no fault strikes. One of them deletes, and so remembers the deletion."""
    struck: list[str]
    dead_generation: int = 0
    """The highest generation whose deletion was acknowledged."""
    live_generation: int = 0
    """The highest generation whose import was asked for."""

    @property
    def world(self) -> World:
        return self.stage.world

    @property
    def task_id(self) -> TaskId:
        return task_id_of(self.cid, "")


@scenario("delete-storm", limit_s=300.0)
async def delete_storm(stage: Stage) -> None:
    """A task is deleted while nodes are cut off, wiped or set back: it never comes back."""
    world = stage.world
    rng = world.streams.named("scenario")
    await world.start_cluster(stage.nodes)
    storm = await _drawn(stage, rng)
    names = [*storm.steady, *storm.struck]
    await _import(storm, rng.choice(names))
    for holder in names:
        if rng.random() < 0.5:
            await world.export(holder, storm.cid)
    befall = rng.choice((_each_by_itself, _each_by_itself, _lose_disks, _lose_disks, _lose_touch))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(befall, storm)
        probing = trio.CancelScope()
        nursery.start_soon(_probe, storm, probing)
        await _delete_and_import_anew(storm)
        await trio.sleep_until(_starts_at(world) + STORM_S)
        probing.cancel()
    await world.wait_views(stage.nodes)
    await trio.sleep(KNOWN_S)
    for name in names:
        await _is_true_on(storm, name)
    world.metrics["dead generation"] = storm.dead_generation
    world.metrics["steady nodes"] = len(storm.steady)


async def _drawn(stage: Stage, rng: random.Random) -> _Storm:
    """Half of the tasks are named by their content; half of the storms strike just the keepers."""
    content = rng.randbytes(SIZE)
    cid = rng.choice(("report", f"sha256:{hashlib.sha256(content).hexdigest()}"))
    names = sorted(stage.world.machines)
    owner, replicas = await stage.world.owner_of(names[0], cid)
    rng.shuffle(names)
    struck = rng.choice(([owner, *replicas], names[2:]))
    steady = [name for name in names if name not in struck]
    return _Storm(stage, rng, cid, content, steady, struck)


def _starts_at(world: World) -> float:
    return world.metrics.setdefault("storm from s", round(world.clock.now, 3))


async def _import(storm: _Storm, name: str) -> None:
    """Imports the next generation; each has the same content."""
    with suppress(NodeKilled):
        await storm.world.import_content(name, storm.cid, SIZE, content=storm.content)
    storm.live_generation = storm.dead_generation + 1


async def _delete_and_import_anew(storm: _Storm) -> None:
    """Up to two deletions, with an import between them or after, by nodes that no fault strikes."""
    rng, world = storm.rng, storm.world
    await trio.sleep(rng.uniform(0.0, 3.0))
    for _ in range(rng.choice((1, 1, 2))):
        try:
            await world.delete(rng.choice(storm.steady), storm.cid, timeout_s=DELETE_TIMEOUT_S)
        except GossipcacheError:
            continue  # Too few keepers for it: nothing was promised.
        storm.dead_generation = storm.live_generation
        await trio.sleep(rng.uniform(0.0, 4.0))
        if rng.random() < 0.4:
            with suppress(GossipcacheError):
                await _import(storm, rng.choice(storm.steady))


async def _each_by_itself(storm: _Storm) -> None:
    async with trio.open_nursery() as nursery:
        for name in storm.struck:
            nursery.start_soon(_strike, storm, name)


async def _lose_disks(storm: _Storm) -> None:
    """The disks of all that are struck are lost at one instant: they come back wiped, or set back
    to what they were at the start."""
    rng, inject = storm.rng, storm.stage.faults.inject
    falls_s = rng.uniform(1.0, 6.0)
    async with trio.open_nursery() as nursery:
        for name in storm.struck:
            if rng.random() < 0.4:
                nursery.start_soon(inject, OldSnapshot(node=name, after_s=falls_s))
            else:
                nursery.start_soon(_wipe, storm, name, falls_s, rng.choice((0.1, 0.5, 3.0)))


async def _lose_touch(storm: _Storm) -> None:
    """Two are cut off, or stop, together: what they know stays as it was."""
    rng, inject = storm.rng, storm.stage.faults.inject
    pair, lasts_s = storm.struck[:2], rng.uniform(0.5, 9.0)
    if rng.random() < 0.5:
        await inject(Partition(island=tuple(pair), for_s=lasts_s))
        return
    for name in pair:
        await inject(Pause(node=name, for_s=lasts_s))


async def _wipe(storm: _Storm, name: str, falls_s: float, lasts_s: float) -> None:
    await trio.sleep_until(_starts_at(storm.world) + falls_s)
    await storm.stage.faults.inject(Kill(node=name))
    await trio.sleep(lasts_s)
    await storm.stage.faults.inject(Restart(node=name, wiped=True))


async def _strike(storm: _Storm, name: str) -> None:
    """One fault, or a kill and a return, of one node."""
    rng, inject = storm.rng, storm.stage.faults.inject
    kind = rng.choice(KINDS)
    starts_s, lasts_s = rng.uniform(0.0, 4.0), rng.uniform(1.0, 8.0)
    await trio.sleep_until(_starts_at(storm.world) + starts_s)
    fault: AnyFault
    if kind == "cut off":
        fault = Partition(island=(name,), for_s=lasts_s)
    elif kind == "paused":
        fault = Pause(node=name, for_s=lasts_s)
    elif kind == "set back":
        fault = OldSnapshot(node=name, after_s=lasts_s)
    elif kind in ("away", "wiped"):
        await inject(Kill(node=name))
        await trio.sleep(lasts_s)
        fault = Restart(node=name, wiped=kind == "wiped")
    else:
        return
    await inject(fault)


async def _probe(storm: _Storm, scope: trio.CancelScope) -> None:
    """Nodes that nothing struck never find what was deleted."""
    with scope:
        while True:
            await trio.sleep(PROBE_INTERVAL_S)
            await _not_found_on(storm, storm.rng.choice(storm.steady))


async def _not_found_on(storm: _Storm, name: str) -> None:
    dead = storm.dead_generation
    if not dead:
        return
    with suppress(GossipcacheError, NodeKilled):
        found = await storm.world.on(
            name, lambda node: node.services.records.read(storm.task_id, timeout_s=0.5)
        )
        if found is not None and found.manifest is not None and found.generation <= dead:
            storm.world.report(f"{name} finds generation {found.generation}, deleted: {dead}")


async def _is_true_on(storm: _Storm, name: str) -> None:
    """When all is well again a node has nothing of deleted generations."""
    world = storm.world
    stored = world.node(name).services.store.find(storm.task_id)
    if stored is not None and stored.generation <= storm.dead_generation:
        world.report(f"{name} still holds generation {stored.generation}")
    try:
        await world.stat(name, storm.cid)
    except TaskNotFound:
        return
    record = world.node(name).services.records.local(storm.task_id)
    if record is not None and record.generation <= storm.dead_generation:
        world.report(f"{name} finds generation {record.generation} after all")
    elif storm.dead_generation >= storm.live_generation:
        world.report(f"{name} finds the deleted task after all")
