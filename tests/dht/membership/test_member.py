"""Member records: signed by their subject, bound to a cluster, versioned by incarnation."""

from __future__ import annotations

import msgspec
import pytest

from gossipcache.charter import MAX_TICKET_BYTES
from gossipcache.dht.membership.member import (
    MAX_INCARNATION,
    MAX_PAYLOAD_BYTES,
    Profile,
    Verifier,
    accuse,
    boot_incarnation,
    next_boot,
)
from gossipcache.errors import IntegrityError, ProtocolError
from gossipcache.identity import Signed
from gossipcache.ids import Address
from gossipcache.settings import MAX_ZONE_BYTES
from tests.dht.membership.harness import CLUSTER_ID, identity, node_id, profile

VERIFIER = Verifier(CLUSTER_ID)


def test_a_record_gives_back_the_member_that_signed_it() -> None:
    member = profile(1).sign(identity(1), 77, "active")
    assert VERIFIER.member(member.record) == member
    assert member.node_id == node_id(1)
    assert (member.state, member.is_live, member.owns_keys) == ("alive", True, True)


@pytest.mark.parametrize(
    ("phase", "state", "owns"),
    [
        ("joining", "alive", False),
        ("active", "alive", True),
        ("active", "suspect", True),
        ("active", "dead", False),
        ("left", "left", False),
    ],
)
def test_who_owns_keys(phase: str, state: str, owns: bool) -> None:
    member = profile(1).sign(identity(1), 1, phase)  # type: ignore[arg-type]
    assert member.in_state(state).owns_keys is owns  # type: ignore[arg-type]


def test_a_peer_without_the_role_of_scheduler_owns_no_keys() -> None:
    only_peer = Profile(CLUSTER_ID, "p", Address("10.0.0.1", 1), frozenset(("peer",)))
    assert not only_peer.sign(identity(1), 1, "active").owns_keys


def test_an_altered_record_is_refused() -> None:
    record = profile(1).sign(identity(1), 77, "active").record
    altered = record.payload.replace(b"node-1", b"node-2")
    with pytest.raises(IntegrityError):
        VERIFIER.member(msgspec.structs.replace(record, payload=altered))
    with pytest.raises(IntegrityError):
        VERIFIER.member(msgspec.structs.replace(record, key=identity(2).public_key))


def test_a_record_for_another_purpose_or_cluster_or_without_address_is_refused() -> None:
    payload = profile(1).sign(identity(1), 77, "active").record.payload
    with pytest.raises(IntegrityError):
        VERIFIER.member(identity(1).sign(b"something else", payload))
    elsewhere = Profile(b"another!", "n", Address("10.0.0.1", 1), frozenset())
    with pytest.raises(IntegrityError, match="another cluster"):
        VERIFIER.member(elsewhere.sign(identity(1), 1, "active").record)
    portless = Profile(CLUSTER_ID, "n", Address("localhost", 0), frozenset())
    with pytest.raises(IntegrityError, match="address"):
        VERIFIER.member(portless.sign(identity(1), 1, "active").record)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a.example.com",
        "localhost",
        "..",
        "\0",
        "10.0.0.1\0",
        "é" * 20,
        "fe80::1%lo",
        "0.0.0.0",
        "ff02::1",
    ],
)
def test_nobody_looks_up_a_name_on_a_members_word(host: str) -> None:
    named = Profile(CLUSTER_ID, "n", Address(host, 1), frozenset())
    with pytest.raises(IntegrityError, match="numeric"):
        VERIFIER.member(named.sign(identity(1), 1, "active").record)


def test_a_name_cannot_drive_a_terminal() -> None:
    for name in ("\x1b[2J", "a\nb", "\u202e"):
        member = Profile(CLUSTER_ID, name, Address("10.0.0.1", 1), frozenset())
        with pytest.raises(IntegrityError, match="printed"):
            VERIFIER.member(member.sign(identity(1), 1, "active").record)


def test_a_zone_travels_in_the_record_and_can_drive_no_terminal() -> None:
    def read(zone: str) -> str:
        made = Profile(CLUSTER_ID, "n", Address("10.0.0.1", 1), frozenset(), zone=zone)
        return VERIFIER.member(made.sign(identity(1), 1, "active").record).zone

    assert read("rack 7") == "rack 7"
    assert read("") == ""
    with pytest.raises(IntegrityError, match="printed"):
        read("\x1b[2J")
    with pytest.raises(ProtocolError):
        read("z" * (MAX_ZONE_BYTES + 1))


def test_the_longest_record_is_read() -> None:
    longest = Profile(
        CLUSTER_ID,
        "ñ" * 32,
        Address("2001:db8:1111:2222:3333:4444:5555:6666%en0", 65535),
        frozenset(("peer", "scheduler")),
        bytes(MAX_TICKET_BYTES),
        "ü" * (MAX_ZONE_BYTES // 2),
    )
    member = longest.sign(identity(1), MAX_INCARNATION, "joining")
    assert len(member.record.payload) <= MAX_PAYLOAD_BYTES


def test_a_signed_payload_that_is_no_record_is_refused() -> None:
    for payload in (b"", b"\x80", b"\xff", bytes(1000)):
        with pytest.raises(ProtocolError):
            VERIFIER.member(identity(1).sign(b"gossipcache/member/1", payload))


def test_an_accusation_holds_only_for_what_its_accuser_signed() -> None:
    accusation = accuse(identity(1), CLUSTER_ID, node_id(2), 5, "suspect")
    VERIFIER.accusation(accusation, identity(1).public_key)
    for change in ({"incarnation": 6}, {"verdict": "dead"}, {"subject": node_id(3)}):
        with pytest.raises(IntegrityError):
            VERIFIER.accusation(
                msgspec.structs.replace(accusation, **change),
                identity(1).public_key,
            )
    with pytest.raises(IntegrityError):
        VERIFIER.accusation(accusation, identity(3).public_key)


def test_long_names_are_cut_at_a_character() -> None:
    member = Profile(CLUSTER_ID, "ñ" * 60, Address("10.0.0.1", 1), frozenset()).sign(
        identity(1), 1, "active"
    )
    assert member.name == "ñ" * 32


def test_the_verifier_remembers_a_limited_number() -> None:
    verifier = Verifier(CLUSTER_ID, remembered=2)
    records: list[Signed] = [profile(n).sign(identity(n), 1, "active").record for n in range(4)]
    for record in records * 2:
        verifier.member(record)
    assert len(verifier._members) == 2


def test_incarnations_grow_with_every_boot() -> None:
    first = boot_incarnation(1_800_000_000.0)
    assert boot_incarnation(1_800_000_000.001) > first + 1000
    assert next_boot(first + 5) > first + 5
    assert next_boot(first + 5) >> 32 == (first >> 32) + 1
    assert 0 < boot_incarnation(0) < first < boot_incarnation(1e12) < 2**63
