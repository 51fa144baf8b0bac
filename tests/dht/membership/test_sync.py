"""Push/pull: equal views exchange a digest only; else each side gets just what it lacks."""

from __future__ import annotations

from dataclasses import replace

from gossipcache.config import SwimConfig
from gossipcache.dht.membership import sync
from gossipcache.dht.membership.effects import RequestSync
from gossipcache.identity import Signed
from gossipcache.ids import Address
from gossipcache.messages.gossip import MAX_PAGE_ENTRIES, SyncDiff, SyncRange
from gossipcache.wire import MAX_MESSAGE_BYTES, encode
from tests.dht.membership.harness import CLUSTER_ID, VirtualCluster, identity, node_id, profile


def records(numbers: range) -> list[Signed]:
    return [
        replace(profile(n), address=Address("10.1.0.1", 1 + n))
        .sign(identity(n), 5, "active")
        .record
        for n in numbers
    ]


def exchange(cluster: VirtualCluster, asker: int, answerer: int) -> list[SyncDiff]:
    """All pages of one push/pull, applied on both sides."""
    one, other = cluster.cores[asker], cluster.cores[answerer]
    other.absorb([one.me.record], [], cluster.now)
    found = []
    start: bytes | None = b""
    while start is not None:
        page = sync.diff(other.view, sync.range_from(one.view, start))
        one.absorb(page.records, page.accusations, cluster.now)
        for push in sync.pushes(one.view, page.wanted):
            assert len(encode(push)) <= MAX_MESSAGE_BYTES
            other.absorb(push.records, push.accusations, cluster.now)
        found.append(page)
        start = page.until or None
    return found


def test_equal_views_are_done_after_the_digest() -> None:
    cluster = VirtualCluster()
    cluster.grow(4)
    one, other = cluster.cores[0].view, cluster.cores[1].view
    assert sync.answer_open(other, sync.open_sync(one, CLUSTER_ID)).equal


def test_only_missing_records_are_sent_both_ways() -> None:
    cluster = VirtualCluster()
    cluster.grow(3)
    cluster.cores[0].absorb(records(range(10, 13)), [], cluster.now)
    cluster.cores[1].absorb(records(range(12, 15)), [], cluster.now)
    (page,) = exchange(cluster, 0, 1)
    assert len(page.records) == 2
    assert set(page.wanted) == {node_id(10), node_id(11)}
    assert cluster.live(0) == cluster.live(1)
    assert cluster.cores[0].table.digest() == cluster.cores[1].table.digest()


def test_a_large_view_is_exchanged_in_pages_of_limited_size() -> None:
    cluster = VirtualCluster()
    cluster.start(0)
    cluster.start(1)
    cluster.cores[0].absorb(records(range(10, 900)), [], cluster.now)
    pages = exchange(cluster, 1, 0)
    assert len(pages) > 2
    assert all(len(encode(page)) <= MAX_MESSAGE_BYTES for page in pages)
    assert cluster.live(0) == cluster.live(1)
    assert len(sync.range_from(cluster.cores[0].view, b"").entries) == MAX_PAGE_ENTRIES


def test_a_large_view_is_pushed_to_a_small_one() -> None:
    cluster = VirtualCluster()
    cluster.start(0)
    cluster.start(1)
    cluster.cores[0].absorb(records(range(10, 900)), [], cluster.now)
    pages = exchange(cluster, 0, 1)
    assert len(pages) == 2
    assert cluster.live(0) == cluster.live(1)


def test_the_dead_come_with_their_proofs_and_strangers_never_hear_of_them() -> None:
    cluster = VirtualCluster()
    cluster.grow(5)
    cluster.crash(4)
    cluster.run_until(lambda: cluster.agree(range(4)), limit_s=20)
    cluster.run(1)
    whole = SyncRange(start=b"", end=b"", entries=())
    assert len(sync.diff(cluster.cores[0].view, whole).records) == 4
    stale = VirtualCluster()
    stale.grow(5)
    page = sync.diff(cluster.cores[0].view, sync.range_from(stale.cores[1].view, b""))
    assert {accusation.subject for accusation in page.accusations} == {node_id(4)}
    stale.cores[1].absorb(page.records, page.accusations, stale.now)
    assert stale.state(1, 4) == "dead", "two members say so"


def test_views_that_differ_after_gossip_came_to_rest_are_merged_within_seconds() -> None:
    cluster = VirtualCluster(config=SwimConfig(sync_interval_s=1e6))
    cluster.grow(4)
    cluster.run(10)
    for core in cluster.cores.values():
        assert len(core.view.queue) == 0
    extra = cluster.start(5)
    cluster.cores[2].absorb([extra.me.record], [], cluster.now, spread=False)
    cluster.log.clear()
    cluster.run_until(lambda: cluster.agree([0, 1, 2, 3, 5]), limit_s=6)
    assert any(isinstance(effect, RequestSync) for _, _, effect in cluster.log)


def test_views_that_agree_are_not_compared_again_over_a_link() -> None:
    cluster = VirtualCluster()
    cluster.grow(6)
    cluster.run(60)
    cluster.log.clear()
    cluster.run(300)
    assert not any(isinstance(effect, RequestSync) for _, _, effect in cluster.log)
