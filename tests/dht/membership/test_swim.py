"""Membership as transcripts: nodes on virtual time join, die, refute, leave and come back."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipcache.cluster import SEAL_OVERHEAD_BYTES
from gossipcache.dht.membership.effects import Effect, MemberChanged, RequestSync, SendDatagram
from gossipcache.dht.membership.member import Profile, accuse
from gossipcache.identity import Signed
from gossipcache.ids import Address
from gossipcache.messages.gossip import Accusation, Ack, Gossip, Ping
from tests.dht.membership.harness import (
    CLUSTER_ID,
    VirtualCluster,
    config,
    identity,
    node_id,
    profile,
)

HERE = Address("10.0.0.9", 9)


def gossip(sender: int, *, records: tuple[Signed, ...] = (), **fields: object) -> Gossip:
    return Gossip(cluster_id=CLUSTER_ID, sender=node_id(sender), records=records, **fields)  # type: ignore[arg-type]


def test_a_lone_node_is_alive_and_sends_nothing() -> None:
    cluster = VirtualCluster()
    cluster.start(0)
    cluster.run(60)
    assert cluster.live(0) == {node_id(0)}
    assert cluster.datagrams == 0


def test_everybody_sees_everybody() -> None:
    cluster = VirtualCluster()
    for number in range(20):
        cluster.start(number, join=[0] if number else [])
    assert cluster.run_until(lambda: cluster.agree(range(20)), limit_s=5) < 2


def test_a_mass_join_through_one_seed_takes_seconds() -> None:
    cluster = VirtualCluster()
    for number in range(60):
        cluster.start(number, join=[0] if number else [])
    assert cluster.run_until(lambda: cluster.agree(range(60)), limit_s=5) < 3


def test_a_chain_of_seeds_is_enough_and_a_late_seed_is_awaited() -> None:
    cluster = VirtualCluster()
    for number in range(1, 6):
        cluster.start(number, join=[number - 1])
    cluster.run(3)
    assert not cluster.agree(range(1, 6)) or 0 not in cluster.cores
    cluster.start(0)
    cluster.run_until(lambda: cluster.agree(range(6)), limit_s=20)


def test_views_stay_as_they_are_when_nothing_happens_even_with_loss() -> None:
    cluster = VirtualCluster(loss=0.05)
    cluster.grow(10)
    cluster.log.clear()
    cluster.run(300)
    assert cluster.agree(range(10))
    buried = [e for _, _, e in cluster.log if isinstance(e, MemberChanged) and not e.member.is_live]
    assert buried == []


def test_who_hears_nobody_for_a_minute_looks_at_many_at_once() -> None:
    cluster = VirtualCluster()
    cluster.grow(16)
    cluster.cut = lambda one, other: 0 in (one, other)
    cluster.run(60)
    cluster.log.clear()
    cluster.run(20)
    pings = [
        effect.message.target
        for _, number, effect in cluster.log
        if number == 0 and isinstance(effect, SendDatagram) and isinstance(effect.message, Ping)
    ]
    assert len(set(pings)) >= 6


def test_a_killed_process_is_dead_for_all_within_seconds() -> None:
    cluster = VirtualCluster()
    cluster.grow(10)
    cluster.crash(7)
    alive = [number for number in range(10) if number != 7]
    assert cluster.run_until(lambda: cluster.agree(alive), limit_s=20) < 4
    assert {cluster.state(number, 7) for number in alive} == {"dead"}


def test_one_of_two_is_found_dead() -> None:
    cluster = VirtualCluster()
    cluster.grow(2)
    cluster.crash(1)
    assert cluster.run_until(lambda: cluster.state(0, 1) == "dead", limit_s=20) < 4


def test_a_machine_that_vanished_is_dead_after_the_suspicion() -> None:
    cluster = VirtualCluster()
    cluster.grow(10)
    cluster.cut = lambda one, other: (one == 7) != (other == 7)
    took = cluster.run_until(lambda: cluster.agree(set(range(10)) - {7}), limit_s=30)
    assert 3 <= took < 13


def test_a_refused_connection_starts_the_suspicion_and_the_probes_at_once() -> None:
    cluster = VirtualCluster()
    cluster.grow(5)
    effects = cluster.cores[0].report_refused(node_id(3), cluster.now)
    pings = [e for e in effects if isinstance(e, SendDatagram) and isinstance(e.message, Ping)]
    assert [ping.address for ping in pings] == [profile(3).address]
    assert cluster.state(0, 3) == "suspect"
    assert pings[0].message.accusations[0].accuser == node_id(0)
    cluster.act(0, effects)
    cluster.run(1)
    assert cluster.agree(range(5)), "it lives, and refuted"
    assert cluster.state(0, 3) == "alive"


def test_a_refused_datagram_is_a_reason_to_look_not_an_accusation() -> None:
    cluster = VirtualCluster()
    cluster.grow(5)
    effects = cluster.cores[0].address_refused(profile(3).address, cluster.now)
    assert any(isinstance(effect, SendDatagram) for effect in effects)
    assert cluster.state(0, 3) == "alive"


@pytest.mark.parametrize("seed", range(6))
def test_helpers_that_are_refused_too_accuse_at_once(seed: int) -> None:
    cluster = VirtualCluster(seed=seed)
    cluster.grow(8)
    cluster.crash(3)
    cluster.act(0, cluster.cores[0].address_refused(profile(3).address, cluster.now))
    cluster.run(cluster.config.gossip_interval_s + 0.05)
    accusers = {one.accuser for one in cluster.cores[0].view.proofs(node_id(3))}
    assert node_id(0) in accusers
    assert len(accusers) >= 3
    cluster.run(1.5)
    assert cluster.agree(set(range(8)) - {3})


def test_a_node_with_only_its_datagrams_blocked_survives() -> None:
    cluster = VirtualCluster()
    cluster.grow(8)
    cluster.firewalled = {3}
    cluster.log.clear()
    cluster.run(120)
    dead = [e for _, _, e in cluster.log if isinstance(e, MemberChanged) and not e.member.is_live]
    assert dead == []


def test_a_process_that_is_back_within_the_grace_is_never_called_dead() -> None:
    cluster = VirtualCluster()
    cluster.grow(8)
    cluster.log.clear()
    cluster.crash(3)
    cluster.act(0, cluster.cores[0].address_refused(profile(3).address, cluster.now))
    cluster.run(0.05)
    cluster.start(3, join=[1])
    cluster.run(30)
    assert cluster.agree(range(8))
    dead = [e for _, _, e in cluster.log if isinstance(e, MemberChanged) and not e.member.is_live]
    assert dead == []


def test_a_paused_node_neither_dies_for_good_nor_buries_the_others() -> None:
    cluster = VirtualCluster()
    cluster.grow(6)
    cluster.pause(2)
    cluster.run(30)
    assert cluster.state(0, 2) == "dead"
    cluster.log.clear()
    cluster.resume(2)
    cluster.run_until(lambda: cluster.agree(range(6)), limit_s=15)
    buried_by_2 = [
        e for _, n, e in cluster.log
        if n == 2 and isinstance(e, MemberChanged) and e.member.state == "dead"
    ]  # fmt: skip
    assert buried_by_2 == []


def test_leaving_is_seen_as_left_not_as_death_and_coming_back_works() -> None:
    cluster = VirtualCluster()
    cluster.grow(5)
    cluster.act(4, cluster.cores[4].enter("left", cluster.now))
    cluster.run_until(lambda: cluster.cores[4].is_flushed, limit_s=3)
    cluster.crash(4)
    cluster.run(5)
    assert {cluster.state(number, 4) for number in range(4)} == {"left"}
    cluster.run(60)
    assert {cluster.state(number, 4) for number in range(4)} == {"left"}
    cluster.start(4, join=[1])
    cluster.run_until(lambda: cluster.agree(range(5)), limit_s=10)


@pytest.mark.parametrize("halves", [((0, 1), (2, 3)), ((0,), (1, 2, 3, 4, 5))])
def test_a_partition_longer_than_the_suspicion_heals_by_itself(
    halves: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    cluster = VirtualCluster()
    cluster.grow(sum(map(len, halves)))
    cluster.cut = lambda one, other: (one in halves[0]) != (other in halves[0])
    cluster.run(120)
    assert cluster.agree(halves[0])
    assert cluster.agree(halves[1])
    cluster.cut = lambda _one, _other: False
    cluster.run_until(lambda: cluster.agree(range(len(cluster.cores))), limit_s=20)


def test_one_cut_pair_is_bridged_by_the_others() -> None:
    cluster = VirtualCluster()
    cluster.grow(6)
    cluster.cut = lambda one, other: {one, other} == {0, 1}
    cluster.run(120)
    assert cluster.agree(range(6))


def test_a_restart_with_the_same_key_and_a_new_address_replaces_the_old() -> None:
    cluster = VirtualCluster()
    cluster.grow(4)
    cluster.crash(3)
    cluster.run(0.5)
    cluster.start(3, join=[0], port=7999)
    cluster.run_until(lambda: cluster.agree(range(4)), limit_s=10)
    cluster.run(30)
    assert cluster.agree(range(4))
    for core in cluster.cores.values():
        member = core.table.get(node_id(3))
        assert member is not None
        assert member.address.port == 7999


def test_a_restart_whose_clock_went_back_outbids_its_earlier_life() -> None:
    cluster = VirtualCluster()
    cluster.grow(4)
    before = cluster.cores[3].me.incarnation
    cluster.crash(3)
    cluster.run(30)
    assert cluster.state(0, 3) == "dead"
    cluster.start(3, join=[0], wall=-100_000)
    cluster.run_until(lambda: cluster.agree(range(4)), limit_s=10)
    assert cluster.cores[3].me.incarnation > before


def test_everybody_restarts_at_once_and_finds_each_other() -> None:
    cluster = VirtualCluster()
    cluster.grow(6)
    for number in range(6):
        cluster.crash(number)
    for number in range(6):
        cluster.start(number, join=[(number + 1) % 6], wall=-1000 * number)
    cluster.run_until(lambda: cluster.agree(range(6)), limit_s=10)


def test_few_merge_views_with_one_that_comes_back_alone() -> None:
    cluster = VirtualCluster()
    cluster.grow(60)
    cluster.crash(3)
    cluster.run_until(lambda: all(cluster.state(one, 3) == "dead" for one in range(4, 60)), 20)
    cluster.log.clear()
    cluster.start(3, join=[0])
    cluster.run_until(lambda: cluster.agree(range(60)), limit_s=3)
    merging = {one for _, one, e in cluster.log if e == RequestSync(node_id(3))}
    assert 0 < len(merging) < 30


def test_the_dead_are_forgotten_in_time_and_stay_forgotten() -> None:
    cluster = VirtualCluster(config=config(retain_dead_s=100.0))
    cluster.grow(4)
    cluster.crash(3)
    cluster.run(90)
    assert cluster.state(0, 3) == "dead"
    cluster.run(30)
    assert [cluster.state(number, 3) for number in range(3)] == [None, None, None]
    cluster.run(200)
    assert [cluster.state(number, 3) for number in range(3)] == [None, None, None]


def test_datagrams_stay_below_the_limit_whatever_they_carry() -> None:
    cluster = VirtualCluster(loss=0.2)
    long_name = Profile(
        CLUSTER_ID, "ñ" * 100, Address("2001:db8:1111:2222:3333:4444:5555:6666", 65535), frozenset()
    )
    member = long_name.sign(identity(99), 2**62, "joining")
    for number in range(12):
        cluster.start(number, join=[0] if number else [])
        cluster.act(number, cluster.cores[number].absorb([member.record], [], cluster.now))
    for number in range(4):
        cluster.run(3)
        cluster.crash(number)
    cluster.run(30)
    assert 800 < cluster.largest_datagram + SEAL_OVERHEAD_BYTES <= 1400


def test_a_quiet_cluster_is_quiet() -> None:
    cluster = VirtualCluster()
    cluster.grow(10)
    cluster.run(30)
    cluster.datagrams = 0
    cluster.run(60)
    assert cluster.datagrams <= 60 * 10 * 2 * 1.2, "one ping and one ack a node and second"


# Lies.


def test_a_forged_record_is_dropped_and_counted() -> None:
    cluster = VirtualCluster()
    cluster.grow(3)
    core = cluster.cores[0]
    genuine = profile(2, port=6666).sign(identity(1), core.me.incarnation + 99, "active").record
    forged = Signed(genuine.payload, identity(2).public_key, genuine.signature)
    cluster.act(0, core.receive(gossip(1, records=(forged,)), HERE, cluster.now))
    assert cluster.metrics.value("gossip_forged") == 1
    held = core.table.get(node_id(2))
    assert held is not None
    assert held.address == profile(2).address


def test_a_datagram_that_is_sent_again_from_elsewhere_draws_nothing_there() -> None:
    cluster = VirtualCluster()
    cluster.grow(3)
    cluster.run(10)
    core = cluster.cores[0]
    asker = core.table.get(node_id(1))
    assert asker is not None
    ping = Ping(
        cluster_id=CLUSTER_ID,
        sender=node_id(1),
        sequence=7,
        target=node_id(0),
        incarnation=asker.incarnation,
        view=core.table.short_digest(),
    )
    (answer,) = core.receive(ping, HERE, cluster.now)
    assert isinstance(answer, SendDatagram)
    assert isinstance(answer.message, Ack)
    assert answer.address == asker.address


def test_a_stranger_is_answered_but_no_news_is_spent_on_it() -> None:
    cluster = VirtualCluster()
    cluster.grow(3)
    core = cluster.cores[0]
    core.enter("joining", cluster.now)
    ping = Ping(
        cluster_id=CLUSTER_ID,
        sender=node_id(9),
        sequence=7,
        target=node_id(0),
        incarnation=1,
        view=bytes(8),
    )
    for _ in range(100):
        answer = core.receive(ping, HERE, cluster.now)[0]
        assert isinstance(answer, SendDatagram)
        assert answer.address == HERE
        assert not answer.message.records
    assert core.view.queue.has_record_of(node_id(0))


def test_a_record_or_datagram_of_another_cluster_is_dropped() -> None:
    cluster = VirtualCluster()
    cluster.grow(2)
    core = cluster.cores[0]
    stranger = Profile(b"another!", "x", HERE, frozenset()).sign(identity(9), 1, "active")
    core.receive(gossip(1, records=(stranger.record,)), HERE, cluster.now)
    assert core.table.get(node_id(9)) is None
    assert core.receive(Gossip(cluster_id=b"another!", sender=node_id(1)), HERE, 0) == []
    assert cluster.metrics.value("gossip_foreign") == 1


def test_a_forged_accusation_is_dropped_and_counted() -> None:
    cluster = VirtualCluster()
    cluster.grow(4)
    core = cluster.cores[0]
    held = core.table.get(node_id(3))
    assert held is not None
    true = accuse(identity(1), CLUSTER_ID, held.node_id, held.incarnation, "dead")
    forged = Accusation(true.subject, true.incarnation, true.verdict, node_id(2), true.signature)
    core.receive(gossip(1, accusations=(forged,)), HERE, cluster.now)
    assert cluster.metrics.value("gossip_forged") == 1
    assert cluster.state(0, 3) == "alive"


def test_one_liar_can_kill_nobody_however_often_it_says_so() -> None:
    cluster = VirtualCluster()
    cluster.grow(6)
    cluster.log.clear()
    for _round in range(20):
        for observer in range(6):
            held = cluster.cores[observer].table.get(node_id(3))
            assert held is not None
            lie = accuse(identity(5), CLUSTER_ID, held.node_id, held.incarnation, "dead")
            core = cluster.cores[observer]
            if observer != 5:
                message = gossip(5, accusations=(lie, lie))
                cluster.act(observer, core.receive(message, HERE, cluster.now))
        cluster.run(1)
    cluster.run(5)
    assert cluster.agree(range(6))
    dead = [e for _, _, e in cluster.log if isinstance(e, MemberChanged) and not e.member.is_live]
    assert dead == []


def test_an_accusation_of_an_incarnation_never_signed_changes_nothing() -> None:
    cluster = VirtualCluster()
    cluster.grow(4)
    core = cluster.cores[3]
    before = core.me
    lie = accuse(identity(1), CLUSTER_ID, node_id(3), 2**63 - 1, "dead")
    for observer in range(4):
        core = cluster.cores[observer]
        cluster.act(observer, core.receive(gossip(1, accusations=(lie,)), HERE, cluster.now))
    assert cluster.cores[3].me == before
    assert cluster.agree(range(4))


def test_an_ack_by_another_than_the_target_or_its_helpers_does_not_count() -> None:
    cluster = VirtualCluster()
    cluster.grow(3)
    core = cluster.cores[0]
    effects = core.report_refused(node_id(1), cluster.now)
    ping = next(e.message for e in effects if isinstance(e, SendDatagram))
    assert isinstance(ping, Ping)
    stranger = Ack(cluster_id=CLUSTER_ID, sender=node_id(77), sequence=ping.sequence)
    core.receive(stranger, HERE, cluster.now)
    assert ("probe", ping.sequence) in core._timers


def test_the_table_does_not_grow_beyond_its_limit() -> None:
    cluster = VirtualCluster(config=config(max_members=10))
    core = cluster.start(0)
    records = tuple(profile(n).sign(identity(n), 5, "active").record for n in range(1, 30))
    core.absorb(records, [], cluster.now)
    assert len(core.table) == 10
    assert cluster.metrics.value("members_refused") == 20


def test_two_processes_with_one_key_do_not_flood_the_cluster() -> None:
    cluster = VirtualCluster()
    cluster.grow(3)
    clone = profile(2, port=7777)
    core = cluster.cores[2]
    for _step in range(200):
        record = clone.sign(identity(2), core.me.incarnation + 1, "active").record
        cluster.act(2, core.receive(gossip(1, records=(record,)), HERE, cluster.now))
        cluster.run(0.01)
    assert cluster.metrics.value("gossip_refutations") <= 2 / 0.2 + 2


# Laws.


@settings(max_examples=12)
@given(st.integers(0, 10_000))
def test_views_agree_with_the_truth_after_any_faults_end(seed: int) -> None:
    rng = random.Random(seed)
    cluster = VirtualCluster(seed=seed, loss=rng.choice([0, 0.02, 0.1]))
    count = rng.randint(3, 8)
    for number in range(count):
        cluster.start(number, join=[0, 1])
    seen: dict[tuple[int, int], int] = {}
    for _step in range(rng.randint(1, 6)):
        victim = rng.randrange(count)
        match rng.randrange(4):
            case 0 if victim in cluster.cores and len(cluster.cores) > 2:
                cluster.crash(victim)
                seen = {pair: inc for pair, inc in seen.items() if pair[0] != victim}
            case 1 if victim not in cluster.cores:
                cluster.start(victim, join=[0, 1], wall=rng.choice([0, -5000]))
            case 2:
                cluster.cut = lambda one, other, it=victim: (one == it) != (other == it)  # type: ignore[misc]
            case _:
                cluster.cut = lambda _one, _other: False
        for _second in range(rng.randint(1, 30)):
            cluster.run(1)
            for observer, core in cluster.cores.items():
                for subject in range(count):
                    member = core.table.get(node_id(subject))
                    if member is not None:
                        pair = observer, subject
                        assert member.incarnation >= seen.get(pair, 0), "never back"
                        seen[pair] = member.incarnation
    cluster.cut = lambda _one, _other: False
    for number in (0, 1):
        if number not in cluster.cores:
            cluster.start(number, join=[0, 1])
    cluster.run_until(lambda: cluster.agree(cluster.cores), limit_s=90)


def test_one_seed_gives_one_history() -> None:
    def history() -> list[str]:
        cluster = VirtualCluster(seed=7, loss=0.1)
        cluster.grow(6)
        cluster.crash(2)
        cluster.run(20)
        return [repr(entry) for entry in cluster.log]

    assert history() == history()


def test_a_node_whose_loop_is_late_blames_itself_not_the_others() -> None:
    """The answer to its ping waits to be read while its own timers come late."""
    cluster = VirtualCluster()
    cluster.grow(5)
    core, now = cluster.cores[0], cluster.now
    effects: list[Effect] = []
    while not any(isinstance(getattr(e, "message", None), Ping) for e in effects):
        now = core.next_timeout() or now
        effects = core.handle_timeout(now)
    core.handle_timeout(now + 0.5)
    # The probe fails a second after the ping, unless the timer comes late.
    late = core.handle_timeout(now + 1.2)
    assert not any(isinstance(effect, MemberChanged) for effect in late)
    then = core.handle_timeout(now + 2.5)
    assert any(isinstance(effect, MemberChanged) for effect in then), "but it does go on"
