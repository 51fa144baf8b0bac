"""Ticket and charter: the two statements of a cluster's operator.

A *ticket* admits one key with some roles for some time; it travels in the node's member record
and in its hello. The *charter* holds what the operator has decided for the whole cluster: who
may delete, whether a ticket is needed, and who is revoked. There is one charter, numbered; the
highest number counts, and nodes hand it on. Both are signed by the operator's key alone, and
verified over their exact bytes before they are decoded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta
from msgspec.structs import replace

from gossipcache.config import AdmissionPolicy, DeletePolicy, Role
from gossipcache.errors import IntegrityError, UsageError
from gossipcache.identity import Identity, PublicKey, Signature, Signed, verify
from gossipcache.ids import NodeId
from gossipcache.manifest import ClusterIdBytes, Count, NodeIdBytes
from gossipcache.wire import CompactRecord, Record, decode, encode

TICKET_DOMAIN = b"gossipcache/ticket/1"
CHARTER_DOMAIN = b"gossipcache/charter/1"
MAX_TICKET_BYTES = 176
"""Of a sealed ticket: two member records with one each still fit a datagram."""
MAX_CHARTER_BYTES = 48 * 1024
MAX_REVOKED = 1024
MAX_POLICY_CHANGES = 64

Serial = Annotated[int, Meta(ge=1, le=2**63 - 1)]
SealedTicket = Annotated[bytes, Meta(max_length=MAX_TICKET_BYTES)]
"""An encoded `StampedTicket`; empty for a node without one."""


class Ticket(CompactRecord, frozen=True):
    """The key of `node_id` may take `roles` from `not_before` to `expires_at` (seconds since
    1970). Of two tickets for one key the one with the higher serial counts."""

    cluster_id: ClusterIdBytes
    node_id: NodeIdBytes
    roles: Annotated[tuple[Role, ...], Meta(max_length=2)]
    not_before: Count
    expires_at: Count
    serial: Serial


class StampedTicket(CompactRecord, frozen=True):
    """A ticket's exact bytes and the operator's signature of them."""

    payload: Annotated[bytes, Meta(max_length=MAX_TICKET_BYTES - 68)]
    signature: Signature


class PolicyChange(CompactRecord, frozen=True):
    """Since the charter `number`, `policy` says who may delete a task."""

    number: Count
    policy: DeletePolicy


class RevokedNode(CompactRecord, frozen=True):
    """The key of `node_id` is out, with every ticket up to the serial `through`: one that is
    issued later admits it anew."""

    node_id: NodeIdBytes
    through: Serial


class Charter(Record, frozen=True, kw_only=True):
    """What the operator has decided for the cluster."""

    version: Literal[1] = 1
    cluster_id: ClusterIdBytes
    number: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    issued_at: Count
    admission: AdmissionPolicy
    """Whether the cluster secret alone admits (as a peer), or only with a ticket."""
    deletion: Annotated[tuple[PolicyChange, ...], Meta(min_length=1, max_length=MAX_POLICY_CHANGES)]
    """By number, the present policy last: old tombstones are judged by the one they name."""
    revoked_nodes: Annotated[tuple[RevokedNode, ...], Meta(max_length=MAX_REVOKED)] = ()
    revoked_serials: Annotated[tuple[Serial, ...], Meta(max_length=MAX_REVOKED)] = ()

    @property
    def delete_policy(self) -> DeletePolicy:
        """Who may delete now."""
        return self.deletion[-1].policy


@dataclass(frozen=True, slots=True)
class Deletion:
    """Who may delete a task, by the number of the charter that said so."""

    number: int = 0
    """The newest charter known; 0: none, what `cluster init` said holds."""
    changes: tuple[PolicyChange, ...] = (PolicyChange(0, "any"),)

    @property
    def policy(self) -> DeletePolicy:
        """The present one."""
        return self.changes[-1].policy

    def policy_at(self, number: int) -> DeletePolicy:
        """The one that charter `number` knew; the strict one if that is forgotten."""
        known: DeletePolicy = "publisher"
        for change in self.changes:
            if change.number <= number:
                known = change.policy
        return known


def first_charter(cluster_id: bytes, admission: AdmissionPolicy, policy: DeletePolicy) -> Charter:
    """What holds before the operator's first charter, to be `amended`."""
    return Charter(
        cluster_id=cluster_id,
        number=1,
        issued_at=0,
        admission=admission,
        deletion=(PolicyChange(0, policy),),
    )


def amended(
    charter: Charter,
    number: int,
    issued_at: int,
    *,
    admission: AdmissionPolicy | None = None,
    delete_policy: DeletePolicy | None = None,
    revoked_nodes: Iterable[RevokedNode] = (),
    revoked_serials: Iterable[int] = (),
) -> Charter:
    """`charter` with some changes, as charter `number`. Raises `UsageError` if it is full."""
    deletion = charter.deletion
    if delete_policy is not None and delete_policy != charter.delete_policy:
        deletion = (*deletion, PolicyChange(number, delete_policy))[-MAX_POLICY_CHANGES:]
    nodes = {one.node_id: one for one in (*charter.revoked_nodes, *revoked_nodes)}
    serials = {*charter.revoked_serials, *revoked_serials}
    if max(len(nodes), len(serials)) > MAX_REVOKED:
        raise UsageError(
            f"the charter holds at most {MAX_REVOKED} revocations of a kind",
            "rotate the cluster secret: who does not get the new one stays out",
        )
    return replace(
        charter,
        number=number,
        issued_at=issued_at,
        admission=admission or charter.admission,
        deletion=deletion,
        revoked_nodes=tuple(nodes[node] for node in sorted(nodes)),
        revoked_serials=tuple(sorted(serials)),
    )


def sign_ticket(ticket: Ticket, operator: Identity) -> bytes:
    """`ticket` as the operator gives it out."""
    signed = operator.sign(TICKET_DOMAIN, encode(ticket))
    return encode(StampedTicket(signed.payload, signed.signature))


def open_ticket(stamped: bytes, operator_key: PublicKey, cluster_id: bytes) -> Ticket:
    """The ticket in `stamped`. Raises `IntegrityError` or `ProtocolError`."""
    found = decode(stamped, StampedTicket, MAX_TICKET_BYTES)
    payload = verify(Signed(found.payload, operator_key, found.signature), TICKET_DOMAIN)
    ticket = decode(payload, Ticket)
    if ticket.cluster_id != cluster_id:
        raise IntegrityError("a ticket of another cluster")
    return ticket


def ticket_for(stamped: bytes, operator_key: PublicKey, cluster_id: bytes, node: NodeId) -> Ticket:
    """The ticket in `stamped`, which must be that of `node`. Raises as `open_ticket` does."""
    ticket = open_ticket(stamped, operator_key, cluster_id)
    if ticket.node_id != node:
        raise IntegrityError("a ticket of another node")
    return ticket


def sign_charter(charter: Charter, operator: Identity) -> Signed:
    """`charter` in force."""
    return operator.sign(CHARTER_DOMAIN, encode(charter))


def open_charter(signed: Signed, operator_key: PublicKey, cluster_id: bytes) -> Charter:
    """The charter in `signed`. Raises `IntegrityError` or `ProtocolError`."""
    if signed.key != operator_key:
        raise IntegrityError("a charter that is not signed by the cluster's operator")
    charter = decode(verify(signed, CHARTER_DOMAIN), Charter, MAX_CHARTER_BYTES)
    if charter.cluster_id != cluster_id:
        raise IntegrityError("a charter of another cluster")
    return charter
