"""Statements signed alone, and together."""

from __future__ import annotations

from hashlib import blake2b

import nacl.signing
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gossipcache.errors import IntegrityError
from gossipcache.identity import MAX_BATCH, Identity, Signed, verify, verify_shared

DOMAIN = b"test/1"
ME = Identity(b"m" * 32)


def payloads(count: int) -> list[bytes]:
    return [f"payload {number}".encode() for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, MAX_BATCH, MAX_BATCH + 1, 2 * MAX_BATCH + 3])
def test_each_that_was_signed_together_is_verified_alone(count: int) -> None:
    signed = ME.sign_all(DOMAIN, payloads(count))
    assert [verify_shared(one, DOMAIN) for one in signed] == payloads(count)
    assert {one.signer for one in signed} <= {ME.node_id}
    signatures = {one.signature[:64] for one in signed}
    assert len(signatures) == -(-count // MAX_BATCH)


def test_one_alone_has_an_ordinary_signature() -> None:
    assert ME.sign_all(DOMAIN, [b"x"]) == [ME.sign(DOMAIN, b"x")]
    assert verify_shared(ME.sign(DOMAIN, b"x"), DOMAIN) == b"x"


def test_a_shared_signature_is_void_where_none_may_be_shared() -> None:
    for one in ME.sign_all(DOMAIN, payloads(3)):
        with pytest.raises(IntegrityError):
            verify(one, DOMAIN)


def refused(signed: Signed, domain: bytes = DOMAIN) -> None:
    with pytest.raises(IntegrityError):
        verify_shared(signed, domain)


def test_nothing_else_is_proven_by_it() -> None:
    signed = ME.sign_all(DOMAIN, payloads(5))
    for one in signed:
        verify_shared(one, DOMAIN)
        refused(one, b"other/1")
        refused(replace(one, payload=b"payload 7"))
        refused(replace(one, key=Identity(b"o" * 32).public_key))
    refused(replace(signed[0], signature=signed[1].signature))
    refused(replace(signed[1], payload=bytes(32)))


@given(st.integers(0, 4), st.integers(0, 8 * (64 + 1 + 3 * 32) - 1))
def test_no_bit_of_it_can_be_another(which: int, bit: int) -> None:
    one = ME.sign_all(DOMAIN, payloads(5))[which]
    altered = bytearray(one.signature)
    altered[bit // 8] ^= 1 << bit % 8
    refused(replace(one, signature=bytes(altered)))


@given(st.binary(min_size=0, max_size=200))
def test_a_way_of_any_other_form_is_refused(way: bytes) -> None:
    one = ME.sign_all(DOMAIN, payloads(2))[0]
    if way != one.signature[64:]:
        refused(replace(one, signature=one.signature[:64] + way))


def test_an_inner_node_is_no_statement() -> None:
    signed = ME.sign_all(DOMAIN, payloads(4))
    first, second = signed[0], signed[1]
    left = leaf(first.payload) + leaf(second.payload)
    beside = first.signature[-32:]
    refused(replace(first, payload=left, signature=first.signature[:64] + b"\0" + beside))


def test_it_is_as_documented() -> None:
    one = ME.sign_all(DOMAIN, payloads(3))[2]
    signature, place, way = one.signature[:64], one.signature[64], one.signature[65:]
    assert place == 2
    assert way == bytes(32) + node(leaf(b"payload 0"), leaf(b"payload 1"))
    root = node(way[32:], node(leaf(one.payload), way[:32]))
    domain = b"gossipcache/batch/1"
    message = len(domain).to_bytes(2, "big") + domain + root
    nacl.signing.VerifyKey(one.key).verify(message, signature)


def leaf(payload: bytes) -> bytes:
    message = len(DOMAIN).to_bytes(2, "big") + DOMAIN + payload
    return blake2b(message, digest_size=32, person=b"gossipcache/leaf").digest()


def node(left: bytes, right: bytes) -> bytes:
    return blake2b(left + right, digest_size=32, person=b"gossipcache/node").digest()
