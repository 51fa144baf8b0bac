"""The queue of news: what goes first, how often, and what makes it void."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gossipcache.dht.membership.broadcast import BroadcastQueue, retransmit_limit, size_of
from gossipcache.dht.membership.member import accuse
from gossipcache.identity import Signed
from gossipcache.wire import encode
from tests.dht.membership.harness import CLUSTER_ID, identity, node_id, profile


def record(number: int, incarnation: int = 1) -> Signed:
    return profile(number).sign(identity(number), incarnation, "active").record


def test_the_least_transmitted_goes_first_and_the_newer_of_two() -> None:
    queue = BroadcastQueue()
    for number in range(3):
        queue.add_record(node_id(number), record(number))
    room = size_of(record(0)) + 10
    taken = [queue.take(room, limit=2)[0] for _ in range(7)]
    order = [[record(2)], [record(1)], [record(0)]]
    assert taken == [*order, *order, []]
    assert len(queue) == 0


def test_a_new_record_voids_older_news_of_its_subject_only() -> None:
    queue = BroadcastQueue()
    lie = accuse(identity(2), CLUSTER_ID, node_id(0), 1, "suspect")
    other = accuse(identity(2), CLUSTER_ID, node_id(1), 1, "suspect")
    queue.add_record(node_id(0), record(0))
    queue.add_accusation(lie)
    queue.add_accusation(other)
    queue.add_record(node_id(0), record(0, incarnation=2))
    assert queue.take(1000, limit=3) == ([record(0, incarnation=2)], [other])


def test_a_harder_verdict_replaces_the_milder_one_of_the_same_accuser() -> None:
    queue = BroadcastQueue()
    suspect = accuse(identity(2), CLUSTER_ID, node_id(0), 1, "suspect")
    dead = accuse(identity(2), CLUSTER_ID, node_id(0), 1, "dead")
    queue.add_accusation(suspect)
    queue.add_accusation(dead)
    assert queue.take(1000, limit=3) == ([], [dead])
    assert len(queue) == 1


def test_what_others_send_as_well_is_sent_less_often_but_never_left_to_them() -> None:
    queue = BroadcastQueue()
    queue.add_record(node_id(0), record(0))
    assert not queue.hears(record(1))
    sent = 0
    while len(queue):
        sent += len(queue.take(1000, limit=12)[0])
        for _ in range(50):
            queue.hears(record(0))
    assert sent == 9
    assert not queue.hears(record(0))


def test_who_suspects_is_no_news_of_a_proven_death() -> None:
    queue = BroadcastQueue()
    suspect = accuse(identity(1), CLUSTER_ID, node_id(0), 1, "suspect")
    dead = accuse(identity(2), CLUSTER_ID, node_id(0), 1, "dead")
    queue.add_accusation(suspect)
    queue.add_accusation(dead)
    queue.drop_suspicions(node_id(0))
    assert queue.take(1000, limit=3) == ([], [dead])
    assert len(queue) == 1


def test_sizes_are_never_less_than_what_is_encoded() -> None:
    accusation = accuse(identity(2), CLUSTER_ID, node_id(0), 2**63 - 1, "suspect")
    assert len(encode(record(1, 2**62))) <= size_of(record(1, 2**62))
    assert len(encode(accusation)) == size_of(accusation)


def test_the_number_of_transmissions_grows_with_the_logarithm() -> None:
    assert [retransmit_limit(count) for count in (1, 2, 9, 99, 999)] == [2, 2, 4, 8, 12]


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=30),
    st.integers(100, 700),
    st.integers(1, 4),
)
def test_each_item_is_taken_exactly_as_often_as_allowed(
    news: list[tuple[int, bool]], room_bytes: int, limit: int
) -> None:
    queue = BroadcastQueue()
    standing: dict[tuple[int, bool], object] = {}
    for number, is_record in news:
        if is_record:
            standing.pop((number, False), None)
            queue.add_record(node_id(number), record(number))
            standing[number, True] = record(number)
        else:
            accusation = accuse(identity(9), CLUSTER_ID, node_id(number), 1, "suspect")
            queue.add_accusation(accusation)
            standing[number, False] = accusation
    assert len(queue) == len(standing)
    taken: list[object] = []
    for _ in range(200):
        records, accusations = queue.take(room_bytes, limit)
        sizes = [*map(size_of, records), *map(size_of, accusations)]
        assert sum(sizes) <= room_bytes
        taken += [*records, *accusations]
    fitting = [item for item in standing.values() if size_of(item) <= room_bytes]  # type: ignore[arg-type]
    assert all(taken.count(item) == limit for item in fitting)
