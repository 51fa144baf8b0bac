"""Admitted nodes that lie."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from functools import partial

import trio

from gossipcache.config import Role
from gossipcache.errors import Conflict, TimedOut
from gossipcache.ids import NodeId, task_id_of
from gossipcache.requests import TaskQuery
from sim.faults import (
    AnyFault,
    BadSignature,
    EndlessPromise,
    FalseWitnesses,
    ForgedAnnouncements,
    ForgedCharter,
    ForgedDeletion,
    ForgedSuspicion,
    Kill,
    LyingKeeper,
    LyingParent,
    MintedKeys,
    Restart,
    RivalManifest,
    SubstitutingKeeper,
    UsurpingKeeper,
)
from sim.scenarios.seeing import never_dead
from sim.whole import check
from sim.whole.operator import Operator
from sim.whole.scenario import Stage, scenario
from sim.whole.world import PIECE_BYTES, World

CID = "index.db"
SIZE = 80 * PIECE_BYTES + 9
MAX_BESIDE_S = 5.0
MAX_BELIEVED_S = 2 * (60.0 + 60.0) + 10.0
"""Twice what is promised by the end of the first minute."""


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


@scenario("endless-promise", nodes=6)
async def endless_promise(stage: Stage) -> None:
    """A parent promises every piece and gives none: where another one has them nobody waits for it,
    and where none has it is given up, until there is one."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, SIZE)
    await world.export("n1", CID)
    await stage.faults.inject(EndlessPromise(node="n1", for_s=3600.0))
    started = world.clock.now
    await world.export("n2", CID)
    world.metrics["beside an honest one s"] = round(world.clock.now - started, 3)
    if world.clock.now - started > MAX_BESIDE_S:
        world.report("a child that has an honest parent waited for the liar")
    for name in ("n0", "n2"):
        await stage.faults.inject(Kill(node=name))
    child = world.node("n3")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(world.export, "n3", CID, timeout_s=600.0))
        await world.wait_until(
            "the liar is given up",
            lambda: child.metrics.value("parents_dropped") > 0,
            MAX_BELIEVED_S,
        )
        await stage.faults.inject(Restart(node="n0"))


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


@scenario("substituting-keeper", nodes=6)
async def substituting_keeper(stage: Stage) -> None:
    """The owner of a task names other content than stands: nobody is given that."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    owner, replicas = await world.owner_of("n0", CID)
    importer, child = [name for name in world.up() if name not in (owner, *replicas)][:2]
    imported = await world.import_content(importer, CID, SIZE)
    await stage.faults.inject(SubstitutingKeeper(node=owner, cid=CID, for_s=60.0))
    for name in (child, replicas[0]):
        with suppress(Conflict, TimedOut):  # better no answer than a wrong one
            found = await world.stat(name, CID)
            if found.digest != imported.digest:
                world.report(f"{name} believes the owner alone")
    # Keepers that differ make reads fail closed, until the user says what is meant.
    world.witness.deleting((CID, ""))
    query = TaskQuery(CID, digest=imported.digest)
    pinned = await world.on(child, lambda node: node.stat(query, timeout_s=10.0))
    if pinned.publisher != imported.publisher:
        world.report(f"{child} is given another manifest than the one it named")


@scenario("malicious-member")
async def malicious_member(stage: Stage) -> None:
    """An admitted member tries all it can in a cluster with an operator: nobody loses anything."""
    world = stage.world
    operator = Operator(world, "ticket")
    rng = world.streams.named("malice")
    roles: tuple[Role, ...] = rng.choice((("peer",), ("peer", "scheduler")))
    *honest, liar = await operator.start_cluster(stage.nodes, roles=roles)
    await operator.decree(honest[0], delete_policy="publisher")
    schedulers = [*honest, *([liar] if "scheduler" in roles else [])]
    on_ring = {machine.identity.node_id for machine in schedulers}
    await world.wait_until("tickets make the ring", lambda: _rings(world) == [on_ring], 30.0)
    await world.import_content(honest[0].name, CID, SIZE)
    names = [machine.name for machine in honest]
    attacks: list[AnyFault] = [
        ForgedSuspicion(node=liar.name, victim=rng.choice(names), times=3),
        FalseWitnesses(node=liar.name, victim=rng.choice(names)),
        MintedKeys(node=liar.name, victim=rng.choice(names)),
        BadSignature(node=liar.name, victim=rng.choice(names)),
        RivalManifest(node=liar.name, cid=CID),
        ForgedDeletion(node=liar.name, cid=CID),
        ForgedCharter(node=liar.name),
    ]
    rng.shuffle(attacks)
    async with AsyncExitStack() as watching:
        for name in names:
            others = [each for each in names if each != name]
            await watching.enter_async_context(never_dead(world, name, others))
        for attack in attacks:
            await stage.faults.inject(attack)
            await trio.sleep(rng.uniform(0.0, 2.0))
    if _rings(world) != [on_ring]:
        world.report("a key without a ticket stands on a ring, or one with a ticket does not")
    found = await world.stat(names[-1], CID)
    if world.name_of(found.publisher) != names[0]:
        world.report(f"the task's publisher is {found.publisher} now")
    await world.export(names[-1], CID)


@scenario("liar-beside-empty-keeper", nodes=4)
async def liar_beside_empty_keeper(stage: Stage) -> None:
    """A keeper with a ticket tells a later generation of its own to one that takes the place of a
    dead keeper, before the honest one does: the task is neither replaced nor deleted."""
    world = stage.world
    operator = Operator(world, "ticket")
    machines = await operator.start_cluster(stage.nodes, roles=("peer", "scheduler"))
    await operator.decree(machines[0], delete_policy="publisher")
    await world.wait_until("all keep records", lambda: _rings_are(world, stage.nodes), 30.0)
    owner, (liar, gone) = await world.owner_of("n0", CID)
    empty = next(one for one in world.up() if one not in (owner, liar, gone))
    imported = await world.import_content(owner, CID, SIZE)
    await stage.faults.inject(UsurpingKeeper(node=liar, victim=empty, cid=CID))
    await stage.faults.inject(Kill(node=gone))
    await world.wait_until("the ring is closed", lambda: _rings_are(world, stage.nodes - 1), 30.0)
    await trio.sleep(30.0)
    task_id = task_id_of(CID, "")
    held = world.node(owner).services.records.local(task_id)
    if held is None or held.manifest is None or held.generation != 1:
        world.report("the honest keeper lost the task to the liar")
    for name in (owner, empty):
        with suppress(TimedOut):  # better no answer than a wrong one
            found = await world.on(
                name, lambda node: node.services.records.read(task_id, timeout_s=5.0)
            )
            if found is None or found.generation != 1:
                world.report(f"{name} believes the liar")
    # Of three that differ nobody can tell who lies, until the user says what is meant.
    world.witness.deleting((CID, ""))
    query = TaskQuery(CID, digest=imported.digest)
    pinned = await world.on(empty, lambda node: node.stat(query, timeout_s=10.0))
    if pinned.publisher != imported.publisher:
        world.report(f"{empty} is given another manifest than the one it named")


def _rings_are(world: World, count: int) -> bool:
    """Whether all nodes see one ring, of so many."""
    rings = _rings(world)
    return len(rings) == 1 and len(rings[0]) == count


def _rings(world: World) -> list[set[NodeId]]:
    """The different rings that nodes see."""
    rings: list[set[NodeId]] = []
    for name in world.up():
        members = set(world.node(name).services.membership.ring.members)
        if members not in rings:
            rings.append(members)
    return rings


@scenario("denying-keeper", nodes=6)
async def denying_keeper(stage: Stage) -> None:
    """The owner of a task says that there is none: everybody finds it all the same."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    owner, replicas = await world.owner_of("n0", CID)
    importer, child = [name for name in world.up() if name not in (owner, *replicas)][:2]
    await world.import_content(importer, CID, SIZE)
    await stage.faults.inject(LyingKeeper(node=owner, for_s=60.0))
    for name in (child, *replicas):
        await world.stat(name, CID)


@scenario("false-accuser")
async def false_accuser(stage: Stage) -> None:
    """A member calls another dead, alone and with false witnesses: nobody believes it."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    victim, liar, *others = world.machines
    async with never_dead(world, victim, others):
        await stage.faults.inject(ForgedSuspicion(node=liar, victim=victim, times=1))
        await trio.sleep(3.0)
        await stage.faults.inject(FalseWitnesses(node=liar, victim=victim))
        await trio.sleep(3.0)


@scenario("forged-records")
async def forged_records(stage: Stage) -> None:
    """A member makes up a record of another, with another address: nobody takes it."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    victim, liar, *others = world.machines
    await stage.faults.inject(BadSignature(node=liar, victim=victim))
    await trio.sleep(1.0)
    await world.import_content(victim, CID, SIZE)
    check.only_from(world, await world.export(others[0], CID), (victim,))
