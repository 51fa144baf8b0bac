"""Upload slots: children take turns, whatever they ask for."""

from __future__ import annotations

from gossipcache.ids import NodeId
from gossipcache.transfer.slots import AT_ONCE, OVERTIME_FACTOR, UploadSlots

A, B, C = (NodeId(name * 16) for name in (b"a", b"b", b"c"))


def test_as_many_as_there_are_slots_begin_and_the_next_when_one_ends() -> None:
    slots = UploadSlots[str](2)
    for upload, child in (("a1", A), ("b1", B), ("c1", C)):
        slots.ask(child, upload)
    assert slots.grant(0.0) == ["a1", "b1"]
    assert (slots.running, slots.waiting) == (2, 1)
    slots.end(A, "a1", 0.0)
    assert slots.grant(0.0) == ["c1"]


def test_a_child_with_many_channels_gets_no_more_than_its_turn() -> None:
    slots, served = UploadSlots[str](1), ""
    for number in range(6):
        slots.ask(A, f"a{number}")
    slots.ask(B, "b0")
    slots.ask(B, "b1")
    while slots.waiting:
        (upload,) = slots.grant(0.0)
        served += upload[0]
        slots.end(A if upload[0] == "a" else B, upload, 0.0)
    assert served == "ababaaaa"


def test_the_child_with_the_fewest_uploads_under_way_is_next() -> None:
    slots = UploadSlots[str](3)
    for upload in ("a1", "a2", "a3", "a4"):
        slots.ask(A, upload)
    assert slots.grant(0.0) == ["a1", "a2", "a3"]
    slots.ask(B, "b1")
    slots.end(A, "a1", 0.0)
    assert slots.grant(0.0) == ["b1"], "though a4 has waited longer"


def test_who_gives_up_waiting_is_forgotten() -> None:
    slots = UploadSlots[str](1)
    slots.ask(A, "a1")
    slots.grant(0.0)
    slots.ask(B, "b1")
    slots.end(B, "b1", 0.0)
    slots.end(A, "a1", 0.0)
    assert (slots.grant(0.0), slots.running, slots.waiting) == ([], 0, 0)


def test_fewer_slots_stop_nothing_and_let_nothing_begin() -> None:
    slots = UploadSlots[str](2)
    for upload in ("a1", "a2", "a3"):
        slots.ask(A, upload)
    slots.grant(0.0)
    slots.total = 1
    slots.end(A, "a1", 0.0)
    assert (slots.grant(0.0), slots.running) == ([], 1)
    slots.total = 3
    assert slots.grant(0.0) == ["a3"]


def test_few_uploads_share_the_link_however_many_slots_there_are() -> None:
    slots = UploadSlots[int](64)
    for upload in range(2 * AT_ONCE):
        slots.ask(A, upload)
    assert slots.grant(0.0) == [*range(AT_ONCE)]
    slots.end(A, 0, 0.5)
    assert slots.grant(0.5) == [AT_ONCE]


def test_who_takes_several_times_as_long_as_is_usual_holds_up_nobody() -> None:
    slots = UploadSlots[int](AT_ONCE + 1)
    for upload in range(AT_ONCE + 4):
        slots.ask(A, upload)
    slots.grant(0.0)
    slots.end(A, 0, 0.1)
    assert slots.grant(0.1) == [AT_ONCE]
    due = slots.next_timeout(0.1)
    assert due == 0.1 * OVERTIME_FACTOR
    assert slots.grant(due) == [AT_ONCE + 1]
    assert slots.next_timeout(due) is None, "no more than the limit"
