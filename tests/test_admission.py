"""Who gets which roles, by ticket, charter and clock."""

from __future__ import annotations

import pytest

from gossipcache.admission import CLOCK_SKEW_S, Admission
from gossipcache.charter import (
    Charter,
    RevokedNode,
    Ticket,
    amended,
    first_charter,
    sign_charter,
    sign_ticket,
)
from gossipcache.cluster import Cluster
from gossipcache.config import AdmissionPolicy, Role
from gossipcache.errors import IntegrityError, NotPermitted, UsageError
from gossipcache.identity import Identity

OPERATOR, OTHER, NODE = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
CLUSTER = Cluster(b"cluster!", operator_key=OPERATOR.public_key)
BOTH = frozenset(("peer", "scheduler"))
PEER = frozenset(("peer",))
NOW = 1_000_000
SKEW = int(CLOCK_SKEW_S)


def admission(policy: AdmissionPolicy = "secret") -> Admission:
    return Admission(CLUSTER, lambda: NOW, policy)


def ticket(
    *roles: Role, serial: int = 1, start: int = NOW, end: int = NOW + 100, of: Identity = NODE
) -> bytes:
    given = roles or ("peer", "scheduler")
    made = Ticket(CLUSTER.cluster_id, of.node_id, given, start, end, serial)
    return sign_ticket(made, OPERATOR)


def grant(judge: Admission, shown: bytes = b"") -> frozenset[str]:
    return judge.grant(NODE.node_id, BOTH, shown)


def charter(number: int, **changes: object) -> Charter:
    first = first_charter(CLUSTER.cluster_id, "secret", "any")
    return amended(first, number, NOW, **changes)  # type: ignore[arg-type]


def test_without_an_operator_everybody_is_what_it_claims() -> None:
    judge = Admission(Cluster(b"cluster!"), lambda: NOW)
    assert judge.grant(NODE.node_id, BOTH, b"whatever") == BOTH
    with pytest.raises(UsageError):
        judge.enact(sign_charter(charter(1), OPERATOR))


def test_the_secret_alone_makes_a_peer_or_nothing() -> None:
    assert grant(admission("secret")) == PEER
    with pytest.raises(NotPermitted):
        grant(admission("ticket"))


def test_a_ticket_gives_those_of_the_claimed_roles_that_it_names() -> None:
    assert grant(admission("ticket"), ticket()) == BOTH
    assert grant(admission("ticket"), ticket("peer")) == PEER
    assert admission("ticket").grant(NODE.node_id, PEER, ticket()) == PEER


@pytest.mark.parametrize(
    ("start", "end", "roles"),
    [
        (NOW - 1000, NOW - SKEW + 1, BOTH),
        (NOW - 1000, NOW - SKEW, PEER),
        (NOW + SKEW, NOW + 1000, BOTH),
        (NOW + SKEW + 1, NOW + 1000, PEER),
    ],
)
def test_clocks_may_differ_by_five_minutes(start: int, end: int, roles: frozenset[str]) -> None:
    assert grant(admission(), ticket(start=start, end=end)) == roles


def test_the_highest_serial_counts_in_whatever_order_tickets_are_shown() -> None:
    judge = admission()
    assert grant(judge, ticket(serial=1)) == BOTH
    assert grant(judge, ticket("peer", serial=2)) == PEER
    assert grant(judge, ticket(serial=1)) == PEER
    assert grant(judge) == PEER


def test_a_ticket_of_another_node_or_signer_is_an_offence() -> None:
    forged = sign_ticket(Ticket(CLUSTER.cluster_id, NODE.node_id, ("peer",), 0, 2**40, 1), OTHER)
    for bad in (ticket(of=OTHER), forged):
        with pytest.raises(IntegrityError):
            grant(admission(), bad)


def test_a_revoked_node_needs_a_newer_ticket() -> None:
    judge = admission()
    assert grant(judge, ticket(serial=4)) == BOTH
    revoked = RevokedNode(NODE.node_id, 4)
    assert judge.enact(sign_charter(charter(1, revoked_nodes=(revoked,)), OPERATOR))
    for shown in (b"", ticket(serial=4), ticket(serial=3)):
        with pytest.raises(NotPermitted):
            grant(judge, shown)
    assert not judge.admits(NODE.node_id, BOTH)
    assert grant(judge, ticket(serial=5)) == BOTH
    assert judge.admits(NODE.node_id, BOTH)


def test_a_void_serial_admits_nobody() -> None:
    judge = admission()
    judge.enact(sign_charter(charter(1, revoked_serials=(4,)), OPERATOR))
    with pytest.raises(NotPermitted):
        grant(judge, ticket(serial=4))
    assert grant(judge, ticket(serial=5)) == BOTH


def test_the_charter_with_the_highest_number_counts() -> None:
    judge = admission()
    second = sign_charter(charter(2, delete_policy="publisher"), OPERATOR)
    assert judge.enact(second)
    assert not judge.enact(second)
    assert not judge.enact(sign_charter(charter(1), OPERATOR))
    assert (judge.number, judge.deletion.policy) == (2, "publisher")


def test_of_two_charters_with_one_number_all_take_the_same() -> None:
    one, other = (
        sign_charter(charter(1, admission=policy), OPERATOR) for policy in ("secret", "ticket")
    )
    ends = set()
    for order in ((one, other), (other, one)):
        judge = admission()
        for signed in order:
            judge.enact(signed)
        ends.add(judge.policy)
    assert len(ends) == 1
