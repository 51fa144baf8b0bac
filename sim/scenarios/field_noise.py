"""Failures that other systems met in the field, on bare nodes: more talk than there is to say.

Each scenario is named after the system and its issue; `docs/simulator.md` lists them all.
"""

from __future__ import annotations

import hashlib
from unittest import mock

from gossipcache.dht import ring
from gossipcache.dht.membership.member import accuse
from gossipcache.ids import NodeId, task_id_of
from sim.bare.scenario import bare_scenario
from sim.bare.stage import BareStage
from sim.faults import (
    ClonedKey,
    FlashJoin,
    Isolation,
    Kill,
    Leave,
    Partition,
    Pause,
    PowerLoss,
    Replay,
    Restart,
)

IDLE_DATAGRAMS = 2.5
"""A node and second: a ping, and the answer to one."""
QUIET_DATAGRAMS = 4.0
"""The same where there are dead, who are looked after."""
BUSY_DATAGRAMS = 12.0
BYTES_A_DEPARTURE = 4000.0
"""That a node sends about each member that goes: its news `retransmit_limit` times, and what
it takes to find out."""


@bare_scenario("memberlist-243-cost-at-scale", nodes=2500)
def cost_at_scale(stage: BareStage) -> None:
    """What a node does each second does not grow with the cluster, be it idle or one member dead.

    memberlist (243) burnt whole cores at 2,500 nodes. Here a node pings one member a second, views
    are compared by 8 bytes in each ping (`SwimCore._answer`), and an item of news is repeated
    O(log n) times (`retransmit_limit`).
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(3)
    before = _datagrams(stage)
    stage.run(5)
    idle = (_datagrams(stage) - before) / 5 / stage.nodes
    before = _datagrams(stage)
    stage.inject(Kill(node="n1"))
    stage.run(5)
    busy = (_datagrams(stage) - before) / 5 / stage.nodes
    stage.metrics |= {"idle datagrams a node-second": idle, "busy": busy}
    if idle > IDLE_DATAGRAMS or busy > BUSY_DATAGRAMS:
        stage.report(f"a node sends {idle:.1f} datagrams a second, {busy:.1f} when one died")
    if len(world.missed_by("n1")) < stage.nodes - 1:
        stage.report("not all miss the dead node after five seconds")


@bare_scenario("consul-5928-gossip-storm", nodes=60)
def gossip_storm(stage: BareStage) -> None:
    """A third of the nodes leaves, a sixth loses its power, all at once: then it is quiet again.

    In Consul (5928, 5567, 8343) goodbyes were sent on for ever, by nodes that had told each other
    before. Here what a node holds already is no news (`View.learn`), and news is dropped after
    `retransmit_limit` repetitions (`BroadcastQueue.take`).
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(5)
    names = list(world.machines)
    leaving, dying = names[: stage.nodes // 3], names[-(stage.nodes // 6) :]
    before = world.bytes_sent()
    for name in leaving:
        stage.inject(Leave(node=name))
    for name in dying:
        stage.inject(PowerLoss(node=name))
    gone = len(leaving) + len(dying)
    left = stage.nodes - gone
    stage.metrics["one view after s"] = stage.run_until(
        "all miss all of them", lambda: len(world.up()) == left and world.views_agree(), 40.0
    )
    stage.run(10)
    spent = (world.bytes_sent() - before) / stage.nodes / gone
    queued = sum(world.machines[name].membership.core.view.queue.count for name in world.up())
    before, sent = world.bytes_sent(), _datagrams(stage)
    stage.run(20)
    idle = (_datagrams(stage) - sent) / 20 / left
    stage.metrics["bytes a node and departure"] = round(spent)
    stage.metrics["datagrams a node-second afterwards"] = round(idle, 2)
    if queued or idle > QUIET_DATAGRAMS:
        stage.report(f"{queued} items of news still go round, {idle:.1f} datagrams a node-second")
    if spent > BYTES_A_DEPARTURE:
        stage.report(f"{spent:.0f} bytes a node for each member that went")


@bare_scenario("consul-7396-cloned-key", nodes=12)
def cloned_key(stage: BareStage) -> None:
    """A machine is copied with its key, and both copies run: the cluster stays usable.

    In Consul and Serf (7396, 4879, serf 115) two nodes with one name or id outbid each other
    without pause. Here a key outbids itself five times a second at the most (`Refutation.outbid`),
    and all others are as well as ever; when one copy ends, so does the conflict.
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(2)
    lost: list[str] = []
    world.on_change.append(
        lambda viewer, name, member: (
            None if name == "n4" or member.is_live else lost.append(f"{name} on {viewer}")
        )
    )
    before = world.bytes_sent()
    for_s = 30.0
    stage.inject(ClonedKey(node="n4", for_s=for_s))
    stage.run(for_s)
    rate = world.metrics.value("gossip_refutations") / for_s
    spent = (world.bytes_sent() - before) / for_s / stage.nodes
    stage.metrics |= {"refutations a second": round(rate, 2), "bytes a node-second": round(spent)}
    if rate > 2:
        stage.report(f"two nodes with one key refute {rate:.0f} times a second")
    if lost:
        stage.report(f"a conflict about n4 cost {len(lost)} others, first {lost[0]}")
    stage.metrics["one view after s"] = stage.run_until("one view", world.views_agree, 20.0)


@bare_scenario("foca-25-refutation-flood", nodes=16)
def refutation_flood(stage: BareStage) -> None:
    """A node wakes up amid rumours of its death, of which late copies keep coming: it refutes once.

    In foca (25) each copy of an old rumour drew another refutation, and that another rumour. Here
    an accusation counts against the one incarnation that it names (`View.accused`), so that one
    refutation answers them all, whenever they arrive.
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(2)
    for name in list(world.machines)[:4]:
        stage.inject(Replay(node=name, probability=1.0, after_s=7.0, for_s=40.0))
    struck = stage.inject(Pause(node="n9", for_s=6.0))
    stage.run(struck + 6.0 - stage.now)
    stage.metrics["one view after s"] = stage.run_until("one view", world.views_agree, 10.0)
    stage.run(40)
    refuted = world.metrics.value("gossip_refutations")
    stage.metrics["refutations"] = refuted
    if not 1 <= refuted <= 3:
        stage.report(f"{refuted} refutations of one spell of silence")
    if not world.views_agree():
        stage.report("late rumours changed a view")


@bare_scenario("foca-25-tireless-accuser", nodes=8)
def tireless_accuser(stage: BareStage) -> None:
    """A member accuses another of each of its lives: that one refutes, but not ever faster.

    The same flood (25), with somebody who feeds it. Here a node refutes at most once a gossip
    interval (`Refutation.accused`), and no one accuser makes a death (`Suspicion.is_proven`).
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(5)
    liar, victim = world.machines["n1"], world.machines["n2"]
    for_s, step_s = 20.0, 0.02
    for _ in range(int(for_s / step_s)):
        me = victim.membership.core.me
        lie = accuse(liar.identity, world.cluster_id, me.node_id, me.incarnation, "dead")
        for name in ("n0", "n2", "n3"):
            world.machines[name].membership.absorb([], [lie])
        stage.run(step_s)
        if world.missed_by("n2"):
            stage.report("one liar made the others bury a member")
            return
    rate = world.metrics.value("gossip_refutations") / for_s
    stage.metrics["refutations a second"] = round(rate, 2)
    if rate > 6:
        stage.report(f"{rate:.0f} refutations a second")


@bare_scenario("ringpop-143-perpetual-full-sync", nodes=16)
def perpetual_full_sync(stage: BareStage) -> None:
    """Views agree, but some remember dead that others never met: nobody compares them again.

    In Ringpop (143, 151) nodes whose memories of the dead differed sent each other their whole
    views for ever. Here the digest of a view takes in the living alone (`MemberTable.put`), and
    pings compare it, so that push/pulls end when these agree.
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(2)
    stage.inject(Partition(island=("n0", "n1", "n2"), for_s=30.0))
    stage.run(1)
    stage.inject(FlashJoin(count=4, for_s=5.0))
    stage.inject(PowerLoss(node="n9"))
    stage.run(45)
    newcomer = world.add_machine().name
    world.start(newcomer)
    stage.metrics["one view after s"] = stage.run_until("one view", world.views_agree, 20.0)
    stage.run(10)
    before = world.metrics.value("syncs_done")
    stage.run(60)
    syncs = world.metrics.value("syncs_done") - before
    listed = {len(world.machines[name].membership.core.table) for name in world.up()}
    assert len(listed) > 1, "all remember the same dead, so that this shows nothing"
    stage.metrics["push/pulls a node and minute"] = syncs / len(world.up())
    if syncs > len(world.up()) // 2:
        stage.report(f"{syncs} push/pulls in a minute in which nothing happened")


@bare_scenario("ringpop-go-196-hash-collision", nodes=10)
def hash_collision(stage: BareStage) -> None:
    """Many points of the ring coincide, and views grow in different orders: all name one owner.

    In ringpop-go (196) of two nodes with one hash each stood on the rings of those who met it
    first. Here points are ordered by (hash, node id), however a ring came about
    (`_Points._place`).
    """
    world = stage.world
    with mock.patch.object(ring, "_hashes_of", _few_hashes_of):
        world.grow(stage.nodes)
        # Asked after each change, so that each ring is made from the one before.
        for name in ("n3", "n7", "n5"):
            stage.inject(Kill(node=name))
            stage.run(5)
            _owners(stage)
        for name in ("n7", "n3", "n5"):
            stage.inject(Restart(node=name))
            stage.run(2)
            _owners(stage)
        world.start(world.add_machine().name)
        stage.run_until("one view", world.views_agree, 20.0)
        answers = _owners(stage)
        world.witness.at_the_end()
    if len(answers) > 1:
        stage.report(f"one view, and {len(answers)} opinions about who owns what")


@bare_scenario("serf-627-isolated-node", nodes=30)
def isolated_node(stage: BareStage) -> None:
    """A node is cut off from everybody: it does not go on to hold the others for alive.

    In Serf (627) the isolated node kept showing its old members as alive. Here suspicions that
    nobody can confirm end too (`View.conclude`), and who has heard nobody at all for a minute looks
    at many at once instead of at one after another, ever more slowly (`SwimCore._probe_tick`).
    """
    world, for_s = stage.world, 240.0
    world.grow(stage.nodes)
    stage.run(2)
    struck = stage.inject(Isolation(node="n5", for_s=for_s))
    stage.metrics["none alive after s"] = stage.run_until(
        "the isolated node sees nobody alive", lambda: world.alive_on("n5") == {"n5"}, for_s
    )
    stage.run(struck + for_s - stage.now)
    stage.metrics["one view after s"] = stage.run_until("one view", world.views_agree, 15.0)


def _owners(stage: BareStage) -> set[tuple[tuple[NodeId, ...], ...]]:
    """All opinions about who keeps some tasks."""
    tasks = [task_id_of(f"task-{number}", "") for number in range(300)]
    machines = [stage.world.machines[name] for name in stage.world.up()]
    return {tuple(each.membership.ring.keepers(task, 3) for task in tasks) for each in machines}


def _few_hashes_of(node: NodeId) -> list[int]:
    """Points like those of a ring, but on 1,024 places only; each node once at a place."""
    drawn = hashlib.shake_256(node).digest(2 * ring.POINTS_PER_NODE)
    places = {int.from_bytes(drawn[at : at + 2], "big") >> 6 for at in range(0, len(drawn), 2)}
    return [place << 54 for place in sorted(places)]


def _datagrams(stage: BareStage) -> int:
    return sum(machine.host.datagrams_sent for machine in stage.world.machines.values())
