"""How long a suspicion lasts, and whose word counts."""

from __future__ import annotations

import pytest

from gossipcache.config import SwimConfig
from gossipcache.dht.membership.suspicion import Suspicion
from gossipcache.messages.gossip import Accusation, Verdict
from tests.dht.membership.harness import node_id


def by(accuser: int, verdict: Verdict = "suspect") -> Accusation:
    return Accusation(node_id(0), 1, verdict, node_id(accuser), bytes(64))


def test_each_further_accuser_shortens_it_down_to_the_minimum() -> None:
    suspicion = Suspicion(SwimConfig(), live_count=10, now=100)
    deadlines = []
    for accuser in range(1, 5):
        suspicion.add(by(accuser))
        deadlines.append(suspicion.deadline())
    assert deadlines == [112.0, pytest.approx(107.5), pytest.approx(104.87, abs=0.01), 103.0]


def test_with_nobody_who_could_confirm_it_is_short_at_once() -> None:
    suspicion = Suspicion(SwimConfig(), live_count=2, now=100)
    suspicion.add(by(1))
    assert suspicion.deadline() == 103


def test_a_refusal_leaves_one_probe_interval_until_the_subject_answers_after_all() -> None:
    suspicion = Suspicion(SwimConfig(), live_count=10, now=100)
    suspicion.add(by(1))
    suspicion.refused(101)
    suspicion.refused(102)
    assert suspicion.deadline() == 102
    suspicion.answered(101.5)
    assert suspicion.deadline() == 113.5, "all the time anew"


def test_every_other_accuser_shortens_the_time_after_a_refusal() -> None:
    suspicion = Suspicion(SwimConfig(), live_count=10, now=100)
    suspicion.add(by(1))
    suspicion.refused(100)
    deadlines = [suspicion.deadline()]
    for accuser in (2, 3, 4, 5):
        suspicion.add(by(accuser))
        deadlines.append(suspicion.deadline())
    assert deadlines == pytest.approx([101, 100.5, 100 + 1 / 3, 100.25, 100.25])


def test_who_saw_it_fail_looks_once_more_in_time_and_who_heard_of_it_waits_for_them() -> None:
    suspicion = Suspicion(SwimConfig(), live_count=10, now=100)
    suspicion.add(by(1))
    assert suspicion.next_step(node_id(1)) == suspicion.deadline() - 1
    assert suspicion.next_step(node_id(2)) == suspicion.deadline()
    suspicion.looked(111)
    assert suspicion.is_looked_at
    assert suspicion.next_step(node_id(1)) == suspicion.deadline() == 112
    suspicion.answered(111.5)
    assert not suspicion.is_looked_at


def test_plain_swim_knows_no_confirmations_and_believes_anybody() -> None:
    suspicion = Suspicion(SwimConfig(lifeguard=False), live_count=10, now=100)
    suspicion.add(by(1, "dead"))
    assert suspicion.deadline() == 103
    assert suspicion.is_proven(node_id(9))


def test_the_same_accuser_and_accusers_beyond_need_are_no_news() -> None:
    suspicion = Suspicion(SwimConfig(), live_count=100, now=0)
    for accuser in range(1, 5):
        assert suspicion.is_news(by(accuser))
        suspicion.add(by(accuser))
        assert not suspicion.is_news(by(accuser))
    assert not suspicion.is_news(by(5))
    assert suspicion.is_news(by(5, "dead"))


def test_one_verdict_of_death_proves_nothing_to_a_third() -> None:
    suspicion = Suspicion(SwimConfig(), live_count=10, now=0)
    me = node_id(9)
    suspicion.add(by(1, "dead"))
    suspicion.add(by(2))
    assert not suspicion.is_proven(me)
    suspicion.add(by(2, "dead"))
    assert suspicion.is_proven(me)
    assert suspicion.proofs[0].verdict == "dead"


def test_one_verdict_of_death_confirms_what_this_node_saw_itself() -> None:
    suspicion = Suspicion(SwimConfig(), live_count=10, now=0)
    suspicion.add(by(9))
    assert not suspicion.is_proven(node_id(9))
    suspicion.add(by(1, "dead"))
    assert suspicion.is_proven(node_id(9))


def test_one_node_alone_does_not_make_two() -> None:
    suspicion = Suspicion(SwimConfig(), live_count=10, now=0)
    suspicion.add(by(9, "dead"))
    assert not suspicion.is_proven(node_id(9))
