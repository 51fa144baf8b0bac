from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipcache.errors import ProtocolError
from gossipcache.transfer.pieces import PieceSet

totals_and_pieces = st.integers(0, 70).flatmap(
    lambda total: st.tuples(
        st.just(total), st.sets(st.integers(0, max(total - 1, 0))) if total else st.just(set[int]())
    )
)


@given(totals_and_pieces)
def test_it_is_the_set_it_was_made_of(case: tuple[int, set[int]]) -> None:
    total, pieces = case
    have = PieceSet.of(pieces, total)
    assert set(have) == pieces
    assert set(have.missing()) == set(range(total)) - pieces
    assert have.count == len(have) == len(pieces)
    assert have.complete == (len(pieces) == total)
    assert PieceSet.from_bytes(have.to_bytes(), total) == have
    assert have.without(pieces) == PieceSet.empty(total)
    assert have.with_pieces(range(total)) == PieceSet.full(total)


def test_piece_0_is_the_highest_bit_as_in_bep_3() -> None:
    assert PieceSet.of([0, 9], 10).to_bytes() == b"\x80\x40"


def test_an_empty_file_has_all_its_pieces() -> None:
    assert PieceSet.empty(0).complete


@pytest.mark.parametrize("bitmap", [b"", b"\0\0", b"\x01"])
def test_a_bitmap_that_does_not_fit_is_refused(bitmap: bytes) -> None:
    with pytest.raises(ProtocolError):
        PieceSet.from_bytes(bitmap, 7)


@pytest.mark.parametrize("index", [-1, 10])
def test_a_piece_beyond_the_last_is_refused(index: int) -> None:
    assert index not in PieceSet.full(10)
    with pytest.raises(ValueError):
        PieceSet.empty(10).with_pieces([index])
