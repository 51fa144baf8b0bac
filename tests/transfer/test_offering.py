"""How a complete parent spreads its pieces over several children."""

from __future__ import annotations

from gossipcache.ids import NodeId
from gossipcache.transfer.offering import FIRST_OFFERS, Offering

PIECES = 16
EVERYTHING = (1 << PIECES) - 1
ANNE, BERT, CARL = (NodeId(name * 16) for name in (b"a", b"b", b"c"))


def offering(*children: NodeId, start: int = 0) -> Offering:
    made = Offering(PIECES, start)
    for child in children:
        made.join(child)
    return made


def ask_for_all(made: Offering, child: NodeId, pieces: int) -> None:
    for index in range(PIECES):
        if pieces >> index & 1:
            made.asked(child, index)


def answer(made: Offering, child: NodeId, pieces: int) -> None:
    ask_for_all(made, child, pieces)
    for _ in range(pieces.bit_count()):
        made.settled(child)


def test_a_child_that_is_still_alone_when_it_has_the_first_pieces_hears_of_everything() -> None:
    made = offering(ANNE)
    first = made.more(ANNE)
    assert first.bit_count() == FIRST_OFFERS
    answer(made, ANNE, first)
    assert made.more(ANNE) == EVERYTHING & ~first
    assert made.knows_all(ANNE)


def test_who_comes_first_of_several_does_not_hear_of_everything() -> None:
    made = offering(ANNE)
    first = made.more(ANNE)
    made.join(BERT)
    answer(made, ANNE, first)
    assert made.more(ANNE).bit_count() == FIRST_OFFERS
    assert not made.knows_all(ANNE)


def test_what_a_child_that_was_alone_asks_for_is_not_offered_to_others() -> None:
    made = offering(ANNE)
    answer(made, ANNE, made.more(ANNE))
    made.more(ANNE)
    made.join(BERT)
    ask_for_all(made, ANNE, 0b11110000)
    assert made.more(BERT) == 0b111100000000


def test_several_children_hear_of_different_pieces() -> None:
    made = offering(ANNE, BERT, start=2)
    assert [made.more(ANNE), made.more(BERT)] == [0b111100, 0b1111000000]


def test_who_has_asked_for_what_it_knows_hears_of_more() -> None:
    made = offering(ANNE, BERT)
    first = made.more(ANNE)
    assert made.more(ANNE), "it asked for nothing, so the first were of no use to it"
    made = offering(ANNE, BERT)
    first = made.more(ANNE)
    assert [made.asked(ANNE, index) for index in range(FIRST_OFFERS)] == [False, False, True, True]
    assert made.more(ANNE) == first << FIRST_OFFERS


def test_who_waits_for_what_it_asked_for_hears_of_nothing_new() -> None:
    made = offering(ANNE, BERT)
    made.more(ANNE)
    made.asked(ANNE, 0)
    assert made.more(ANNE) == 0
    made.settled(ANNE)
    assert made.more(ANNE).bit_count() == 2 * FIRST_OFFERS


def test_what_was_offered_in_vain_is_offered_to_others() -> None:
    made = offering(ANNE, BERT, CARL)
    made.more(ANNE)
    made.asked(ANNE, 0)
    made.leave(ANNE)
    assert made.more(BERT) == 0b11110


def test_once_each_piece_was_asked_for_everybody_hears_of_everything() -> None:
    made = offering(ANNE, BERT)
    while not made.is_open:
        for child in (ANNE, BERT):
            ask_for_all(made, child, made.more(child))
    assert made.more(ANNE)
    assert made.knows_all(ANNE)


def test_a_child_whom_nobody_else_helps_gets_all_in_the_end() -> None:
    made = offering(ANNE, BERT)
    made.more(BERT)
    heard = 0
    for _ in range(2 * PIECES):
        pieces = made.more(ANNE)
        heard |= pieces
        ask_for_all(made, ANNE, pieces)
        for _ in range(pieces.bit_count()):
            made.settled(ANNE)
    assert heard == EVERYTHING


def test_it_is_over_when_nobody_follows_any_more() -> None:
    made = offering(ANNE)
    made.leave(ANNE)
    made.leave(ANNE)
    assert made.is_idle
    assert not made.follows(ANNE)
    assert made.more(ANNE) == 0
