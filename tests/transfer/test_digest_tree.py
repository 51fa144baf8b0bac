from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipcache.errors import IntegrityError
from gossipcache.transfer.digest_tree import (
    FANOUT,
    MAX_PAGE_BYTES,
    DigestTree,
    TreeAssembly,
    page_count,
    piece_digest,
)


def tree_of(piece_count: int) -> DigestTree:
    return DigestTree(b"".join(piece_digest(b"%d" % index) for index in range(piece_count)))


@settings(max_examples=15)
@given(st.sampled_from([0, 1, 2, FANOUT - 1, FANOUT, FANOUT + 1, 3 * FANOUT + 7]), st.randoms())
def test_a_child_gets_the_tree_by_pages_in_any_order(piece_count: int, rng: random.Random) -> None:
    tree = tree_of(piece_count)
    assembly = TreeAssembly(tree.root, piece_count)
    while assembly.tree is None:
        level, index = rng.choice(assembly.wanted())
        page = tree.page(level, index)
        assert len(page) <= MAX_PAGE_BYTES
        assembly.add(level, index, page)
    assert assembly.tree.digests == tree.digests
    assert assembly.tree.root == tree.root
    assert assembly.wanted() == ()


def test_three_levels() -> None:
    piece_count = FANOUT * FANOUT + 1
    tree = DigestTree(bytes(32 * piece_count))
    assert tree.levels == 3
    assert [page_count(piece_count, level) for level in range(3)] == [FANOUT + 1, 2, 1]
    assert len(tree.page(0, FANOUT)) == 32


@pytest.mark.parametrize("forged", [b"", bytes(32), bytes(MAX_PAGE_BYTES)])
def test_a_forged_page_is_refused(forged: bytes) -> None:
    assembly = TreeAssembly(tree_of(5).root, 5)
    with pytest.raises(IntegrityError):
        assembly.add(0, 0, forged)
    assert assembly.wanted() == ((0, 0),)


def test_a_page_of_one_level_does_not_pass_for_one_of_another() -> None:
    # Two pages of digests whose digests, listed, look like a page of two pieces.
    tree = tree_of(FANOUT + 1)
    assert DigestTree(tree.page(1, 0)).root != tree.root


def test_a_page_that_nobody_waits_for_is_ignored() -> None:
    assembly = TreeAssembly(tree_of(2 * FANOUT).root, 2 * FANOUT)
    assembly.add(0, 0, b"early")
    assert assembly.wanted() == ((1, 0),)


def test_an_empty_file_has_a_fixed_root() -> None:
    fixed = "a7e6628415ae27c722d7a3c7a08f9a9f9af9a908f3a0c17520746312e70de230"
    assert DigestTree(b"").root.hex() == fixed
    assert TreeAssembly(DigestTree(b"").root, 0).tree is not None
    with pytest.raises(IntegrityError):
        TreeAssembly(bytes(32), 0)


def test_it_tells_a_good_piece_from_a_bad_one() -> None:
    tree = tree_of(3)
    assert tree.matches(1, b"1")
    assert not tree.matches(1, b"2")
    with pytest.raises(IndexError):
        tree.piece(3)
    with pytest.raises(IndexError):
        tree.page(1, 0)
