"""What a node asks in a push/pull, and how many it opens."""

from __future__ import annotations

import pytest

from gossipcache.dht.membership import sync
from gossipcache.dht.membership.pushpull import MAX_SYNCS, PushPull, PushPulls
from gossipcache.dht.membership.swim import SwimCore
from gossipcache.errors import NotPermitted, ProtocolError
from gossipcache.ids import Address
from gossipcache.messages.gossip import SyncDiff
from tests.dht.membership.harness import CLUSTER_ID, VirtualCluster, node_id, profile
from tests.dht.membership.test_sync import records

SEED = profile(1).address


def push_pulls(core: SwimCore, *seeds: Address) -> PushPulls:
    return PushPulls(core, CLUSTER_ID, seeds)


def carry(push_pull: PushPull, cluster: VirtualCluster, other: int) -> int:
    """All messages of one with the node `other`; how many ranges were asked."""
    there = cluster.cores[other]
    if not push_pull.answered_by(node_id(other)):
        return 0
    opening = sync.open_sync(cluster.cores[0].view, CLUSTER_ID)
    there.absorb([opening.record], (), cluster.now)
    push_pull.opened(sync.answer_open(there.view, opening), cluster.now)
    asked = 0
    while (page := push_pull.asks()) is not None:
        asked += 1
        push_pull.found(sync.diff(there.view, page), cluster.now)
        for push in push_pull.pushes():
            there.absorb(push.records, push.accusations, cluster.now)
    return asked


def begun(cluster: VirtualCluster) -> PushPull:
    push_pull = push_pulls(cluster.cores[0]).begin(node_id(1))
    assert push_pull is not None
    return push_pull


def test_equal_views_are_done_after_the_opening() -> None:
    cluster = VirtualCluster()
    cluster.grow(2)
    assert carry(begun(cluster), cluster, 1) == 0


def test_views_that_differ_are_gone_through_range_by_range() -> None:
    cluster = VirtualCluster()
    cluster.start(0)
    cluster.start(1)
    cluster.cores[0].absorb(records(range(10, 400)), (), cluster.now)
    cluster.cores[1].absorb(records(range(300, 900)), (), cluster.now)
    assert carry(begun(cluster), cluster, 1) > 1
    assert cluster.live(0) == cluster.live(1)


def test_who_never_comes_to_an_end_is_left() -> None:
    cluster = VirtualCluster()
    opening = push_pulls(cluster.start(0)).opening()
    there = cluster.start(1).view
    push_pull = begun(cluster)
    push_pull.answered_by(node_id(1))
    push_pull.opened(sync.answer_open(there, opening), cluster.now)
    the_same = SyncDiff(until=b"\x01", records=(), accusations=(), wanted=())
    for _ in range(2):
        assert push_pull.asks() is not None
        push_pull.found(the_same, cluster.now)
    with pytest.raises(ProtocolError):
        push_pull.asks()


def test_one_at_a_time_with_a_node_and_a_few_with_all() -> None:
    core = VirtualCluster().start(0)
    opened = push_pulls(core)
    first = opened.begin(node_id(1))
    assert first is not None
    assert opened.begin(node_id(1)) is None
    for number in range(2, 1 + MAX_SYNCS):
        assert opened.begin(node_id(number)) is not None
    assert opened.begin(node_id(99)) is None
    assert opened.begin_join(SEED) is not None, "joins are not held up by these"
    opened.end(first)
    assert opened.begin(node_id(99)) is None, "the join counts too"


def test_a_seed_that_is_this_node_itself_ends_the_push_pull() -> None:
    cluster = VirtualCluster()
    core = cluster.start(0)
    join = push_pulls(core, profile(0).address).begin_join(profile(0).address)
    assert join is not None
    assert carry(join, cluster, 0) == 0


def test_who_finds_but_itself_has_joined_only_if_there_is_no_other_seed() -> None:
    core = VirtualCluster().start(0)
    assert push_pulls(core, SEED).is_joined_by(node_id(0))
    assert not push_pulls(core, SEED, profile(2).address).is_joined_by(node_id(0))
    assert push_pulls(core, SEED, profile(2).address).is_joined_by(node_id(2))


def test_an_opening_of_another_cluster_or_in_anothers_name_is_refused() -> None:
    cluster = VirtualCluster()
    one, other = cluster.start(0), cluster.start(1)
    with pytest.raises(NotPermitted):
        push_pulls(one).check(node_id(1), sync.open_sync(other.view, b"another!"))
    with pytest.raises(ProtocolError):
        push_pulls(one).check(node_id(2), sync.open_sync(other.view, CLUSTER_ID))
    push_pulls(one).check(node_id(1), sync.open_sync(other.view, CLUSTER_ID))
