"""What a keeper believes of a signed statement, and what it drops."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipcache.identity import Signed
from gossipcache.ids import TaskId
from gossipcache.messages.announcements import MAX_BATCH_ENTRIES, Announce
from gossipcache.schedule.announcement import (
    AnnouncementBatch,
    Dropped,
    Held,
    HeldSet,
    LeaseHeartbeat,
    Verifier,
    sign_batch,
    sign_heartbeat,
)
from gossipcache.wire import MAX_MESSAGE_BYTES, encode
from tests.schedule.fixtures import CLUSTER, WALL, batch_of, held_of, identity, manifest_of

HOLDER = identity(2)
TASK = held_of(manifest_of("a"))


def verifier(**changed: Any) -> Verifier:
    fields: dict[str, Any] = {
        "sender": HOLDER.node_id,
        "cluster_id": CLUSTER.cluster_id,
        "floor": 10,
        "wall_time": WALL,
        "clock_skew_s": 300.0,
    }
    return Verifier(**(fields | changed))


def test_a_good_batch_is_opened() -> None:
    batch = batch_of(TASK, sequence=11)
    assert verifier().open_batch(sign_batch(batch, HOLDER)) == batch


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        (batch_of(TASK, sequence=10), "replayed"),
        (batch_of(TASK, sequence=11, cluster_id=b"cluster2"), "foreign"),
        (batch_of(TASK, sequence=11, issued_at=0, expires_at=3600), "expired"),
        (batch_of(TASK, sequence=11, issued_at=int(WALL) + 301), "expired"),
        (batch_of(TASK, sequence=11, expires_at=int(WALL) + 86_401), "malformed"),
        (batch_of(TASK, sequence=11, expires_at=int(WALL) - 1), "malformed"),
        (batch_of(TASK, TASK, sequence=11), "malformed"),
        (batch_of(TASK, sequence=11, withdrawn=(TASK.task_id,)), "malformed"),
        (batch_of(msgspec.structs.replace(TASK, pieces=9), sequence=11), "malformed"),
        (batch_of(sequence=2**63), "malformed"),
    ],
)
def test_a_bad_batch_is_dropped(batch: AnnouncementBatch, reason: str) -> None:
    expected = Dropped(reason)  # type: ignore[arg-type]
    assert verifier().open_batch(sign_batch(batch, HOLDER)) == expected


def test_clocks_may_differ_by_the_tolerance() -> None:
    signed = sign_batch(batch_of(TASK, sequence=11), HOLDER)
    assert isinstance(verifier(wall_time=WALL - 300).open_batch(signed), AnnouncementBatch)
    assert isinstance(verifier(wall_time=WALL + 3900).open_batch(signed), AnnouncementBatch)
    assert verifier(wall_time=WALL + 3901).open_batch(signed) == Dropped("expired")


def test_another_nodes_signature_does_not_speak_for_the_sender() -> None:
    signed = sign_batch(batch_of(TASK, sequence=11), identity(3))
    assert verifier().open_batch(signed) == Dropped("forged")


def test_any_altered_byte_voids_the_signature() -> None:
    signed = sign_batch(batch_of(TASK, sequence=11), HOLDER)
    for place in range(0, len(signed.payload), 7):
        payload = bytearray(signed.payload)
        payload[place] ^= 1
        altered = Signed(bytes(payload), signed.key, signed.signature)
        assert verifier().open_batch(altered) == Dropped("altered")


def test_a_signature_for_one_purpose_is_void_for_another() -> None:
    heartbeat = LeaseHeartbeat(
        cluster_id=CLUSTER.cluster_id,
        sequence=11,
        issued_at=int(WALL),
        expires_at=int(WALL) + 30,
        entries=0,
        set_digest=bytes(16),
    )
    signed = sign_heartbeat(heartbeat, HOLDER)
    assert verifier().open_heartbeat(signed) == heartbeat
    assert verifier().open_batch(signed) == Dropped("altered")


def test_what_is_well_signed_may_still_be_garbage() -> None:
    signed = HOLDER.sign(b"gossipcache/announcement/1", b"\xa1\x00\x01")
    assert verifier().open_batch(signed) == Dropped("malformed")


def test_an_oversized_payload_is_not_even_verified() -> None:
    signed = Signed(bytes(MAX_MESSAGE_BYTES), HOLDER.public_key, bytes(64))
    assert verifier().open_batch(signed) == Dropped("oversized")


def test_the_largest_batch_fits_in_one_message() -> None:
    held = tuple(
        Held(TaskId(number.to_bytes(32, "big")), bytes(32), 2**22, 2**22)
        for number in range(MAX_BATCH_ENTRIES)
    )
    signed = sign_batch(batch_of(*held, sequence=2**63 - 1), HOLDER)
    assert len(encode(Announce(batch=signed))) <= MAX_MESSAGE_BYTES
    assert isinstance(verifier().open_batch(signed), AnnouncementBatch)


entries = st.builds(
    Held,
    st.integers(0, 5).map(lambda number: number.to_bytes(32, "big")),
    st.integers(0, 2).map(lambda number: number.to_bytes(32, "big")),
    st.integers(0, 3),
    st.just(3),
)


@given(st.lists(entries), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_the_set_hash_depends_on_the_set_alone(history: list[Held], rng: Any) -> None:
    grown = HeldSet()
    for held in history:
        grown.put(held)
    final = [entry for task_id in grown if (entry := grown.get(task_id)) is not None]
    rng.shuffle(final)
    direct = HeldSet()
    for held in final:
        direct.put(held)
    assert grown.digest == direct.digest
    for held in final:
        grown.remove(TaskId(held.task_id))
    assert grown.digest == bytes(16)


@given(st.sets(entries, max_size=4), st.sets(entries, max_size=4))
@settings(max_examples=50)
def test_different_sets_have_different_hashes(one: set[Held], other: set[Held]) -> None:
    first, second = HeldSet(), HeldSet()
    for held in one:
        first.put(held)
    for held in other:
        second.put(held)
    same = {first.get(task_id) for task_id in first} == {second.get(task_id) for task_id in second}
    assert (first.digest == second.digest) == same
