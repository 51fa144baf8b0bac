"""What is said of members: false accusations, made-up records, goodbyes, new addresses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import trio

from gossipcache.dht.membership.member import Profile, accuse
from gossipcache.identity import Identity, Signed
from gossipcache.ids import Address
from gossipcache.messages.gossip import Accusation, SyncPush
from gossipcache.node.node import Node
from sim import check
from sim.faults import Kill, Leave, Partition, Pause, PowerLoss, Restart
from sim.machine import Machine
from sim.scenario import Stage, scenario
from sim.world import PIECE_BYTES, PORT, World

CID = "notes.txt"
SIZE = 5 * PIECE_BYTES + 3


@scenario("false-accuser")
async def false_accuser(stage: Stage) -> None:
    """A member calls another dead, in its own name and in those of others: nobody believes it."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    victim, liar, *others = world.machines
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_is_never_dead, world, victim, others)
        for said in (_in_its_own_name, _in_the_name_of_others, _of_an_earlier_incarnation):
            accusations = said(world, victim, liar, others)
            await _push(world, liar, others, SyncPush(records=(), accusations=accusations))
            await trio.sleep(3.0)
        nursery.cancel_scope.cancel()


@scenario("forged-records")
async def forged_records(stage: Stage) -> None:
    """A member makes up a record of another, with its own address: nobody takes it."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    victim, liar, *others = world.machines
    machine, forger = world.machines[victim], world.machines[liar]
    profile = Profile(
        machine.cluster.cluster_id, victim, Address(forger.ip, PORT), machine.config.roles
    )
    said = profile.sign(forger.identity, _incarnation(world, victim) + (1 << 20), "active").record
    forged = Signed(said.payload, machine.identity.public_key, said.signature)
    await _push(world, liar, others, SyncPush(records=(forged,), accusations=()))
    await trio.sleep(1.0)
    await world.import_content(victim, CID, SIZE)
    await world.export(others[0], CID)


@scenario("leave")
async def leave(stage: Stage) -> None:
    """A node leaves in order: all others know at once, and nobody thinks that it crashed."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await world.import_content("n0", CID, SIZE)
    others = [name for name in world.machines if name != "n1"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_is_never_dead, world, "n1", others)
        await stage.faults.inject(Leave(node="n1"))
        await world.wait_until(
            "all know that it left",
            lambda: all(_state(world, name, "n1") == "left" for name in others),
            within_s=2.0,
        )
        nursery.cancel_scope.cancel()
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
            suspected |= _state(world, name, "n1") == "suspect"
            if not _owns_keys(world, name, "n1"):
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
        lambda: not any(_owns_keys(world, name, "n1") for name in others),
        within_s=20.0,
    )


@scenario("moved-node")
async def moved_node(stage: Stage) -> None:
    """A node comes back at another address: all find it there, with what it holds."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    moving = list(world.machines)[-1]
    await world.import_content(moving, CID, SIZE)
    await stage.faults.inject(Kill(node=moving))
    machine = world.machines[moving]
    machine.ip = "10.1.0.1"
    machine.config = replace(machine.config, listen=Address(machine.ip, PORT))
    await stage.faults.inject(Restart(node=moving))
    await world.wait_views(stage.nodes, within_s=20.0)
    result = await world.export("n1", CID)
    check.only_from(world, result, (moving,))


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


def _in_its_own_name(
    world: World, victim: str, liar: str, _others: list[str]
) -> tuple[Accusation, ...]:
    return (_accusation(world, victim, world.machines[liar], _incarnation(world, victim)),)


def _in_the_name_of_others(
    world: World, victim: str, liar: str, others: list[str]
) -> tuple[Accusation, ...]:
    own = _accusation(world, victim, world.machines[liar], _incarnation(world, victim))
    return tuple(_said_by(own, world.machines[name].identity) for name in others[:2])


def _of_an_earlier_incarnation(
    world: World, victim: str, _liar: str, others: list[str]
) -> tuple[Accusation, ...]:
    """True words of two others, kept from a time before the victim refuted them."""
    earlier = _incarnation(world, victim) - 1
    return tuple(_accusation(world, victim, world.machines[name], earlier) for name in others[:2])


def _accusation(world: World, victim: str, accuser: Machine, incarnation: int) -> Accusation:
    subject = world.machines[victim].identity.node_id
    return accuse(accuser.identity, accuser.cluster.cluster_id, subject, incarnation, "dead")


def _said_by(accusation: Accusation, accuser: Identity) -> Accusation:
    """The same words and signature, in the mouth of another."""
    return Accusation(
        accusation.subject,
        accusation.incarnation,
        accusation.verdict,
        accuser.node_id,
        accusation.signature,
    )


async def _push(world: World, liar: str, to: Iterable[str], message: SyncPush) -> None:
    async def send(name: str, node: Node) -> None:
        await node.services.links.notify(world.machines[name].identity.node_id, message)

    for name in to:
        await world.on(liar, partial(send, name))


async def _is_never_dead(world: World, victim: str, viewers: list[str]) -> None:
    async def look(name: str) -> None:
        seen = -1
        while True:
            seen = await world.node(name).services.membership.wait_change(seen)
            if _state(world, name, victim) == "dead":
                world.report(f"{name} holds {victim} for dead, which is well")
                return

    async with trio.open_nursery() as nursery:
        for name in viewers:
            nursery.start_soon(look, name)


def _owns_keys(world: World, viewer: str, name: str) -> bool:
    return (
        world.machines[name].identity.node_id in world.node(viewer).services.membership.ring.members
    )


def _state(world: World, viewer: str, name: str) -> str:
    node_id = world.machines[name].identity.node_id
    member = world.node(viewer).services.membership.member(node_id)
    return "unknown" if member is None else member.state


def _incarnation(world: World, name: str) -> int:
    node = world.node(name)
    me = node.services.membership.member(node.node_id)
    return 0 if me is None else me.incarnation
