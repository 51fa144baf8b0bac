"""How soon all views are one: after a mass join, a partition, a restart of everybody."""

from __future__ import annotations

from gossipcache.dht.membership.member import accuse
from gossipcache.identity import Signed
from gossipcache.messages.gossip import Accusation
from sim.bare.machine import BareMachine
from sim.bare.scenario import bare_scenario
from sim.bare.stage import BareStage
from sim.faults import Kill, Partition, Restart


@bare_scenario("join-storm", nodes=100)
def join_storm(stage: BareStage) -> None:
    """All start at once and join through the same seed: how long until all see all."""
    world = stage.world
    for _ in range(stage.nodes):
        machine = world.add_machine()
        machine.seeds = machine.seeds[:1]
    dead: list[str] = []
    world.on_change.append(
        lambda _viewer, subject, member: dead.append(subject) if member.state == "dead" else None
    )
    for name in world.machines:
        world.start(name)
    took = stage.run_until("all see all", world.views_agree, 120.0)
    stage.run(30)
    stage.metrics["all see all after s"] = round(took, 2)
    stage.metrics["false deaths"] = len(dead)
    stage.metrics["bytes sent a node"] = round(stage.world.bytes_sent() / stage.nodes)
    limits = ((100, 3.0), (200, 8.0))
    within_s = next((limit_s for upto, limit_s in limits if stage.nodes <= upto), 120.0)
    if took > within_s:
        stage.report(f"all saw all after {took:.2f} s, not within {within_s:g} s")
    if dead:
        stage.report(f"{len(dead)} false deaths, the first: {dead[0]}")


@bare_scenario("long-partition", nodes=100)
def long_partition(stage: BareStage) -> None:
    """Two halves do not see each other for ten minutes: soon after, there is one view again."""
    world, for_s = stage.world, 600.0
    world.grow(stage.nodes)
    stage.run(5)
    names = world.up()
    island = set(world.streams.named("scenario").sample(names, len(names) // 2))
    struck = stage.inject(Partition(island=tuple(sorted(island)), for_s=for_s))
    stage.run(for_s - 1 - (stage.now - struck))
    for name in names:
        if world.alive_on(name) != (island if name in island else set(names) - island):
            stage.report(f"{name} does not see the split as it is")
    stage.run(1)
    took = stage.run_until("one view", world.views_agree, 120.0)
    stage.metrics["one view after s"] = round(took, 2)
    if took > 15.0:
        stage.report(f"one view after {took:.2f} s, not within 15 s")


@bare_scenario("stale-rumours", nodes=200)
def stale_rumours(stage: BareStage) -> None:
    """All restart, many with clocks set back, and old news of their deaths goes round."""
    world, rng = stage.world, stage.world.streams.named("scenario")
    for _ in range(stage.nodes):
        world.add_machine().wall_skew_s = rng.choice((0.0, 60.0, 3600.0))
    for name in world.machines:
        world.start(name)
    stage.run_until("all see all", world.views_agree, 60.0)
    rumours = [rumour_of_death(stage, machine) for machine in world.machines.values()]
    names = list(world.machines)
    for name in names:
        stage.inject(Kill(node=name))
    stage.run(rng.uniform(0, 2))
    gossips = set(rng.sample(names, max(2, len(names) // 10)))
    for name in names:
        world.machines[name].wall_skew_s = rng.choice((0.0, -60.0, -3600.0, -30 * 86_400.0))
        stage.inject(Restart(node=name))
        if name in gossips:
            heard = [rumours[place] for place in rng.sample(range(len(names)), len(names) // 2)]
            records = [record for record, _ in heard]
            accusations = [accusation for _, accusations in heard for accusation in accusations]
            world.machines[name].membership.absorb(records, accusations)
    took = stage.run_until("all alive everywhere", world.views_agree, 120.0)
    stage.metrics["all alive everywhere after s"] = round(took, 2)
    if took > 30.0:
        stage.report(f"all alive everywhere after {took:.2f} s, not within 30 s")


def rumour_of_death(stage: BareStage, of: BareMachine) -> tuple[Signed, list[Accusation]]:
    """The record of a running node, and what two others would say of its death."""
    rng, me = stage.world.streams.named("rumours"), of.membership.core.me
    others = [machine for machine in stage.world.machines.values() if machine is not of]
    return me.record, [
        accuse(judge.identity, stage.world.cluster_id, me.node_id, me.incarnation, "dead")
        for judge in rng.sample(others, 2)
    ]
