from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipcache.admission import Admission
from gossipcache.charter import Ticket, sign_ticket
from gossipcache.cluster import LOOPBACK, Cluster, cluster_from_secret
from gossipcache.config import AdmissionPolicy
from gossipcache.errors import (
    GossipcacheError,
    NodeUnreachable,
    NotPermitted,
    ProtocolError,
    VersionUnsupported,
)
from gossipcache.identity import Identity
from gossipcache.link.handshake import (
    Credentials,
    Effect,
    Established,
    Failed,
    Handshake,
    Send,
)
from gossipcache.wire import encode_plain
from tests.link.harness import open_to_all

SECRET = b"s" * 32


def credentials(number: int, cluster: Cluster = LOOPBACK) -> Credentials:
    return Credentials(
        Identity(bytes([number]) * 32), cluster, frozenset(("peer",)), open_to_all(cluster)
    )


def dialler(own: Credentials | None = None, nonce: bytes = b"d" * 32, **more: object) -> Handshake:
    return Handshake("dialler", own or credentials(1), nonce, **more)  # type: ignore[arg-type]


def acceptor(own: Credentials | None = None, nonce: bytes = b"a" * 32, **more: object) -> Handshake:
    return Handshake("acceptor", own or credentials(2), nonce, **more)  # type: ignore[arg-type]


def sent(effects: list[Effect]) -> list[bytes]:
    return [effect.data for effect in effects if isinstance(effect, Send)]


def ends(effects: list[Effect]) -> list[Effect]:
    return [effect for effect in effects if not isinstance(effect, Send)]


def run(one: Handshake, other: Handshake) -> tuple[list[Effect], list[Effect]]:
    """Carries all messages to and fro; what each side came to."""
    results: dict[Handshake, list[Effect]] = {one: [], other: []}
    waiting = [(other, data) for data in sent(one.start())]
    waiting += [(one, data) for data in sent(other.start())]
    while waiting:
        side, data = waiting.pop(0)
        if results[side]:
            continue
        effects = side.receive(data)
        results[side] += ends(effects)
        waiting += [(other if side is one else one, answer) for answer in sent(effects)]
    return results[one], results[other]


def failure(effects: list[Effect]) -> GossipcacheError:
    (end,) = effects
    assert isinstance(end, Failed)
    return end.error


def test_both_sides_learn_who_the_other_is() -> None:
    one, two = credentials(1), credentials(2)
    first, second = run(dialler(one, purpose="pieces"), acceptor(two))
    assert first == [Established(two.identity.public_key, two.roles, 1, "pieces")]
    assert second == [Established(one.identity.public_key, one.roles, 1, "pieces")]


def test_a_common_secret_admits_also_while_it_rotates() -> None:
    old, new = cluster_from_secret(SECRET), cluster_from_secret(b"n" * 32, SECRET, b"id")
    old = dataclasses.replace(old, cluster_id=b"id", secrets=(SECRET, b"n" * 32))
    first, second = run(dialler(credentials(1, old)), acceptor(credentials(2, new)))
    assert isinstance(first[0], Established)
    assert isinstance(second[0], Established)


@pytest.mark.parametrize(
    "other",
    [cluster_from_secret(b"x" * 32), Cluster(b"id", (b"x" * 32,)), Cluster(b"other", (SECRET,))],
    ids=["cluster and secret", "secret", "cluster"],
)
def test_strangers_are_refused_in_the_same_words(other: Cluster) -> None:
    ours = Cluster(b"id", (SECRET,))
    first, second = run(dialler(credentials(1, other)), acceptor(credentials(2, ours)))
    error = failure(first)
    assert isinstance(error, NotPermitted)
    assert error.message == "the nodes are not admitted to one cluster"
    assert isinstance(failure(second), NotPermitted)


OPERATOR = Identity(b"o" * 32)
GOVERNED = Cluster(b"cluster!", (SECRET,), OPERATOR.public_key)


def ticketed(
    number: int, of: int | None, *, policy: AdmissionPolicy = "ticket", start: int = 0
) -> Credentials:
    """A scheduler in a cluster with an operator that shows the ticket of the node `of`."""
    shown = b""
    if of is not None:
        node = Identity(bytes([of]) * 32).node_id
        given = Ticket(GOVERNED.cluster_id, node, ("peer", "scheduler"), start, start + 100, 1)
        shown = sign_ticket(given, OPERATOR)
    roles = frozenset(("peer", "scheduler"))
    judge = Admission(GOVERNED, lambda: 50.0, policy)
    return Credentials(Identity(bytes([number]) * 32), GOVERNED, roles, judge, shown)


def test_tickets_admit_each_side_to_the_other() -> None:
    first, second = run(dialler(ticketed(1, 1)), acceptor(ticketed(2, 2)))
    for end in (*first, *second):
        assert isinstance(end, Established)
        assert end.roles == {"peer", "scheduler"}


@pytest.mark.parametrize("shown", [None, 2, 3], ids=["none", "the other's", "a third one's"])
def test_without_a_ticket_of_its_own_neither_side_is_admitted(shown: int | None) -> None:
    good, bad = ticketed(2, 2), ticketed(1, shown)
    for sides in (run(dialler(bad), acceptor(good)), run(dialler(good), acceptor(bad))):
        assert not any(isinstance(end, Established) for side in sides for end in side)


def test_a_ticket_that_is_over_admits_nobody() -> None:
    late = ticketed(1, 1, start=10_000)
    first, _ = run(dialler(late), acceptor(ticketed(2, 2)))
    assert isinstance(failure(first), NotPermitted)


def test_where_the_secret_admits_a_node_without_a_ticket_is_a_peer() -> None:
    bare = ticketed(1, None, policy="secret")
    _, second = run(dialler(bare), acceptor(ticketed(2, 2, policy="secret")))
    assert isinstance(second[0], Established)
    assert second[0].roles == {"peer"}


def test_a_stranger_learns_nothing_of_tickets() -> None:
    stranger = dataclasses.replace(ticketed(1, None), cluster=Cluster(b"cluster!", (b"x" * 32,)))
    first, _ = run(dialler(stranger), acceptor(ticketed(2, 2)))
    assert failure(first).message == "the nodes are not admitted to one cluster"


def test_versions_are_negotiated() -> None:
    newer = dataclasses.replace(credentials(2), protocol_min=1, protocol_max=3)
    middle = dataclasses.replace(credentials(1), protocol_min=1, protocol_max=2)
    first, second = run(dialler(middle), acceptor(newer))
    assert isinstance(first[0], Established)
    assert isinstance(second[0], Established)
    assert first[0].protocol_version == second[0].protocol_version == 2


def test_no_common_version_is_told_to_both() -> None:
    newer = dataclasses.replace(credentials(2), protocol_min=2, protocol_max=3)
    for first, second in (run(dialler(), acceptor(newer)), run(dialler(newer), acceptor())):
        assert isinstance(failure(first), VersionUnsupported)
        assert isinstance(failure(second), VersionUnsupported)


def test_a_hello_of_a_later_form_is_a_version_error_not_garbage() -> None:
    hello = {"t": "hello", "protocol_min": 7, "protocol_max": 8, "novelty": [1]}
    error = failure(ends(acceptor().receive(encode_plain(hello))))
    assert isinstance(error, VersionUnsupported)
    assert "7 to 8" in error.message


def test_the_dialler_insists_on_the_node_it_wants() -> None:
    two, three = credentials(2), credentials(3)
    first, _ = run(dialler(expected=three.identity.node_id), acceptor(two))
    assert isinstance(failure(first), NodeUnreachable)
    first, _ = run(dialler(expected=two.identity.node_id), acceptor(two))
    assert isinstance(first[0], Established)


def test_a_certificate_put_in_between_breaks_the_proof() -> None:
    first, _ = run(dialler(certificate_hash=b"1" * 32), acceptor(certificate_hash=b"2" * 32))
    assert isinstance(failure(first), NotPermitted)


def test_own_messages_come_back_to_nothing() -> None:
    one = dialler()
    (hello,) = sent(one.start())
    assert isinstance(failure(ends(one.receive(hello))), ProtocolError)


def test_a_proof_does_not_serve_the_other_side() -> None:
    """The acceptor's own proof, reflected, is not a dialler's, even under the dialler's key."""
    two = acceptor()
    (hello,) = sent(dialler().start())
    _, proof = sent(two.receive(hello))
    assert isinstance(failure(ends(two.receive(proof))), NotPermitted)


def test_a_recorded_dialler_is_not_admitted_again() -> None:
    one, two = dialler(), acceptor()
    (hello,) = sent(one.start())
    their_hello, their_proof = sent(two.receive(hello))
    one.receive(their_hello)
    (proof,) = sent(one.receive(their_proof))
    assert isinstance(ends(two.receive(proof))[0], Established)

    again = acceptor(nonce=b"b" * 32)
    again.receive(hello)
    assert isinstance(failure(ends(again.receive(proof))), NotPermitted)


def test_messages_out_of_order_and_above_4_kib_are_refused() -> None:
    for data in (encode_plain({"t": "welcome"}), b"", bytes(5000), encode_plain({"t": "hello"})):
        assert isinstance(failure(ends(acceptor().receive(data))), ProtocolError)
    two = acceptor()
    (hello,) = sent(dialler().start())
    two.receive(hello)
    assert isinstance(failure(ends(two.receive(hello))), ProtocolError)


def test_claiming_the_key_of_another_is_refused() -> None:
    impostor = credentials(9)
    impostor.identity.public_key = credentials(3).identity.public_key
    _, second = run(dialler(impostor), acceptor())
    assert isinstance(failure(second), NotPermitted)


@given(st.binary(max_size=200))
def test_garbage_never_admits(data: bytes) -> None:
    two = acceptor()
    (hello,) = sent(dialler().start())
    two.receive(hello)
    (end,) = ends(two.receive(data))
    assert isinstance(end, Failed)
