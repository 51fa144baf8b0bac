"""When a keeper may say that a task does not exist."""

from __future__ import annotations

from gossipcache.config import RecordConfig
from gossipcache.dht.records.settling import Settling
from gossipcache.dht.ring import Ring
from gossipcache.ids import NodeId, TaskId

NODES = tuple(NodeId(bytes([number + 1]) * 16) for number in range(8))
ME = NODES[0]
TASKS = [TaskId(bytes([number, 7]) + bytes(30)) for number in range(256)]


def settling_on(*members: NodeId) -> Settling:
    return Settling(ME, Ring(members), RecordConfig(), 0.0)


def compare_with_all(settling: Settling, now: float = 0.0) -> None:
    for node in settling.waiting():
        settling.compared(node, settling.ring.epoch, now)


def settled_on(*members: NodeId) -> Settling:
    settling = settling_on(*members)
    compare_with_all(settling)
    assert settling.settled
    return settling


def kept(ring: Ring) -> list[TaskId]:
    return [task_id for task_id in TASKS if ME in ring.keepers(task_id, 3)]


def test_a_lone_keeper_is_settled_and_always_on_its_ring() -> None:
    settling = settling_on()
    assert settling.ring.members == (ME,)
    assert all(settling.is_settled(task_id, 0.0) for task_id in TASKS)


def test_a_joining_keeper_is_recovering_until_it_has_compared_with_all() -> None:
    settling = settling_on(*NODES[1:4])
    for node in NODES[1:4]:
        assert not settling.settled
        assert not any(settling.is_settled(task_id, 0.0) for task_id in TASKS)
        settling.compared(node, settling.ring.epoch, 0.0)
    assert settling.settled
    assert all(settling.is_settled(task_id, 0.0) for task_id in kept(settling.ring))


def test_a_comparison_with_one_who_sees_more_or_others_does_not_count() -> None:
    settling = settling_on(*NODES[1:4])
    settling.compared(NODES[1], Ring(NODES[:5]).epoch, 0.0)
    settling.compared(NODES[1], Ring((*NODES[:3], NODES[6])).epoch, 0.0)
    assert NODES[1] in settling.waiting()


def test_a_comparison_with_one_who_has_not_heard_of_a_joiner_yet_counts() -> None:
    settling = settling_on(*NODES[1:4])
    settling.set_ring(Ring(NODES[:5]), 0.0)
    settling.compared(NODES[1], Ring(NODES[:4]).epoch, 0.0)
    assert NODES[1] not in settling.waiting()


def test_a_ring_of_before_a_leave_is_not_smaller() -> None:
    settling = settling_on(*NODES[1:4])
    settling.set_ring(Ring(NODES[:3]), 0.0)
    settling.compared(NODES[1], Ring(NODES[:4]).epoch, 0.0)
    assert NODES[1] in settling.waiting()


def test_whoever_comes_may_bring_records() -> None:
    settling = settled_on(*NODES[:3])
    settling.set_ring(Ring(NODES[:4]), 1.0)
    assert settling.waiting() == [NODES[3]]
    assert not any(settling.is_settled(task_id, 1.0) for task_id in TASKS)
    settling.compared(NODES[3], settling.ring.epoch, 1.0)
    assert all(settling.is_settled(task_id, 1.0) for task_id in kept(settling.ring))


def test_who_compared_before_it_joined_unsettles_nobody() -> None:
    settling = settled_on(*NODES[:3])
    settling.compared(NODES[3], Ring(NODES[:4]).epoch, 1.0)
    settling.set_ring(Ring(NODES[:4]), 2.0)
    assert settling.settled


def test_a_comparison_before_the_join_is_soon_too_old() -> None:
    settling = settled_on(*NODES[:3])
    settling.compared(NODES[3], Ring(NODES[:4]).epoch, 1.0)
    settling.set_ring(Ring(NODES[:4]), 60.0)
    assert settling.waiting() == [NODES[3]]


def test_who_leaves_and_comes_back_is_compared_with() -> None:
    settling = settled_on(*NODES[:4])
    settling.set_ring(Ring(NODES[:3]), 1.0)
    settling.set_ring(Ring(NODES[:4]), 2.0)
    assert not settling.settled
    assert settling.waiting() == [NODES[3]]


def test_after_a_death_it_knows_only_what_it_kept_before() -> None:
    settling = settled_on(*NODES)
    before = set(kept(settling.ring))
    settling.set_ring(Ring(NODES[:-2]), 1.0)
    gained = set(kept(settling.ring)) - before
    assert gained
    assert all(settling.is_settled(task_id, 1.0) for task_id in before)
    assert not any(settling.is_settled(task_id, 1.0) for task_id in gained)
    compare_with_all(settling, 1.0)
    assert all(settling.is_settled(task_id, 1.0) for task_id in gained)


def test_what_a_starting_keeper_gains_by_deaths_it_asks_for_anew() -> None:
    settling = settling_on(*NODES)
    before = set(kept(settling.ring))
    for node in settling.waiting():
        if node != NODES[-3]:
            settling.compared(node, settling.ring.epoch, 0.0)
    settling.set_ring(Ring(NODES[:-2]), 1.0)
    settling.compared(NODES[-3], settling.ring.epoch, 1.0)
    gained = set(kept(settling.ring)) - before
    assert gained
    assert all(settling.is_settled(task_id, 11.0) for task_id in before)
    assert not any(settling.is_settled(task_id, 11.0) for task_id in gained)
    compare_with_all(settling, 1.0)
    assert all(settling.is_settled(task_id, 11.0) for task_id in gained)


def test_what_a_newcomer_took_is_asked_for_when_it_comes_back() -> None:
    settling = settled_on(*NODES[:5])
    settling.set_ring(Ring(NODES[:4]), 1.0)
    settling.set_ring(Ring((*NODES[:4], NODES[6])), 1.0)
    taken = set(kept(Ring(NODES[:5]))) - set(kept(Ring((*NODES[:5], NODES[6]))))
    settling.compared(NODES[6], settling.ring.epoch, 1.0)
    settling.set_ring(Ring((*NODES[:3], NODES[6])), 1.0)
    assert taken.intersection(kept(settling.ring))
    assert not any(settling.is_settled(task_id, 11.0) for task_id in taken)


def test_what_a_newcomer_kept_that_was_lost_before_the_comparison_is_asked_for() -> None:
    settling = settled_on(*NODES[:4])
    joined = Ring(NODES[:5])
    settling.set_ring(joined, 1.0)
    settling.set_ring(Ring(NODES[:4]), 2.0)
    doubted = {task_id for task_id in kept(joined) if NODES[4] in joined.keepers(task_id, 3)}
    assert doubted
    assert not any(settling.is_settled(task_id, 12.0) for task_id in doubted)
    compare_with_all(settling, 2.0)
    assert all(settling.is_settled(task_id, 12.0) for task_id in doubted)


def test_a_comparison_before_the_join_counts_no_more_once_somebody_leaves() -> None:
    settling = settled_on(*NODES[:4])
    settling.compared(NODES[4], Ring(NODES[:5]).epoch, 1.0)
    settling.set_ring(Ring(NODES[:3]), 1.0)
    settling.set_ring(Ring((*NODES[:3], NODES[4])), 1.0)
    assert NODES[4] in settling.waiting()


def test_after_a_death_only_those_are_asked_who_share_what_is_gained() -> None:
    many = [NodeId(bytes([number // 256, number % 256]) * 8) for number in range(2000)]
    settling = Settling(many[0], Ring(many), RecordConfig(), 0.0)
    compare_with_all(settling)
    settling.set_ring(Ring(many[:-1]), 1.0)
    assert len(settling.waiting()) < 20


def test_where_all_keepers_were_lost_holders_get_some_seconds() -> None:
    settling = settled_on(*NODES)
    before = settling.ring
    settling.set_ring(Ring(NODES[:4]), 1.0)
    compare_with_all(settling, 1.0)
    lost = [
        task_id
        for task_id in kept(settling.ring)
        if not set(before.keepers(task_id, 3)) & set(NODES[:4])
    ]
    assert lost
    until = 1.0 + RecordConfig().recovery_s
    assert not any(settling.is_settled(task_id, until - 0.1) for task_id in lost)
    assert all(settling.is_settled(task_id, until) for task_id in lost)


def test_a_keeper_that_was_lost_and_is_back_does_not_vouch_for_what_it_had() -> None:
    settling = settled_on(*NODES)
    before = settling.ring
    settling.set_ring(Ring(NODES[:4]), 1.0)
    settling.set_ring(Ring(NODES), 2.0)
    compare_with_all(settling, 2.0)
    lost = [task_id for task_id in TASKS if not set(before.keepers(task_id, 3)) & set(NODES[:4])]
    assert lost
    assert not any(settling.is_settled(task_id, 3.0) for task_id in lost)


def test_one_that_starts_recovers_for_as_long_as_those_it_compares_with() -> None:
    starting, settled = settling_on(*NODES[:3]), settled_on(*NODES[:3])
    for settling in (starting, settled):
        settling.inherit(5.0)
        compare_with_all(settling)
    mine = kept(starting.ring)
    assert not any(starting.is_settled(task_id, 4.9) for task_id in mine)
    assert all(starting.is_settled(task_id, 5.0) for task_id in mine)
    assert all(settled.is_settled(task_id, 0.0) for task_id in mine)


def test_one_that_was_away_vouches_for_nothing_for_a_while() -> None:
    settling = settled_on(*NODES[:3])
    settling.distrust(5.0)
    assert not any(settling.is_settled(task_id, 4.9) for task_id in TASKS)
    assert all(settling.is_settled(task_id, 5.0) for task_id in TASKS)
