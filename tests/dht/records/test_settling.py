"""When a keeper may say that a task does not exist."""

from __future__ import annotations

from gossipcache.config import RecordConfig
from gossipcache.dht.records.settling import Settling
from gossipcache.dht.ring import Ring
from gossipcache.ids import NodeId, TaskId

NODES = tuple(NodeId(bytes([number + 1]) * 16) for number in range(8))
ME = NODES[0]
TASKS = [TaskId(bytes([number, 7]) + bytes(30)) for number in range(256)]


def settled_on(*members: NodeId) -> Settling:
    settling = Settling(ME, Ring(members), RecordConfig(), 0.0)
    settling.settle(settling.ring.epoch)
    return settling


def kept(ring: Ring) -> list[TaskId]:
    return [task_id for task_id in TASKS if ME in ring.keepers(task_id, 3)]


def test_a_lone_keeper_is_settled_and_always_on_its_ring() -> None:
    settling = Settling(ME, Ring(), RecordConfig(), 0.0)
    assert settling.ring.members == (ME,)
    assert all(settling.is_settled(task_id, 0.0) for task_id in TASKS)


def test_a_joining_keeper_is_recovering_until_it_has_compared() -> None:
    settling = Settling(ME, Ring(NODES[1:4]), RecordConfig(), 0.0)
    assert not settling.settled
    assert not any(settling.is_settled(task_id, 0.0) for task_id in TASKS)
    settling.settle(settling.ring.epoch)
    assert all(settling.is_settled(task_id, 0.0) for task_id in kept(settling.ring))


def test_a_comparison_on_another_ring_does_not_count() -> None:
    settling = Settling(ME, Ring(NODES[1:4]), RecordConfig(), 0.0)
    settling.settle(Ring(NODES[1:4]).epoch)
    assert not settling.settled


def test_after_a_death_it_knows_only_what_it_kept_before() -> None:
    settling = settled_on(*NODES)
    before = set(kept(settling.ring))
    settling.set_ring(Ring(NODES[:-2]), 1.0)
    gained = set(kept(settling.ring)) - before
    assert gained
    assert all(settling.is_settled(task_id, 1.0) for task_id in before)
    assert not any(settling.is_settled(task_id, 1.0) for task_id in gained)


def test_whoever_comes_may_bring_records() -> None:
    settling = settled_on(*NODES[:3])
    settling.set_ring(Ring(NODES[:4]), 1.0)
    assert not any(settling.is_settled(task_id, 1.0) for task_id in TASKS)


def test_where_all_keepers_were_lost_holders_get_some_seconds() -> None:
    settling = settled_on(*NODES)
    before = settling.ring
    settling.set_ring(Ring(NODES[:4]), 1.0)
    settling.settle(settling.ring.epoch)
    lost = [
        task_id
        for task_id in kept(settling.ring)
        if not set(before.keepers(task_id, 3)) & set(NODES[:4])
    ]
    assert lost
    assert not any(settling.is_settled(task_id, 10.9) for task_id in lost)
    assert all(settling.is_settled(task_id, 11.0) for task_id in lost)
