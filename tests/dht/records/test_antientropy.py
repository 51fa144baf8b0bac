"""Shared views: equal entries give equal digests, and differences show in their bucket."""

from __future__ import annotations

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from gossipcache.dht.records.antientropy import SharedView, bucket_of, differing
from gossipcache.dht.ring import Ring
from gossipcache.ids import NodeId, TaskId

NODES = tuple(NodeId(bytes([number]) * 16) for number in range(5))
RING = Ring(NODES)
TASKS = [TaskId(hashlib.blake2b(bytes([number])).digest()[:32]) for number in range(50)]
ME, PEER = NODES[0], NODES[1]

Writes = st.lists(
    st.tuples(st.sampled_from(TASKS), st.none() | st.binary(min_size=16, max_size=16)), max_size=60
)


def view_of(entries: dict[TaskId, bytes]) -> SharedView:
    view = SharedView(RING, 3)
    for task_id, version in entries.items():
        view.set(task_id, version)
    return view


@settings(max_examples=80)
@given(Writes)
def test_digests_depend_on_what_is_held_not_on_how_it_came(
    writes: list[tuple[TaskId, bytes | None]],
) -> None:
    view = SharedView(RING, 3)
    held: dict[TaskId, bytes] = {}
    for task_id, version in writes:
        view.set(task_id, version)
        if version is None:
            held.pop(task_id, None)
        else:
            held[task_id] = version
    fresh = view_of(held)
    for peer in NODES:
        assert differing(view.digests(peer), fresh.digests(peer)) == ()


def test_only_shared_tasks_count() -> None:
    view = view_of({task_id: bytes(16) for task_id in TASKS})
    rows = [task_id for bucket in range(256) for task_id in view.rows(PEER, bucket)]
    assert sorted(rows) == sorted(task for task in TASKS if PEER in RING.keepers(task, 3))
    stranger = NodeId(b"stranger" * 2)
    assert differing(view.digests(stranger), b"") == tuple(range(256))
    assert differing(view.digests(stranger), SharedView(RING, 3).digests(ME)) == ()


def test_a_difference_shows_in_its_bucket() -> None:
    entries = {task_id: bytes(16) for task_id in TASKS}
    changed = next(task_id for task_id in TASKS if PEER in RING.keepers(task_id, 3))
    one, other = view_of(entries), view_of({**entries, changed: b"x" * 16})
    assert differing(one.digests(PEER), other.digests(PEER)) == (bucket_of(changed),)


def test_strays_are_what_is_kept_by_others() -> None:
    view = view_of({task_id: bytes(16) for task_id in TASKS})
    assert view.strays(ME) == sorted(task for task in TASKS if ME not in RING.keepers(task, 3))
