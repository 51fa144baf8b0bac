"""How a complete parent spreads its pieces over several children."""

from __future__ import annotations

from gossipcache.ids import NodeId
from gossipcache.transfer.offering import FIRST_OFFERS, LATEST, MAX_SILENT, SLOW_TURNS, Offering

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


def test_a_child_that_is_still_alone_when_it_has_the_first_pieces_hears_of_more_at_once() -> None:
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
    assert [made.asked(ANNE, index) for index in range(FIRST_OFFERS)] == [False, False, True, True]
    assert made.more(ANNE) == first << FIRST_OFFERS


def test_who_asks_for_nothing_of_what_it_knows_is_left_to_that_for_a_while() -> None:
    made = offering(ANNE, BERT)
    first = made.more(ANNE)
    told = [made.more(ANNE) for _ in range(MAX_SILENT)]
    assert told == [0] * (MAX_SILENT - 1) + [first << FIRST_OFFERS]


def test_who_has_from_others_what_it_knows_hears_of_what_it_has_not() -> None:
    made = offering(ANNE, BERT)
    assert made.more(ANNE) == 0b1111
    assert not made.spared(ANNE, 0b11)
    assert made.spared(ANNE, 0b110100)
    assert made.more(ANNE) == 0b1111000000
    assert made.more(BERT) == 0b110000 | 0b11 << 10


def test_what_a_child_has_from_others_it_does_not_give_back_when_it_is_gone() -> None:
    made = offering(ANNE, BERT, CARL)
    told = made.more(BERT)
    made.spared(ANNE, EVERYTHING)
    assert made.more(ANNE) == 0
    made.leave(ANNE)
    assert not made.more(CARL) & told


def test_who_has_all_from_others_is_told_of_nothing() -> None:
    made = offering(ANNE)
    made.spared(ANNE, EVERYTHING)
    assert made.knows_all(ANNE)
    assert not made.spared(BERT, EVERYTHING), "it does not follow"


def test_who_waits_for_what_it_asked_for_hears_of_nothing_new() -> None:
    made = offering(ANNE, BERT)
    made.more(ANNE)
    made.asked(ANNE, 0)
    assert [made.more(ANNE) for _ in range(2 * MAX_SILENT)] == [0] * (2 * MAX_SILENT)


def test_what_was_offered_in_vain_is_offered_to_others() -> None:
    made = offering(ANNE, BERT, CARL)
    made.more(ANNE)
    made.asked(ANNE, 0)
    made.leave(ANNE)
    assert made.more(BERT) == 0b1111


def test_once_each_piece_was_asked_for_several_children_are_left_to_each_other() -> None:
    made = offering(ANNE, BERT)
    told = {ANNE: 0, BERT: 0}
    for _ in range(PIECES):
        for child in (ANNE, BERT):
            told[child] |= (news := made.more(child))
            answer(made, child, news)
    assert told[ANNE] | told[BERT] == EVERYTHING
    assert not told[ANNE] & told[BERT]


def test_what_a_child_that_is_gone_got_last_is_offered_again() -> None:
    made = offering(ANNE, BERT, CARL)
    answer(made, ANNE, EVERYTHING)
    assert made.more(BERT) == 0
    made.leave(ANNE)
    assert made.more(BERT) == 0b1111 << PIECES - LATEST


def test_what_was_lost_with_a_channel_is_offered_again() -> None:
    made = offering(ANNE, BERT)
    answer(made, ANNE, EVERYTHING)
    made.settled(ANNE, lost=3)
    assert made.more(BERT) == 0b1000


def test_who_comes_when_each_piece_went_out_and_is_alone_hears_of_all() -> None:
    made = offering(ANNE, BERT)
    answer(made, ANNE, EVERYTHING)
    made.leave(ANNE)
    made.more(BERT)
    answer(made, BERT, 0b1111)
    for _ in range(PIECES):
        answer(made, BERT, made.more(BERT))
    assert made.knows_all(BERT)


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


def test_what_a_slow_child_waits_for_is_offered_to_others_when_all_else_is_out() -> None:
    made = offering(ANNE, BERT)
    slow = made.more(ANNE)
    ask_for_all(made, ANNE, slow)
    answer(made, BERT, EVERYTHING & ~slow)
    assert made.more(BERT) == 0
    for _ in range(2 * SLOW_TURNS):
        made.settled(BERT)
    assert made.more(BERT) == slow
