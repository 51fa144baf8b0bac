"""What went wrong for others in the field, each failure named after its report.

The docstring tells what happened there and, as the remedy, what keeps it from happening here.
"""

from __future__ import annotations

from gossipcache.config import SwimConfig
from gossipcache.dht.membership.member import accuse
from sim.bare.scenario import bare_scenario
from sim.bare.stage import BareStage
from sim.faults import AddressChange, Isolation, Kill, Leave, PowerLoss, Restart
from sim.scenarios.convergence import rumour_of_death

_SHORT_MEMORY = SwimConfig(retain_dead_s=60.0)


@bare_scenario("memberlist-311-stale-dead", nodes=6)
def stale_dead(stage: BareStage) -> None:
    """Dead for good after a restart, since rumours name a higher incarnation than the new one.

    Remedy: a node that hears a record of its own key outbids it with the next boot epoch.
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(5)
    record, accusations = rumour_of_death(stage, world.machines["n3"])
    stage.inject(Kill(node="n3"))
    stage.run_until("all miss n3", lambda: len(world.missed_by("n3")) == stage.nodes - 1, 10.0)
    world.machines["n3"].wall_skew_s = -86_400.0
    stage.inject(Restart(node="n3"))
    for name in world.up():
        world.machines[name].membership.absorb([record], accusations)
    stage.metrics["back after s"] = stage.run_until("all see n3", world.views_agree, 30.0)


@bare_scenario("memberlist-222-never-rejoins", nodes=6)
def never_rejoins(stage: BareStage) -> None:
    """A node that was cut off longer than it took to bury all never came back by itself.

    Remedy: the dead and the seeds are tried again for as long as they are listed.
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(5)
    stage.inject(Isolation(node="n5", for_s=300.0))
    stage.run(299)
    if world.alive_on("n5") != {"n5"} or "n5" in world.alive_on("n0"):
        stage.report("the sides do not miss each other after five minutes")
    stage.run(1)
    stage.metrics["back after s"] = stage.run_until("one view", world.views_agree, 30.0)


@bare_scenario("memberlist-140-rejoin-after-leave", nodes=6)
def rejoin_after_leave(stage: BareStage) -> None:
    """A node that had left could not join again: the others knew it as gone.

    Remedy: a process starts at an incarnation above all of its earlier ones.
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(5)
    stage.inject(Leave(node="n4"))
    stage.run_until("n4 is down", lambda: not world.machines["n4"].is_up, 5.0)
    stage.run_until("all miss n4", lambda: len(world.missed_by("n4")) == stage.nodes - 1, 5.0)
    stage.inject(Restart(node="n4"))
    stage.metrics["back after s"] = stage.run_until("all see n4", world.views_agree, 10.0)


@bare_scenario("cortex-2130-same-name-new-address", nodes=6)
def same_name_new_address(stage: BareStage) -> None:
    """A node restarted at a new address, and the others kept to the old one.

    Remedy: the address is part of the signed record, and the newer record counts.
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(5)
    stage.inject(AddressChange(node="n3"))
    stage.run_until("one view", world.views_agree, 20.0)
    address = world.machines["n3"].host.address
    for name in world.up():
        known = world.member(name, "n3")
        if known is None or known.address != address:
            stage.report(f"{name} does not know the new address")


@bare_scenario("memberlist-243-cpu-at-scale", nodes=300)
def cpu_at_scale(stage: BareStage) -> None:
    """Processors were busy with gossip in a large cluster in which nothing happened.

    Remedy: a quiet node sends one ping and one ack an interval, whatever the number of nodes.
    """
    world, for_s = stage.world, 20.0
    world.grow(stage.nodes)
    stage.run(5)
    before = _datagrams(stage)
    stage.run(for_s)
    rate = (_datagrams(stage) - before) / for_s / stage.nodes
    stage.metrics["datagrams a node and second"] = round(rate, 2)
    if rate > 2.5:
        stage.report(f"a quiet node sends {rate:.1f} datagrams a second")


@bare_scenario("consul-5928-leave-storm", nodes=60)
def leave_storm(stage: BareStage) -> None:
    """When many left at once their goodbyes went round and round, and never ended.

    Remedy: an item is repeated some 4 log10 N times by each node, and only when it was news.
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(5)
    for name in world.up()[: stage.nodes // 3]:
        stage.inject(Leave(node=name))
    stage.metrics["one view after s"] = stage.run_until("one view", world.views_agree, 20.0)
    stage.run(20)
    left, before = len(world.up()), _datagrams(stage)
    stage.run(20)
    rate = (_datagrams(stage) - before) / 20 / left
    stage.metrics["datagrams a node and second, later"] = round(rate, 2)
    if rate > 2.5:
        stage.report(f"long after the goodbyes a node still sends {rate:.1f} datagrams a second")


@bare_scenario("serf-627-isolated-node", nodes=6)
def isolated_node(stage: BareStage) -> None:
    """A node that was alone went on to list the others as alive.

    Remedy: suspicions that nobody can confirm end too.
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(5)
    stage.inject(Isolation(node="n5", for_s=300.0))
    took = stage.run_until(
        "n5 sees that it is alone", lambda: world.alive_on("n5") == {"n5"}, 120.0
    )
    stage.metrics["alone after s"] = round(took, 2)


@bare_scenario("foca-25-refutation-flood", nodes=8)
def refutation_flood(stage: BareStage) -> None:
    """One who kept accusing another made it refute without end, louder each time.

    Remedy: a node refutes at most once a gossip interval, and no one accuser makes a death.
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(5)
    liar, victim = world.machines["n1"], world.machines["n2"]
    before, datagrams = world.metrics.value("gossip_refutations"), _datagrams(stage)
    for _ in range(1000):
        me = victim.membership.core.me
        lie = accuse(liar.identity, world.cluster_id, me.node_id, me.incarnation, "dead")
        for name in ("n0", "n2", "n3"):
            world.machines[name].membership.absorb([], [lie])
        stage.run(0.02)
        if world.missed_by("n2"):
            stage.report("one liar made the others bury a member")
            return
    rate = (world.metrics.value("gossip_refutations") - before) / 20
    stage.metrics["refutations a second"] = round(rate, 2)
    stage.metrics["datagrams a node and second"] = (
        (_datagrams(stage) - datagrams) / 20 / stage.nodes
    )
    if rate > 6:
        stage.report(f"{rate:.0f} refutations a second")


@bare_scenario("foca-19-dead-forgotten", nodes=8, swim=_SHORT_MEMORY)
def dead_forgotten(stage: BareStage) -> None:
    """The dead were forgotten by some, learnt anew from others, and listed for ever.

    Remedy: they are kept for a time, then dropped; a push/pull brings nobody the dead it forgot.
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(5)
    for name in ("n5", "n6", "n7"):
        stage.inject(PowerLoss(node=name))
    stage.run_until("all miss them", world.views_agree, 30.0)
    stage.run(40)
    if any(len(world.machines[name].membership.core.table) != 8 for name in world.up()):
        stage.report("the dead were forgotten too early")
    stage.run(60)
    for name in world.up():
        listed = len(world.machines[name].membership.core.table)
        if listed != stage.nodes - 3:
            stage.report(f"{name} still lists {listed} members")


@bare_scenario("ringpop-143-perpetual-sync", nodes=20)
def perpetual_sync(stage: BareStage) -> None:
    """Nodes went on to send each other their whole views after nothing had changed for long.

    Remedy: pings compare digests; a push/pull is for views that differ, and makes them equal.
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(5)
    for name in ("n7", "n8"):
        stage.inject(Kill(node=name))
    stage.run(10)
    for name in ("n7", "n8"):
        stage.inject(Restart(node=name))
    stage.run_until("one view", world.views_agree, 20.0)
    stage.run(60)
    before = world.metrics.value("syncs_done")
    stage.run(60)
    stage.metrics["push/pulls in a quiet minute"] = done = (
        world.metrics.value("syncs_done") - before
    )
    if done > stage.nodes / 4:
        stage.report(f"{done} push/pulls in a minute in which nothing changed")


@bare_scenario("olric-243-start-split", nodes=12)
def start_split(stage: BareStage) -> None:
    """Nodes that started at the same time formed several clusters, for good.

    Remedy: a seed that is not a member yet is tried again and again, also by who has company.
    """
    world = stage.world
    machines = [world.add_machine() for _ in range(stage.nodes)]
    addresses = [machine.host.address for machine in machines]
    for number, machine in enumerate(machines):
        # Two halves that have only one seed in common, which is the last to start.
        machine.seeds = (addresses[number % 2], addresses[-1])
    machines[-1].seeds = ()
    for machine in machines[:-1]:
        world.start(machine.name)
    stage.run(20)
    if len(world.alive_on("n0")) > stage.nodes / 2:
        stage.report("the halves found each other before their common seed was there")
    world.start(machines[-1].name)
    stage.metrics["one view after s"] = stage.run_until("one cluster", world.views_agree, 30.0)


def _datagrams(stage: BareStage) -> int:
    return sum(machine.host.datagrams_sent for machine in stage.world.machines.values())
