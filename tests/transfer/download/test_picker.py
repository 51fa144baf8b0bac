from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from gossipcache.ids import NodeId
from gossipcache.swarm import NO_BORDER, Border
from gossipcache.transfer.download.picker import Picker

A, B, C = (NodeId(bytes([byte]) * 16) for byte in b"abc")


def picker_of(total: int) -> Picker:
    return Picker(total, random.Random(1))


def bitmap(*pieces: int) -> int:
    return sum(1 << index for index in pieces)


def test_takes_pieces_of_complete_parents_in_order() -> None:
    picker = picker_of(4)
    picker.add(A, picker.everything)
    assert [picker.claim(A) for _ in range(5)] == [0, 1, 2, 3, None]


def test_takes_the_rarest_piece_first() -> None:
    picker = picker_of(4)
    picker.add(A, bitmap(0, 1, 2))
    picker.add(B, bitmap(0, 1))
    picker.add(C, bitmap(0))
    assert [picker.claim(A) for _ in range(3)] == [2, 1, 0]


def test_of_equally_rare_pieces_takes_what_it_heard_of_last() -> None:
    picker = picker_of(8)
    picker.add(A, bitmap(3, 6))
    picker.add(B, bitmap(0, 6))
    picker.add(A, bitmap(5))
    picker.add(A, bitmap(1))
    assert [picker.claim(A) for _ in range(4)] == [1, 5, 3, 6]


def test_what_no_partial_parent_has_is_rarest() -> None:
    picker = picker_of(8)
    picker.add(A, picker.everything)
    picker.add(B, bitmap(0, 1, 2, 3, 4, 5, 6))
    assert picker.claim(A) == 7


def test_children_of_partial_parents_differ_in_their_choice() -> None:
    choices = set()
    for seed in range(20):
        picker = Picker(64, random.Random(seed))
        picker.add(A, picker.everything & ~1)
        choices.add(picker.claim(A))
    assert len(choices) > 5


def test_a_parent_that_left_no_longer_counts() -> None:
    picker = picker_of(2)
    picker.add(A, picker.everything)
    picker.add(B, bitmap(0))
    picker.remove(B)
    picker.add(C, bitmap(1))
    assert picker.claim(A) == 0
    assert picker.claim(B) is None


def test_pieces_are_scarce_while_few_of_those_that_partial_parents_have_are_to_be_asked_for() -> (
    None
):
    picker = picker_of(8)
    picker.add(A, bitmap(0, 1, 2))
    assert not picker.is_scarce(A)
    picker.claim(A)
    assert picker.is_scarce(A)
    picker.add(B, picker.everything)
    assert not picker.is_scarce(B), "it has everything already"


def test_of_a_parent_in_another_zone_only_the_own_shares_are_asked_that_are_not_near() -> None:
    picker = picker_of(18)
    picker.divide(Border(parents=(A,), shares=0b11))
    picker.add(A, picker.everything & ~1)
    picker.add(B, bitmap(9))
    assert {picker.claim(A) for _ in range(5)} == {1, 8, 16, 17, None}
    assert picker.claim(B) == 9


def test_a_parent_in_another_zone_gives_what_it_offers() -> None:
    picker = picker_of(18)
    picker.divide(Border(parents=(A,), shares=0b1))
    picker.offers(A)
    picker.add(A, bitmap(5))
    assert picker.claim(A) == 5
    assert picker.claim_beyond(A) in (0, 8, 16)


def test_one_that_offers_hears_what_others_gave_of_it_once_little_is_left_to_ask_it_for() -> None:
    picker = picker_of(18)
    for parent in (A, B):
        picker.offers(parent)
    picker.add(A, bitmap(0, 1, 2, 3))
    picker.add(B, bitmap(3, 4))
    assert [picker.claim(B), picker.claim(B)] == [3, 4]
    assert [picker.claim(A), picker.spare(A)] == [0, 0], "two more are to be asked for"
    assert [picker.claim(A), picker.spare(A)] == [1, bitmap(3, 4)]
    assert [picker.claim(A), picker.spare(A)] == [2, 0], "it knows"
    assert picker.spare(B) == 0, "nobody gave what it offered"
    picker.release(4)
    assert picker.claim(A) == 4, "it was not to offer it, and gives it"


def test_a_parent_stays_in_another_zone_when_it_is_not_assigned_any_more() -> None:
    picker = picker_of(18)
    picker.divide(Border(parents=(A,), shares=0b1))
    picker.add(A, bitmap(0, 1))
    picker.divide(NO_BORDER)
    assert picker.claim(A) is None


def test_a_released_piece_is_to_be_had_again_unless_it_is_there() -> None:
    picker = picker_of(2)
    picker.add(A, picker.everything)
    assert picker.claim(A) == 0
    picker.release(0)
    assert picker.claim(A, exclude=bitmap(0)) == 1
    assert picker.claim(A) == 0
    picker.found(bitmap(0, 1))
    picker.release(0)
    assert picker.claim(A) is None
    assert picker.missing == 0


def test_a_withdrawn_piece_is_asked_of_others_only() -> None:
    picker = picker_of(1)
    picker.add(A, picker.everything)
    picker.add(B, picker.everything)
    picker.withdraw(A, 0)
    assert not picker.has(A, 0)
    assert picker.claim(A) is None
    assert picker.claim(B) == 0


@given(
    holdings=st.lists(st.integers(0, 2**24 - 1), min_size=1, max_size=5),
    present=st.integers(0, 2**24 - 1),
    seed=st.integers(0, 99),
)
def test_every_piece_that_somebody_has_is_claimed_once(
    holdings: list[int], present: int, seed: int
) -> None:
    picker = Picker(24, random.Random(seed))
    picker.found(present)
    nodes = [NodeId(bytes([number]) * 16) for number in range(len(holdings))]
    for node, pieces in zip(nodes, holdings, strict=True):
        picker.add(node, pieces)
    claimed: list[int] = []
    for node, pieces in zip(nodes, holdings, strict=True):
        while (index := picker.claim(node)) is not None:
            assert pieces >> index & 1
            claimed.append(index)
    union = 0
    for pieces in holdings:
        union |= pieces
    assert len(set(claimed)) == len(claimed)
    assert bitmap(*claimed) == union & ~present
