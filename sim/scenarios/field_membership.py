"""Failures that other systems met in the field, on bare nodes: members that are not believed.

Each scenario is named after the system and its issue; `docs/simulator.md` lists them all.
"""

from __future__ import annotations

from gossipcache.config import SwimConfig
from gossipcache.dht.membership.member import Member
from sim.bare.scenario import bare_scenario
from sim.bare.stage import BareStage
from sim.faults import (
    AddressChange,
    ClockSkew,
    FlashJoin,
    Isolation,
    Kill,
    Leave,
    Partition,
    Pause,
    PowerLoss,
    Restart,
    RollingRestart,
)

AWAY_S = 120.0
HOUR_S = 3600.0
SLOW = SwimConfig(
    probe_interval_s=60.0,
    probe_timeout_s=30.0,
    gossip_interval_s=12.0,
    sync_interval_s=1200.0,
    reconnect_interval_s=300.0,
)
"""Sixty times slower than the defaults, so that a day is short; the dead are kept as long."""


@bare_scenario("memberlist-311-stale-dead-after-mass-restart", nodes=8)
def stale_dead_after_mass_restart(stage: BareStage) -> None:
    """Clocks that ran ahead are set right, all but one restart, and that one says they are dead.

    In memberlist the rumours, which stand at higher incarnations than the new lives, made the
    cluster forget its members for good. Here a node that hears of an incarnation of its key above
    its own outbids it by a boot epoch (`Refutation.outbid`), and who holds somebody for dead tries
    him again (`AntiEntropy.reconnect_tick`).
    """
    world = stage.world
    world.grow(stage.nodes)
    *others, keeper = list(world.machines)
    for name in others:
        stage.inject(ClockSkew(node=name, by_s=HOUR_S, for_s=20.0))
    stage.run(30.0)
    assert world.views_agree(), "the nodes whose clocks are ahead see each other"
    struck = stage.inject(Isolation(node=keeper, for_s=AWAY_S))
    stage.metrics["alone after s"] = stage.run_until(
        "the one cut off holds the others for dead",
        lambda: all(world.state(keeper, name) == "dead" for name in others),
        within_s=AWAY_S,
    )
    stage.inject(RollingRestart(nodes=tuple(others), down_s=3.0, interval_s=0.2))
    stage.run(struck + AWAY_S - stage.now)
    stage.metrics["one view after s"] = stage.run_until("one view", world.views_agree, 30.0)


@bare_scenario("memberlist-222-never-rejoins-after-outage", nodes=7)
def never_rejoins_after_outage(stage: BareStage) -> None:
    """A node whose seeds are gone is cut off for two minutes, and comes back by itself.

    memberlist (222) and foca (15) drop whom they hold for dead, so that neither side calls the
    other again. Here the dead are remembered, and one of them is tried every few seconds
    (`AntiEntropy.reconnect_tick`).
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(2)
    *seeds, lonely = [*list(world.machines)[:3], list(world.machines)[-1]]
    for name in seeds:
        stage.inject(Kill(node=name))
    stage.run_until("the seeds are missed", world.views_agree, 20.0)
    stage.inject(Isolation(node=lonely, for_s=AWAY_S))
    stage.run(AWAY_S)
    if world.state(world.up()[0], lonely) != "dead":
        stage.report(f"{lonely} was away for two minutes, and is not missed")
    stage.metrics["one view after s"] = stage.run_until("one view", world.views_agree, 15.0)


@bare_scenario("memberlist-140-rejoin-after-leave", nodes=6)
def rejoin_after_leave(stage: BareStage) -> None:
    """Two nodes leave and come back, one of them with a clock that ran ahead before its goodbye.

    In memberlist (140, 217) who had left was not let in again until the others forgot him. Here
    a later life outranks the goodbye (`boot_incarnation`), and where the clock went back, the
    goodbye that the node is shown is outbid (`Refutation.outbid`).
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(2)
    gone = ("n3", "n4")
    stage.inject(ClockSkew(node="n4", by_s=HOUR_S, for_s=5.0))
    stage.run(10)
    for name in gone:
        stage.inject(Leave(node=name))
    stage.run_until(
        "both have left", lambda: len(world.up()) == stage.nodes - 2 and world.views_agree(), 5.0
    )
    for viewer in world.up():
        if {world.state(viewer, name) for name in gone} != {"left"}:
            stage.report(f"{viewer} takes a goodbye for a crash")
    for name in gone:
        stage.inject(Restart(node=name))
    stage.metrics["one view after s"] = stage.run_until("one view", world.views_agree, 10.0)


@bare_scenario("cortex-2130-same-name-new-address", nodes=6)
def same_name_new_address(stage: BareStage) -> None:
    """A node comes back under its name at a new address, and a stranger takes the old one.

    In Cortex (2130, memberlist 229) the name was refused at any other address until its old life
    had timed out. Here a member is its key, and the newest record that the key signed says where
    it is (`View.learn`); an address belongs to who gave it last (`MemberTable.put`).
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(2)
    left = world.machines["n4"].host.address
    stage.inject(AddressChange(node="n4"))
    stranger = world.add_machine().name
    world.start(stranger, address=left)
    stage.metrics["one view after s"] = stage.run_until("one view", world.views_agree, 5.0)
    for viewer in world.up():
        table = world.machines[viewer].membership.core.table
        for name in ("n4", stranger):
            host, member = world.machines[name].host, world.member(viewer, name)
            if member is None or member.address != host.address:
                stage.report(f"{viewer} looks for {name} where it is not")
            elif viewer != name and table.at(host.address) != member:
                stage.report(f"{viewer} takes {host.address} for somebody else's than {name}'s")


@bare_scenario("foca-19-dead-forgotten", nodes=5, limit_s=30 * HOUR_S, swim=SLOW)
def dead_forgotten(stage: BareStage) -> None:
    """A node is off for most of a day: all still know that it is dead, and a day later forget it.

    foca (19) forgot its dead after minutes, so that the next stale rumour brought them back.
    Here they are kept for `retain_dead_s`, 24 h (`View.bury`).
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(60.0)
    gone = f"n{stage.nodes - 1}"
    stage.inject(PowerLoss(node=gone))
    stage.run_until("it is missed", world.views_agree, within_s=HOUR_S, look_s=10.0)
    stage.run(23.5 * HOUR_S - stage.now)
    if any(world.state(viewer, gone) != "dead" for viewer in world.up()):
        stage.report(f"{gone}, which is off, is not remembered as dead for a day")
    stage.run(1.5 * HOUR_S)
    if any(world.member(viewer, gone) is not None for viewer in world.up()):
        stage.report(f"{gone} was off for more than a day, and is still listed")


@bare_scenario("foca-31-phantom-members", nodes=12)
def phantom_members(stage: BareStage) -> None:
    """Nodes come with new keys again and again, while one that knows them all for alive sleeps.

    With foca (30, 31) four hundred nodes that restarted under new identities were listed as six
    thousand: the forgotten dead came back by stale rumours. Here the dead are remembered and
    outrank a record of their incarnation (`View.learn`); a newcomer is not told of them at all
    (`sync.diff`).
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(2)
    buried: set[tuple[str, str]] = set()
    revived: set[str] = set()

    def look(viewer: str, name: str, member: Member) -> None:
        if member.state == "dead":
            buried.add((viewer, name))
        elif (viewer, name) in buried and not world.machines[name].is_up:
            revived.add(name)

    world.on_change.append(look)
    for _ in range(3):
        stage.inject(FlashJoin(count=stage.nodes, for_s=6.0))
        stage.run(5.0)
        struck = stage.inject(Pause(node="n5", for_s=12.0))
        stage.run(struck + 13.0 - stage.now)
    stage.run_until("one view", world.views_agree, 30.0)
    newcomer = world.add_machine().name
    world.start(newcomer)
    stage.run_until("the newcomer sees all", world.views_agree, 5.0)
    stage.run(20)
    listed = len(world.machines[newcomer].membership.core.table)
    stage.metrics["listed by a newcomer"] = listed
    if listed != stage.nodes + 1 or not world.views_agree():
        stage.report(f"a newcomer lists {listed} members, and {stage.nodes + 1} are there")
    if revived:
        stage.report(f"{len(revived)} members that died came back without a new life")


@bare_scenario("olric-243-split-at-start", nodes=12)
def split_at_start(stage: BareStage) -> None:
    """All start at once with three seeds, in halves that do not reach each other: one cluster.

    Olric (243, 254) became two clusters that never met: whoever found no seed at its start founded
    his own. Here a node with several seeds waits until another node has answered, and missing
    seeds are tried for ever; whom others called first joins through them
    (`AntiEntropy.reconnect_tick`).
    """
    world = stage.world
    names = [world.add_machine().name for _ in range(stage.nodes)]
    for name in names:
        world.machines[name].seeds = tuple(world.machines[each].host.address for each in names[:3])
    late, early = names[2], [name for name in names if name != names[2]]
    stage.inject(Partition(island=tuple(names[1::2]), for_s=6.0))
    for name in early:
        world.start(name)
    stage.run(6.0)

    def all_serve() -> bool:
        owners = [len(world.machines[name].membership.owners) for name in world.up()]
        return world.views_agree() and set(owners) == {len(world.up())}

    stage.metrics["all serve after s"] = stage.run_until("all serve", all_serve, 10.0)
    world.start(late)
    stage.run_until("the third seed serves too", all_serve, 10.0)


@bare_scenario("olric-253-common-seed-late", nodes=12)
def common_seed_late(stage: BareStage) -> None:
    """Two halves start whose only common seed comes last: they become one cluster through it.

    The same split (253, 258). Here a seed that is not a member yet is tried again and again, also
    by who has company (`AntiEntropy.reconnect_tick`).
    """
    world = stage.world
    machines = [world.add_machine() for _ in range(stage.nodes)]
    addresses = [machine.host.address for machine in machines]
    *early, late = machines
    for number, machine in enumerate(early):
        machine.seeds = (addresses[number % 2], addresses[-1])
    late.seeds = ()
    for machine in early:
        world.start(machine.name)
    stage.run(20)
    if len(world.alive_on("n0")) > stage.nodes / 2:
        stage.report("the halves found each other before their common seed was there")
    world.start(late.name)
    stage.metrics["one view after s"] = stage.run_until("one view", world.views_agree, 30.0)


@bare_scenario("al8n-157-dead-notice-without-incarnation", nodes=6)
def dead_notice_without_incarnation(stage: BareStage) -> None:
    """A node that slept through its death is told, and claims a higher incarnation at once.

    In al8n/memberlist (157) a notice of death about the node itself could be dropped without
    raising its incarnation, so that it stayed dead for the others. Here a ping to somebody who
    is held for dead carries the proof (`Courier.post`), and he refutes (`Refutation.refute`).
    """
    world = stage.world
    world.grow(stage.nodes)
    stage.run(2)
    before = _incarnation(stage, "n3")
    others = stage.nodes - 1
    struck = stage.inject(Pause(node="n3", for_s=40.0))
    stage.run_until("all miss it", lambda: len(world.missed_by("n3")) == others, within_s=39.0)
    stage.run(struck + 40.0 - stage.now)
    stage.metrics["one view after s"] = stage.run_until("one view", world.views_agree, 8.0)
    for viewer in world.up():
        member = world.member(viewer, "n3")
        if member is None or member.incarnation <= before:
            stage.report(f"on {viewer} n3 lives at an incarnation at which it died")


def _incarnation(stage: BareStage, name: str) -> int:
    return stage.world.machines[name].membership.core.me.incarnation
