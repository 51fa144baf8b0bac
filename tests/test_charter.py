"""What the operator signs: it counts as it was signed, in its cluster, and nowhere else."""

from __future__ import annotations

import pytest
from msgspec import structs

from gossipcache.charter import (
    MAX_CHARTER_BYTES,
    MAX_POLICY_CHANGES,
    MAX_REVOKED,
    MAX_TICKET_BYTES,
    Deletion,
    PolicyChange,
    RevokedNode,
    Ticket,
    amended,
    first_charter,
    open_charter,
    open_ticket,
    sign_charter,
    sign_ticket,
    ticket_for,
)
from gossipcache.config import DeletePolicy
from gossipcache.errors import IntegrityError, UsageError
from gossipcache.identity import Identity, Signed
from gossipcache.wire import encode

CLUSTER = b"cluster!"
OPERATOR, OTHER, NODE = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
LARGEST = Ticket(CLUSTER, NODE.node_id, ("peer", "scheduler"), 2**63 - 1, 2**63 - 1, 2**63 - 1)


def test_a_ticket_is_of_one_operator_one_cluster_and_one_node() -> None:
    stamped = sign_ticket(LARGEST, OPERATOR)
    assert ticket_for(stamped, OPERATOR.public_key, CLUSTER, NODE.node_id) == LARGEST
    for key, cluster in ((OTHER.public_key, CLUSTER), (OPERATOR.public_key, b"another!")):
        with pytest.raises(IntegrityError):
            open_ticket(stamped, key, cluster)
    with pytest.raises(IntegrityError):
        ticket_for(stamped, OPERATOR.public_key, CLUSTER, OTHER.node_id)


def test_the_largest_ticket_has_room_in_a_record() -> None:
    assert len(sign_ticket(LARGEST, OPERATOR)) <= MAX_TICKET_BYTES


def test_a_charter_is_of_one_operator_and_one_cluster() -> None:
    charter = first_charter(CLUSTER, "ticket", "publisher")
    signed = sign_charter(charter, OPERATOR)
    assert open_charter(signed, OPERATOR.public_key, CLUSTER) == charter
    altered = Signed(encode(structs.replace(charter, number=2)), signed.key, signed.signature)
    for bad in (sign_charter(charter, OTHER), altered):
        with pytest.raises(IntegrityError):
            open_charter(bad, OPERATOR.public_key, CLUSTER)
    with pytest.raises(IntegrityError):
        open_charter(signed, OPERATOR.public_key, b"another!")


def test_an_amended_charter_keeps_the_rest() -> None:
    first = first_charter(CLUSTER, "secret", "any")
    one = RevokedNode(NODE.node_id, 5)
    second = amended(first, 1, 7, delete_policy="publisher", revoked_nodes=(one,))
    third = amended(second, 2, 8, admission="ticket", revoked_serials=(9, 3))
    assert third.deletion == (PolicyChange(0, "any"), PolicyChange(1, "publisher"))
    assert third.revoked_nodes == (one,)
    assert third.revoked_serials == (3, 9)
    assert (third.number, third.admission, third.issued_at) == (2, "ticket", 8)
    again = amended(third, 3, 9, revoked_nodes=(RevokedNode(NODE.node_id, 6),))
    assert again.revoked_nodes == (RevokedNode(NODE.node_id, 6),)


def test_the_largest_charter_has_room_in_a_message() -> None:
    charter = first_charter(CLUSTER, "secret", "any")
    for number in range(1, 2 * MAX_POLICY_CHANGES):
        policy: DeletePolicy = "publisher" if number % 2 else "any"
        charter = amended(charter, 2**62 + number, 0, delete_policy=policy)
    nodes = [RevokedNode(number.to_bytes(16, "big"), 2**63 - 1) for number in range(MAX_REVOKED)]
    serials = range(2**63 - MAX_REVOKED, 2**63)
    full = amended(charter, 2**63 - 1, 0, revoked_nodes=nodes, revoked_serials=serials)
    assert len(full.deletion) == MAX_POLICY_CHANGES
    assert len(encode(full)) <= MAX_CHARTER_BYTES
    assert open_charter(sign_charter(full, OPERATOR), OPERATOR.public_key, CLUSTER) == full
    with pytest.raises(UsageError):
        amended(full, 2**63 - 1, 0, revoked_serials=(1,))


def test_the_part_of_the_history_that_was_forgotten_is_taken_for_strict() -> None:
    deletion = Deletion(9, (PolicyChange(5, "any"), PolicyChange(8, "publisher")))
    known = {number: deletion.policy_at(number) for number in (4, 5, 7, 8, 9)}
    assert known == {4: "publisher", 5: "any", 7: "any", 8: "publisher", 9: "publisher"}
