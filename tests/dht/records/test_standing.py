"""The merge of entries: a join semilattice, so that keepers end up equal in any order."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipcache.cluster import LOOPBACK
from gossipcache.dht.records.standing import (
    Opener,
    Standing,
    merge,
    standing_manifest,
    standing_tombstone,
    trusted_entry,
)
from gossipcache.errors import IntegrityError
from gossipcache.messages.records import MAX_FORK, RecordEntry
from tests.dht.records.harness import identity, manifest, task, tombstone

CID = "a task"
CONTENTS = ("one", "two", "three", "four", "five")
MANIFESTS = {
    (generation, content, number): manifest(CID, generation, content, identity(number))
    for generation in (1, 2)
    for content in CONTENTS
    for number in (1, 2)
}
ATOMS: list[Standing] = [standing_manifest(one) for one in MANIFESTS.values()] + [
    standing_tombstone(tombstone(one, identity(signer)))
    for key, one in MANIFESTS.items()
    if key[1] == "one"
    for signer in (1, 3)
]
standings = st.lists(st.sampled_from(ATOMS), min_size=1, max_size=5).map(
    lambda atoms: reduce(merge, atoms)
)
laws = settings(max_examples=150)


@laws
@given(standings, standings)
def test_merge_commutes(one: Standing, other: Standing) -> None:
    assert merge(one, other).version == merge(other, one).version


@laws
@given(standings, standings, standings)
def test_merge_associates(one: Standing, two: Standing, three: Standing) -> None:
    assert merge(merge(one, two), three).version == merge(one, merge(two, three)).version


@laws
@given(standings, standings)
def test_merge_is_idempotent(one: Standing, other: Standing) -> None:
    merged = merge(one, other)
    assert merge(merged, one).version == merge(merged, merged).version == merged.version


@laws
@given(standings, st.sampled_from([atom for atom in ATOMS if atom.tombstone is not None]))
def test_a_tombstone_beats_its_generation_and_all_before(one: Standing, buried: Standing) -> None:
    merged = merge(one, buried)
    if one.generation <= buried.generation:
        assert merged.tombstone is not None
        assert not merged.is_live(0)
    else:
        assert merged.version == one.version


def test_two_contents_of_one_generation_are_a_fork_of_bounded_size() -> None:
    all_contents = [standing_manifest(MANIFESTS[1, content, 1]) for content in CONTENTS]
    fork = reduce(merge, all_contents)
    assert fork.manifest is None
    assert len(fork.manifests) == MAX_FORK


def test_the_same_content_twice_is_no_fork() -> None:
    merged = merge(
        standing_manifest(MANIFESTS[1, "one", 1]), standing_manifest(MANIFESTS[1, "one", 2])
    )
    assert merged.manifest is not None


@laws
@given(standings)
def test_an_entry_comes_back_whole(standing: Standing) -> None:
    assert Opener(LOOPBACK.cluster_id).open(standing.entry, task(CID)) == standing
    assert trusted_entry(standing.entry) == standing


def test_entries_that_do_not_fit_together_are_refused() -> None:
    opener = Opener(LOOPBACK.cluster_id)
    first, second = MANIFESTS[1, "one", 1].signed, MANIFESTS[2, "one", 1].signed
    dead = tombstone(MANIFESTS[1, "one", 1]).signed
    for entry in (
        RecordEntry(manifests=(first, second)),
        RecordEntry(manifests=(first, manifest("another").signed)),
        RecordEntry(manifests=(first, first), tombstone=dead),
        RecordEntry(manifests=(second,), tombstone=dead),
    ):
        with pytest.raises(IntegrityError):
            opener.open(entry)
    with pytest.raises(IntegrityError, match="another task"):
        opener.open(RecordEntry(manifests=(first,)), task("another"))
    with pytest.raises(IntegrityError, match="another cluster"):
        Opener(b"elsewher").open(RecordEntry(manifests=(first,)))


def test_of_many_entries_the_valid_ones_are_opened() -> None:
    good = standing_manifest(MANIFESTS[1, "one", 1])
    altered = MANIFESTS[1, "two", 1].signed
    bad = RecordEntry(manifests=(type(altered)(altered.payload, altered.key, bytes(64)),))
    assert Opener(LOOPBACK.cluster_id).open_all((bad, good.entry)) == [good]


def test_a_checked_manifest_vouches_for_its_exact_bytes_only() -> None:
    opener = Opener(LOOPBACK.cluster_id)
    good = MANIFESTS[1, "one", 1].signed
    opener.open(RecordEntry(manifests=(good,)))
    for forged in (
        type(good)(good.payload, good.key, bytes(64)),
        type(good)(good.payload, identity(2).public_key, good.signature),
        type(good)(good.payload + b"\0", good.key, good.signature),
    ):
        with pytest.raises(IntegrityError):
            opener.open(RecordEntry(manifests=(forged,)))
