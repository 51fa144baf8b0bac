"""The ring: who keeps a task, and what a change of members moves."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipcache.dht.ring import Ring
from gossipcache.ids import NodeId, TaskId


def node(number: int) -> NodeId:
    return NodeId(hashlib.blake2b(b"node %d" % number, digest_size=16).digest())


def tasks(count: int) -> list[TaskId]:
    return [TaskId(hashlib.blake2b(b"task %d" % n, digest_size=32).digest()) for n in range(count)]


TASKS = tasks(300)
numbers = st.sets(st.integers(0, 200), min_size=1, max_size=12)
few = settings(max_examples=40)


def test_an_empty_ring_keeps_nothing() -> None:
    assert Ring().keepers(TASKS[0], 3) == ()
    assert Ring().shares() == {}


def test_a_lone_node_keeps_everything() -> None:
    ring = Ring([node(1)])
    assert ring.keepers(TASKS[0], 3) == (node(1),)
    assert ring.shares() == {node(1): 1.0}


@few
@given(numbers, st.randoms(use_true_random=False))
def test_the_ring_is_independent_of_the_order_and_the_path(
    members: set[int], shuffler: random.Random
) -> None:
    ids = [node(number) for number in members]
    shuffler.shuffle(ids)
    grown = Ring()
    for count in range(1, len(ids) + 1):
        grown = grown.with_members(ids[:count])
    built = Ring(sorted(ids))
    assert grown.epoch == built.epoch
    assert grown.members == built.members
    assert grown.shares() == built.shares()
    assert all(grown.keepers(task, 3) == built.keepers(task, 3) for task in TASKS)


@few
@given(st.lists(numbers, min_size=1, max_size=8))
def test_any_series_of_changes_ends_in_the_ring_built_afresh(views: list[set[int]]) -> None:
    ring = Ring(node(number) for number in range(40))
    for change in views:
        ring = ring.with_members(set(ring.members) ^ {node(number) for number in change})
    built = Ring(ring.members)
    assert ring.shares() == built.shares()
    assert all(ring.keepers(task, 3) == built.keepers(task, 3) for task in TASKS)


@few
@given(numbers, st.integers(201, 300))
def test_a_join_or_leave_moves_only_keys_of_that_node(members: set[int], newcomer: int) -> None:
    before = Ring(node(number) for number in members)
    after = before.with_members([*before.members, node(newcomer)])
    for task in TASKS:
        old, new = before.keepers(task, 3), after.keepers(task, 3)
        if node(newcomer) in new:
            stayed = [keeper for keeper in new if keeper != node(newcomer)]
            assert stayed == list(old[: len(stayed)])
        else:
            assert new == old


@few
@given(numbers, st.integers(1, 5))
def test_keepers_are_distinct_and_as_many_as_there_can_be(members: set[int], count: int) -> None:
    ring = Ring(node(number) for number in members)
    for task in TASKS[:50]:
        keepers = ring.keepers(task, count)
        assert len(set(keepers)) == len(keepers) == min(count, len(members))
        assert keepers[: count - 1] == ring.keepers(task, count - 1)


def test_points_of_equal_hash_are_ordered_by_node_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gossipcache.dht.ring._hashes_of", lambda _node: [7, 2**63])
    ids = sorted(node(number) for number in range(20))
    merged = Ring([*ids[:9], *ids[10:]]).with_members(ids)
    assert merged.keepers(TaskId(bytes(32)), 20) == tuple(ids)
    assert Ring(ids).keepers(TaskId(bytes(32)), 20) == tuple(ids)


def test_shares_add_up_and_are_even() -> None:
    shares = Ring(node(number) for number in range(50)).shares()
    assert abs(sum(shares.values()) - 1) < 1e-9
    assert max(shares.values()) * len(shares) < 1.35


def test_the_epoch_names_the_set_of_members() -> None:
    three = Ring([node(1), node(2), node(3)])
    assert three.epoch != three.with_members([node(1), node(2)]).epoch
    assert three.with_members([node(3), node(2), node(1)]) is three


@few
@given(st.sets(st.integers(0, 200), min_size=2, max_size=12), st.integers(1, 11))
def test_those_who_share_what_a_node_gains_are_its_former_and_present_keepers(
    members: set[int], gone: int
) -> None:
    before = Ring(node(number) for number in members)
    after = Ring(before.members[min(gone, len(members) - 1) :])
    for me in after.members:
        sharing = set()
        for task in TASKS:
            now, then = after.keepers(task, 3), before.keepers(task, 3)
            if me in now and me not in then:
                sharing |= {*now, *then}
        assert sharing & set(after.members) - {me} <= set(after.sharing_gains(me, before, 3))
    assert after.sharing_gains(after.members[0], after, 3) == []
