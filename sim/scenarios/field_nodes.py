"""Failures that other systems met in the field, on whole nodes: keys, clusters, and members that
live but do not work.

Each scenario is named after the system and its issue; `docs/simulator.md` lists them all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import trio

from gossipcache.cluster import Cluster, cluster_from_secret
from gossipcache.ids import Address
from gossipcache.keyfiles import CLUSTER_ID_BYTES, SECRET_BYTES, ClusterFile, RotationStep
from sim.faults import Kill, Leave, Pause, PowerLoss, Restart, StreamsBlocked
from sim.scenarios.seeing import state_on
from sim.whole import check
from sim.whole.machine import Machine
from sim.whole.scenario import Stage, scenario
from sim.whole.world import PIECE_BYTES, PORT, World

CID = "weights.bin"
SIZE = 5 * PIECE_BYTES + 1
PROMPT_S = 2.5
"""What a call may take though a member that it needs first does not answer."""
SETTLED_S = 20.0
"""By then the keepers of a new cluster have compared what they hold; before, a write waits until
a keeper that hangs is missed."""
STEPS: tuple[RotationStep, ...] = ("begin", "switch", "finish")


@scenario("serf-579-key-rotation", nodes=4)
async def key_rotation(stage: Stage) -> None:
    """The cluster's secret is rotated while a node is down: it is let in again with the new file.

    In Serf (579, consul 719) who missed a rotation was locked out, or the rotation never ended.
    Here each of three steps is a file that goes to every node, and nodes before and after a step
    accept each other (`ClusterFile.rotated`, `Cluster.open`); who missed them all needs the last
    file, and no one else notices.
    """
    world = stage.world
    rng = world.streams.named("scenario")
    file = ClusterFile(rng.randbytes(CLUSTER_ID_BYTES), (rng.randbytes(SECRET_BYTES),))
    for _ in range(stage.nodes):
        world.add_machine().cluster = _cluster_of(file)
    async with trio.open_nursery() as nursery:
        for name in world.machines:
            nursery.start_soon(world.start, name)
    await world.wait_views(stage.nodes)
    *others, missing = world.up()
    await world.import_content(others[0], CID, SIZE)
    await stage.faults.inject(Kill(node=missing))
    await world.wait_views(len(others))
    for step in STEPS:
        file = file.rotated(step)
        for name in others:
            world.machines[name].cluster = _cluster_of(file)
            await stage.faults.inject(Leave(node=name))
            await stage.faults.inject(Restart(node=name))
            await world.wait_views(len(others), within_s=15.0)
            await trio.sleep(1.0)
            for each in others:
                if world.node(each).metrics.value("datagrams_unsealed"):
                    world.report(f"amid the step {step} {each} cannot read what others send")
                    return
    world.spawn(stage.faults.inject, Restart(node=missing))
    await trio.sleep(5.0)
    if any(missing in world.alive_on(name) for name in others):
        world.report(f"{missing} is let in by a secret that was dropped")
    await world.kill(missing)
    world.machines[missing].cluster = _cluster_of(file)
    await stage.faults.inject(Restart(node=missing))
    await world.wait_views(stage.nodes, within_s=15.0)
    check.each_byte_once(world, await world.export(missing, CID), SIZE)


@scenario("serf-115-same-name", nodes=4)
async def same_name(stage: Stage) -> None:
    """A second machine has the name of another: both are members, and both work.

    In Serf (115) and Consul (7396, 4879) two nodes with one name fought for it, and queries went
    to the wrong one. Here a member is known by its key; names are for people (`Member.node_id`).
    """
    world = stage.world
    await world.start_cluster(stage.nodes)
    twin = world.add_machine(name="n1").name
    await world.start(twin)
    await world.wait_views(stage.nodes + 1, within_s=10.0)
    await world.import_content(twin, CID, SIZE)
    check.only_from(world, await world.export("n1", CID), (twin,))
    await stage.faults.inject(Kill(node=twin))
    await world.wait_views(stage.nodes, within_s=15.0)
    check.each_byte_once(world, await world.export("n2", CID), SIZE)


@scenario("olric-258-hung-member")
async def hung_member(stage: Stage) -> None:
    """The owner of a task hangs in the midst of an import by another: that goes on without it.

    In Olric (258) writes stood still while the coordinator hung. Here any keeper coordinates a
    write, the next is asked when one is slow (`write_budget_s`), and two copies are enough.
    """
    world = stage.world
    await world.start_cluster(stage.nodes)
    owner, replicas = await world.owner_of("n0", CID)
    importer, other = [name for name in world.up() if name not in (owner, *replicas)]
    await trio.sleep(SETTLED_S)
    struck = await stage.faults.inject(Pause(node=owner, for_s=12.0))
    started = world.clock.now
    await world.import_content(importer, CID, SIZE)
    _is_prompt(world, "import", started)
    started = world.clock.now
    check.each_byte_once(world, await world.export(other, CID), SIZE)
    _is_prompt(world, "export", started)
    await trio.sleep_until(struck + 12.0)
    await world.wait_views(stage.nodes, within_s=20.0)


@scenario("temporal-11108-alive-but-unable-to-serve")
async def unable_to_serve(stage: Stage) -> None:
    """The owner of a task answers pings and nothing else: its keys are served all the same.

    In Temporal (11108) requests went on to a member that was alive by gossip and hung. Here a
    call that an owner does not answer goes to the next keeper within a budget (`read_budget_s`,
    `write_budget_s`), whatever gossip says of it.
    """
    world = stage.world
    await world.start_cluster(stage.nodes)
    owner, replicas = await world.owner_of("n0", CID)
    holder, other = [name for name in world.up() if name not in (owner, *replicas)]
    await world.import_content(holder, CID, SIZE)
    struck = await stage.faults.inject(StreamsBlocked(node=owner, for_s=30.0))
    await trio.sleep(15.0)
    if any(state_on(world, name, owner) != "alive" for name in (holder, other)):
        world.report(f"{owner} answers pings and is not held for alive, so this shows nothing")
    started = world.clock.now
    await world.stat(other, CID)
    _is_prompt(world, "stat", started)
    started = world.clock.now
    check.each_byte_once(world, await world.export(other, CID), SIZE)
    _is_prompt(world, "export", started)
    number = 0
    while (await world.owner_of(other, f"{CID}.{number}"))[0] != owner:
        number += 1
    started = world.clock.now
    await world.import_content(other, f"{CID}.{number}", SIZE)
    _is_prompt(world, "import", started)
    await trio.sleep_until(struck + 30.0)
    await world.wait_views(stage.nodes, within_s=20.0)


@scenario("temporal-9987-zombie-seeds", nodes=4)
async def zombie_seeds(stage: Stage) -> None:
    """Of a newcomer's seeds one is off, one another cluster's, one nobody's: the fourth lets it in.

    In Temporal (9987) seeds that had long gone, or been given to others, kept clusters from
    forming, or joined them to strangers. Here all seeds are asked, again and again, and only one
    that proves the cluster's secret counts (`MembershipService._join`).
    """
    world = stage.world
    await world.start_cluster(stage.nodes)
    stranger = _in_cluster(world.add_machine(join=()), _foreign(world))
    await world.start(stranger.name)
    await stage.faults.inject(PowerLoss(node="n0"))
    seeds = (world.machines["n0"].ip, stranger.ip, "10.77.0.1", world.machines["n3"].ip)
    newcomer = world.add_machine(join=tuple(Address(ip, PORT) for ip in seeds)).name
    await world.start(newcomer)
    await _see(world, {"n1", "n2", "n3", newcomer}, within_s=15.0)
    await _see(world, {stranger.name}, within_s=1.0)


@scenario("mimir-6187-two-clusters-merged", nodes=3)
async def two_clusters_merged(stage: Stage) -> None:
    """One cluster's node takes an address of another's, and has its seeds: they stay two.

    In Mimir (6187) a reused address was enough for two rings to become one. Here nobody is heard
    who does not know the cluster's secret (`Cluster.open`, the handshake's MAC), nor with a secret
    that a copied file brought, who names another cluster (`MembershipService._answer_open`).
    """
    world = stage.world
    await world.start_cluster(stage.nodes)
    foreign = _foreign(world)
    first = _in_cluster(world.add_machine(join=()), foreign)
    await world.start(first.name)
    await stage.faults.inject(Kill(node="n2"))
    # The others go on calling n2, and the newcomer, who is there now, calls them.
    ours = tuple(Address(world.machines[name].ip, PORT) for name in ("n0", "n1"))
    home = world.machines["n2"].config.listen
    reused = _in_cluster(
        world.add_machine(join=(Address(first.ip, PORT), *ours), listen=home), foreign
    )
    reused.ip = world.machines["n2"].ip
    copied = world.add_machine(join=ours)
    _in_cluster(copied, replace(copied.cluster, cluster_id=b"another1"))
    await world.start(reused.name)
    world.spawn(world.start, copied.name)
    clusters = ({"n0", "n1"}, {first.name, reused.name})
    for members in clusters:
        await _see(world, members, within_s=20.0)
    for _ in range(20):
        await trio.sleep(1.0)
        for members in clusters:
            for name in sorted(members):
                if strangers := world.alive_on(name) - members:
                    world.report(f"{name} takes {sorted(strangers)} in, of another cluster")
                    return
    assert world.node(reused.name).metrics.value("datagrams_unsealed"), "nobody called for n2"


def _cluster_of(file: ClusterFile) -> Cluster:
    return Cluster(file.cluster_id, file.secrets)


def _foreign(world: World) -> Cluster:
    return cluster_from_secret(world.streams.named("foreign").randbytes(SECRET_BYTES))


def _in_cluster(machine: Machine, cluster: Cluster) -> Machine:
    machine.cluster = cluster
    return machine


async def _see(world: World, members: Iterable[str], within_s: float) -> None:
    wanted = set(members)
    names = " and ".join(sorted(wanted))
    await world.wait_until(
        f"{names} see nobody else",
        lambda: all(world.alive_on(name) == wanted for name in sorted(wanted)),
        within_s=within_s,
    )


def _is_prompt(world: World, verb: str, started: float) -> None:
    took_s = world.clock.now - started
    world.metrics[f"{verb} s"] = round(took_s, 3)
    if took_s > PROMPT_S:
        world.report(f"the {verb} took {took_s:.1f} s")
