"""The member table: many members at once, and one after another."""

from __future__ import annotations

import random

from gossipcache.dht.membership.member import Member
from gossipcache.dht.membership.table import MemberTable
from tests.dht.membership.harness import identity, profile

MEMBERS = [profile(number).sign(identity(number), 1, "active") for number in range(12)]


def table() -> MemberTable:
    return MemberTable(MEMBERS[0], random.Random(1))


def one_by_one(members: list[Member]) -> MemberTable:
    made = table()
    for member in members:
        made.put(member)
        made.probe_soon(member.node_id)
    return made


def test_a_table_is_filled_as_if_member_by_member() -> None:
    filled, put = table(), one_by_one(MEMBERS[1:])
    filled.fill(MEMBERS)
    assert list(filled) == list(put) == sorted(MEMBERS, key=lambda member: member.node_id)
    assert filled.digest() == put.digest()
    assert filled.live_count == put.live_count == 12
    assert filled.successor() == put.successor()
    assert filled.at(MEMBERS[7].address) == MEMBERS[7]
    assert filled.me == MEMBERS[0]


def test_each_live_member_is_probed_once_in_a_rotation() -> None:
    filled = table()
    filled.fill(MEMBERS)
    probed = [filled.next_probe() for _ in range(11)]
    assert {member.name for member in probed if member} == {one.name for one in MEMBERS[1:]}


def test_the_successor_is_the_next_that_lives() -> None:
    made = table()
    made.fill(MEMBERS)
    others = sorted(MEMBERS[1:], key=lambda one: (one.node_id < made.me.node_id, one.node_id))
    assert made.successor() == others[0]
    made.put(others[0].in_state("dead"))
    assert made.successor() == others[1]
    assert made.random_dead() == others[0].in_state("dead")
    for other in others[1:]:
        made.put(other.in_state("dead"))
    assert made.successor() is None
    assert made.dead_count == 11
