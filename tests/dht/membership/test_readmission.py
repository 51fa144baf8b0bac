"""A node that is called dead again and again comes back later each time."""

from __future__ import annotations

from gossipcache.config import SwimConfig
from gossipcache.dht.membership.effects import MemberChanged
from gossipcache.dht.membership.member import accuse
from gossipcache.dht.membership.readmission import WINDOW_S, Docket, Readmission
from tests.dht.membership.harness import CLUSTER_ID, VirtualCluster, identity, node_id
from tests.dht.membership.test_swim import HERE, gossip


def test_the_first_return_is_free_and_each_further_one_takes_twice_as_long() -> None:
    readmission = Readmission(SwimConfig(readmission_s=30), now=0)
    returns = []
    for death in (1000.0, 1100.0, 1200.0, 1300.0):
        readmission.died(death)
        returns.append(readmission.return_at() - death)
    assert returns == [float("-inf"), 30, 60, 120]
    assert readmission.is_on_probation(1300 + WINDOW_S - 1)
    readmission.died(1300 + WINDOW_S)
    assert readmission.return_at() == float("-inf"), "what is long ago does not count"


def test_a_bad_link_keeps_a_node_out_but_not_for_ever() -> None:
    readmission = Readmission(SwimConfig(readmission_s=30), now=0)
    readmission.died(1000)
    readmission.died(1001)
    for second in range(1001, 1101):
        readmission.probed(second, answered=False)
    assert not readmission.is_steady
    assert readmission.return_at() == 1100 + 30
    for second in range(1101, 1131):
        readmission.probed(second, answered=True)
    assert readmission.is_steady
    for second in range(1131, 2000):
        readmission.probed(second, answered=False)
    assert readmission.return_at() == 1001 + WINDOW_S


def test_a_death_counts_from_the_return() -> None:
    readmission = Readmission(SwimConfig(readmission_s=30), now=0)
    readmission.died(1000)
    readmission.died(1001)
    readmission.returned(1001 + WINDOW_S)
    readmission.died(1010 + WINDOW_S)
    assert readmission.return_at() == 1010 + WINDOW_S + 30, "it was back for nine seconds only"


def test_a_long_time_without_probes_is_not_a_steady_one() -> None:
    readmission = Readmission(SwimConfig(readmission_s=30), now=0)
    readmission.died(90)
    readmission.died(100)
    for second in range(100, 131):
        readmission.probed(second, answered=False)
    readmission.probed(150, answered=True)
    assert readmission.is_steady
    assert readmission.return_at() == 150 + 30


def test_verdicts_count_once_and_only_on_what_is_being_judged() -> None:
    docket = Docket(5)
    assert not docket.is_news(4, node_id(1))
    assert not docket.add(5, node_id(1), needed=2)
    assert not docket.is_news(5, node_id(1))
    assert docket.add(5, node_id(2), needed=2)
    assert not docket.is_news(5, node_id(3)), "the case is closed"
    assert docket.is_news(6, node_id(1))


def test_a_link_that_flaps_makes_a_node_flap_once() -> None:
    cluster = VirtualCluster()
    cluster.grow(12)
    cluster.cut = lambda one, other: 3 in (one, other) and cluster.now % 40 < 20
    returns = 0
    was_out = False
    for _second in range(300):
        cluster.run(1)
        states = {cluster.state(number, 3) for number in range(12) if number != 3}
        returns += was_out and states == {"alive"}
        was_out = states == {"dead"} or (was_out and states != {"alive"})
    assert returns == 1
    cluster.cut = lambda _one, _other: False
    cluster.run_until(lambda: cluster.agree(range(12)), limit_s=120)


def test_a_restart_is_not_damped() -> None:
    cluster = VirtualCluster()
    cluster.grow(6)
    for _round in range(4):
        cluster.crash(3)
        cluster.run(10)
        assert cluster.state(0, 3) == "dead"
        cluster.start(3, join=[0])
        cluster.run_until(lambda: cluster.agree(range(6)), limit_s=3)


def test_a_partition_that_comes_again_heals_as_fast_as_the_first() -> None:
    cluster = VirtualCluster()
    cluster.grow(8)
    for _round in range(3):
        cluster.cut = lambda one, other: (one < 3) != (other < 3)
        cluster.run(60)
        cluster.cut = lambda _one, _other: False
        cluster.run_until(lambda: cluster.agree(range(8)), limit_s=15)


def test_a_node_that_reaches_nobody_does_not_refute_again_after_its_death() -> None:
    for death, told in ((False, True), (True, False)):
        cluster = VirtualCluster()
        cluster.grow(6)
        core = cluster.cores[3]
        if death:
            core.view.refutation.readmission.died(cluster.now)
        for later in range(40):
            core.view.refutation.readmission.probed(cluster.now + later, answered=False)
        before = core.me.incarnation
        doubt = accuse(identity(5), CLUSTER_ID, node_id(3), before, "suspect")
        core.receive(gossip(5, accusations=(doubt,)), HERE, cluster.now + 40)
        assert (core.me.incarnation > before) == told
        assert core.view.refutation.is_waiting != told


def test_one_liar_cannot_keep_a_node_from_refuting() -> None:
    cluster = VirtualCluster()
    cluster.grow(6)
    core = cluster.cores[3]
    core.view.refutation.readmission.died(cluster.now)
    cluster.log.clear()
    for _round in range(40):
        lie = accuse(identity(5), CLUSTER_ID, node_id(3), core.me.incarnation, "dead")
        for observer in (0, 1, 2, 3, 4):
            message = gossip(5, accusations=(lie,))
            cluster.act(observer, cluster.cores[observer].receive(message, HERE, cluster.now))
        cluster.run(1)
    dead = [e for _, _, e in cluster.log if isinstance(e, MemberChanged) and not e.member.is_live]
    assert dead == []
