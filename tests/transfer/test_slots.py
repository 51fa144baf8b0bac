"""Upload slots: children take turns, whatever they ask for."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipcache.ids import NodeId
from gossipcache.transfer.slots import (
    AT_ONCE,
    MAX_PER_CHILD,
    MIN_WAIT_S,
    OVERTIME_FACTOR,
    UploadSlots,
)

A, B, C, D, E = (NodeId(name * 16) for name in (b"a", b"b", b"c", b"d", b"e"))


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


def test_a_slow_child_with_many_channels_leaves_slots_to_others() -> None:
    slots = UploadSlots[str](2 * MAX_PER_CHILD)
    for number in range(3 * MAX_PER_CHILD):
        slots.ask(A, f"a{number}")
    granted = [upload for now in range(0, 1000, 10) for upload in slots.grant(float(now))]
    assert len(granted) == MAX_PER_CHILD
    slots.ask(B, "b1")
    assert slots.grant(1000.0) == ["b1"]


def test_a_child_whose_slow_uploads_are_usual_keeps_nobody_away() -> None:
    slots = UploadSlots[str](64)
    for number in range(2 * AT_ONCE):
        slots.ask(A, f"a{number}")
    slots.grant(0.0)
    for number in range(AT_ONCE):
        slots.end(A, f"a{number}", 300.0)
    assert len(slots.grant(300.0)) == AT_ONCE
    for child, upload in ((B, "b1"), (B, "b2"), (C, "c1"), (D, "d1"), (E, "e1")):
        slots.ask(child, upload)
    assert slots.grant(301.0) == ["b1", "c1", "d1"], "pieces to four children are under way"


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


def in_line(slots: UploadSlots[str], names: str) -> None:
    """Each of `names` is a child that asks for one upload."""
    for name in names:
        slots.ask(NodeId(name.encode() * 16), name)


def test_the_wait_is_told_from_the_place_in_line_and_from_what_uploads_took() -> None:
    slots = UploadSlots[str](1)
    in_line(slots, "abcd")
    slots.grant(0.0)
    slots.end(A, "a", 5.0)
    assert slots.grant(5.0) == ["b"]
    assert slots.wait_s(C, "c", 5.0) == pytest.approx(5.0)
    assert slots.wait_s(D, "d", 5.0) == pytest.approx(10.0)
    assert slots.wait_s(D, "d", 8.0) == pytest.approx(7.0)
    assert slots.line_s(8.0) == pytest.approx(10.0), "for who comes now"


def test_while_no_upload_was_over_one_takes_at_least_as_long_as_it_has_taken_yet() -> None:
    slots = UploadSlots[str](1)
    in_line(slots, "abc")
    slots.grant(0.0)
    assert slots.wait_s(C, "c", 0.0) == MIN_WAIT_S
    assert slots.wait_s(C, "c", 30.0) == pytest.approx(30.0)


def test_those_who_are_slow_leave_fewer_places_for_those_who_wait() -> None:
    slots = UploadSlots[str](2)
    in_line(slots, "abcde")
    slots.grant(0.0)
    slots.end(A, "a", 1.0)
    assert slots.grant(1.0) == ["c"]
    assert slots.wait_s(E, "e", 1.0) == pytest.approx(1.5)
    assert slots.wait_s(E, "e", 1.9 + 3) > 2.5, "b and c are slow"


moves = st.lists(
    st.tuples(st.sampled_from(["ask", "end", "give up"]), st.integers(0, 9)), max_size=80
)


class Hall:
    """Children that ask for uploads, and how often each passes one that waits for its first."""

    def __init__(self, total: int) -> None:
        self.slots = UploadSlots[str](total)
        self.running: list[str] = []
        self.waiting: list[str] = []
        self._passed: dict[str, Counter[str]] = {}
        """By upload of a child that has none under way: the turns of others since it asked."""
        self._now = 0.0

    def ask(self, name: str) -> None:
        upload = f"{name}{len(self.waiting) + len(self.running)}@{self._now}"
        if name not in self._names(self.waiting + self.running):
            self._passed[upload] = Counter()
        self.waiting.append(upload)
        self.slots.ask(child_of(upload), upload)

    def end(self, uploads: list[str], number: int) -> None:
        if uploads:
            upload = uploads.pop(number % len(uploads))
            self._passed.pop(upload, None)
            self.slots.end(child_of(upload), upload, self._now)

    def grant(self) -> None:
        self._now += 0.01
        for upload in self.slots.grant(self._now):
            self.waiting.remove(upload)
            self.running.append(upload)
            self._passed.pop(upload, None)
            for passed, turns in self._passed.items():
                turns[upload[0]] += 1
                assert turns[upload[0]] == 1, f"{upload} passed {passed} again"

    def _names(self, uploads: list[str]) -> set[str]:
        return {upload[0] for upload in uploads}


def child_of(upload: str) -> NodeId:
    return NodeId(upload[0].encode() * 16)


@given(total=st.integers(1, 5), moves=moves)
def test_nobody_who_waits_for_a_first_piece_is_passed_by_another_twice(
    total: int, moves: list[tuple[str, int]]
) -> None:
    hall = Hall(total)
    for move, number in moves:
        if move == "ask":
            hall.ask("abcdefghij"[number])
        else:
            hall.end(hall.running if move == "end" else hall.waiting, number)
        hall.grant()
    while hall.running:
        hall.end(hall.running, 0)
        hall.grant()
    assert (hall.waiting, hall.slots.waiting) == ([], 0), "nobody starves"


@given(names=st.text("abcdefgh", min_size=2, max_size=30), took_s=st.floats(0.5, 60.0))
def test_where_all_take_as_long_what_is_told_comes_true(names: str, took_s: float) -> None:
    slots, now = UploadSlots[str](1), 0.0
    uploads = {f"{name}{number}": NodeId(name.encode() * 16) for number, name in enumerate(names)}
    for upload, child in uploads.items():
        slots.ask(child, upload)
    told: dict[str, float] = {}
    while slots.waiting:
        (upload,) = slots.grant(now)
        assert told.get(upload, now) == pytest.approx(now)
        if now:
            told |= {
                other: now + slots.wait_s(child, other, now)
                for other, child in uploads.items()
                if other != upload
            }
        now += took_s
        slots.end(uploads.pop(upload), upload, now)
