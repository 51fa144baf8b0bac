"""Counting answers: what one keeper's word is worth."""

from __future__ import annotations

from gossipcache.dht.records.reading import Absent, Accept, Fork, ReadTally, TaskRecord
from gossipcache.dht.records.standing import merge, standing_manifest, standing_tombstone
from tests.dht.records.harness import EPOCH_S, identity, manifest, tombstone

A, B, C = (identity(number).node_id for number in range(3))
ONE = manifest("a task", 1, "one")
TWO = manifest("a task", 1, "two")
PROVEN = manifest("sha256:" + "ab" * 32)


def tally(accept: Accept | None = None, needed: int = 2) -> ReadTally:
    return ReadTally(needed, accept, EPOCH_S)


def test_two_keepers_must_agree() -> None:
    answers = tally()
    answers.held(A, standing_manifest(ONE), settled=True)
    assert answers.decision() is None
    answers.held(B, standing_manifest(ONE), settled=True)
    assert answers.decision() == TaskRecord(ONE, None, 1, 2)


def test_a_new_keeper_that_may_have_heard_from_one_liar_only_does_not_count() -> None:
    answers = tally()
    answers.held(A, standing_manifest(ONE), settled=True)
    answers.held(B, standing_manifest(ONE), settled=False)
    assert answers.decision() is None


def test_differing_answers_decide_nothing() -> None:
    answers = tally()
    answers.held(A, standing_manifest(ONE), settled=True)
    answers.held(B, standing_manifest(TWO), settled=True)
    answers.held(C, standing_manifest(ONE), settled=True)
    assert answers.decision() is None
    assert answers.disagrees


def test_a_reader_is_told_what_keeps_it_waiting() -> None:
    answers = tally()
    assert "too few" in answers.hindrance
    answers.recovering()
    assert "recovering" in answers.hindrance
    answers.held(A, standing_manifest(ONE), settled=True)
    answers.held(B, standing_manifest(TWO), settled=True)
    assert "agree" in answers.hindrance


def test_for_what_proves_itself_one_settled_keeper_is_enough_if_no_other_answers() -> None:
    recovering, settled = tally(), tally()
    recovering.held(A, standing_manifest(PROVEN), settled=False)
    assert recovering.decision(last=True) is None
    settled.held(A, standing_manifest(PROVEN), settled=True)
    assert settled.decision() is None
    assert settled.decision(last=True) == TaskRecord(PROVEN, None, 1, 1)


def test_a_deletion_that_one_keeper_missed_is_heard_of_from_the_next() -> None:
    answers = tally()
    answers.held(A, standing_manifest(PROVEN), settled=True)
    assert answers.decision() is None
    answers.held(B, standing_tombstone(tombstone(PROVEN)), settled=True)
    assert answers.decision() is None
    assert answers.disagrees


def test_one_keeper_is_enough_for_what_the_caller_knows() -> None:
    answers = tally(accept=lambda one: one.name == TWO.name)
    answers.held(A, merge(standing_manifest(ONE), standing_manifest(TWO)), settled=True)
    answers.absent(B)
    assert answers.decision() == TaskRecord(TWO, None, 1, 1)


def test_what_the_caller_knows_counts_against_a_later_one_of_a_single_keeper() -> None:
    answers = tally(accept=lambda one: one.name == ONE.name)
    answers.held(A, standing_manifest(ONE), settled=True)
    answers.held(B, standing_manifest(manifest("a task", 5, "five")), settled=True)
    assert answers.decision() is None
    assert answers.decision(last=True) == TaskRecord(ONE, None, 1, 1)


def test_a_tombstone_overrules_an_older_manifest_once_agreed() -> None:
    answers = tally()
    dead = tombstone(PROVEN)
    answers.held(A, standing_tombstone(dead), settled=True)
    answers.held(B, standing_manifest(PROVEN), settled=True)
    assert answers.decision() is None
    answers.held(C, standing_tombstone(dead), settled=True)
    assert answers.decision() == TaskRecord(None, dead, 1, 2)


def test_absence_needs_its_quorum() -> None:
    answers = tally()
    answers.absent(A)
    assert answers.decision() is None
    answers.absent(B)
    assert answers.decision() == Absent()


def test_an_expired_manifest_is_absent() -> None:
    answers = tally()
    expired = standing_manifest(manifest("a task", expires_at=int(EPOCH_S) - 1))
    answers.held(A, expired, settled=True)
    answers.held(B, expired, settled=True)
    assert answers.decision() == Absent()


def test_an_agreed_fork_is_named() -> None:
    answers = tally()
    fork = merge(standing_manifest(ONE), standing_manifest(TWO))
    answers.held(A, fork, settled=True)
    answers.held(B, fork, settled=True)
    decision = answers.decision()
    assert isinstance(decision, Fork)
    assert {one.name for one in decision.manifests} == {ONE.name, TWO.name}
