"""A member as this node sees it, and the signed record that it is read from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from gossipcache.errors import IntegrityError, NotPermitted, ProtocolError
from gossipcache.identity import Identity, Signed
from gossipcache.identity import verify as verify_signature
from gossipcache.ids import Address, NodeId, is_unicast
from gossipcache.messages.gossip import (
    ACCUSATION_DOMAIN,
    MEMBER_DOMAIN,
    Accusation,
    MemberRecord,
    Phase,
    State,
    Verdict,
)
from gossipcache.wire import PROTOCOL_MAX, PROTOCOL_MIN, decode, encode, encode_plain

K = TypeVar("K")
T = TypeVar("T")

DIGEST_BYTES = 16
Grant = Callable[[NodeId, frozenset[str], bytes], frozenset[str]]
"""The roles that a node may have, of those it claims, with the ticket that it shows. Raises
`NotPermitted` if it may not be here, `IntegrityError` or `ProtocolError` for a bad ticket."""

COUNTER_BITS = 32
EPOCH_ORIGIN_S = 1_704_067_200
"""Boot epochs count seconds from 2024-01-01, so that 31 bits last until 2092."""
MAX_INCARNATION = 2**63 - 1
MAX_NAME_BYTES = 64
MAX_PAYLOAD_BYTES = 384
"""Longest payload of a member record, so that two of them always fit a datagram."""


def boot_incarnation(wall_time: float) -> int:
    """The first incarnation of a node that starts at `wall_time` (seconds since 1970): the
    time in fixed point, so that a restart within the same second still comes out above."""
    since_origin_s = min(max(wall_time - EPOCH_ORIGIN_S, 1.0), float(2**31 - 2))
    return int(since_origin_s * (1 << COUNTER_BITS))


def next_boot(incarnation: int) -> int:
    """The first incarnation of the boot epoch after that of `incarnation`."""
    return ((incarnation >> COUNTER_BITS) + 1) << COUNTER_BITS


@dataclass(frozen=True, slots=True)
class Member:
    """A node of the cluster: what it signed of itself, and the state others hold it in."""

    node_id: NodeId
    public_key: bytes
    name: str
    address: Address
    roles: frozenset[str]
    """Those that it claims and may have."""
    incarnation: int
    phase: Phase
    protocol_min: int
    protocol_max: int
    zone: str
    """Where it stands: what is sent within a zone is cheap. Empty: nowhere in particular."""
    record: Signed
    claimed: frozenset[str]
    """The roles that it claims."""
    ticket: bytes
    """The operator's, if it shows one."""
    mark: int
    """16 bytes that stand for the id and the incarnation in the digest of a view."""
    state: State = "alive"

    @property
    def is_live(self) -> bool:
        """Alive, or suspect, which counts as alive until the suspicion ends."""
        return self.state in ("alive", "suspect")

    @property
    def is_dead(self) -> bool:
        """Whether it ended, or is held to have ended, without a goodbye."""
        return self.state == "dead"

    @property
    def owns_keys(self) -> bool:
        """Whether it stands on the ring: a live, ACTIVE scheduler."""
        return self.is_live and self.phase == "active" and "scheduler" in self.roles

    def in_state(self, state: State) -> Member:
        """The same member in another state."""
        return replace(self, state=state)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a node says of itself and what does not change while it runs."""

    cluster_id: bytes
    name: str
    address: Address
    """What others dial; port 0 for a node without a network port."""
    roles: frozenset[str]
    ticket: bytes = b""
    zone: str = ""

    def sign(self, identity: Identity, incarnation: int, phase: Phase) -> Member:
        """The node's own member at `incarnation`."""
        payload = MemberRecord(
            cluster_id=self.cluster_id,
            incarnation=incarnation,
            phase=phase,
            name=self.name.encode()[:MAX_NAME_BYTES].decode(errors="ignore"),
            host=self.address.host,
            port=self.address.port,
            roles=tuple(role for role in ("peer", "scheduler") if role in self.roles),
            protocol_min=PROTOCOL_MIN,
            protocol_max=PROTOCOL_MAX,
            zone=self.zone,
            ticket=self.ticket,
        )
        return _member_of(identity.sign(MEMBER_DOMAIN, encode(payload)), payload)


class Verifier:
    """Checks signatures of records and accusations for one cluster.

    `remembered` good ones (by their exact bytes) are not computed again, nor are their records
    read again; one verifier can serve many cores of a simulation.
    """

    def __init__(
        self, cluster_id: bytes, remembered: int = 4096, grant: Grant | None = None
    ) -> None:
        """Without `grant` every node has the roles that it claims."""
        self.cluster_id = cluster_id
        self._grant = grant
        self._good: dict[tuple[Accusation, bytes], None] = {}
        self._members: dict[Signed, Member] = {}
        self._remembered = remembered
        self.checked = 0
        """How many signatures were computed."""

    def verify(self, signed: Signed, domain: bytes) -> None:
        """Computes one signature. Raises `IntegrityError` unless it holds."""
        self.checked += 1
        verify_signature(signed, domain)

    def member(self, signed: Signed) -> Member:
        """The member whose record `signed` is, alive (or left, if it says so).

        Raises `IntegrityError` if the signature, the cluster or the address does not hold,
        `ProtocolError` if the payload does not decode, `NotPermitted` if it may not be a member.
        """
        member = self._members.get(signed)
        if member is None:
            member = self._read(signed)
            _remember(self._members, signed, member, self._remembered)
        return self.judged(member)

    def _read(self, signed: Signed) -> Member:
        self.verify(signed, MEMBER_DOMAIN)
        payload = decode(signed.payload, MemberRecord, MAX_PAYLOAD_BYTES)
        if payload.cluster_id != self.cluster_id:
            raise IntegrityError("a member record of another cluster")
        if not payload.port or not is_unicast(payload.host):
            raise IntegrityError("a member record without a numeric address")
        if not (payload.name + payload.zone).isprintable():
            raise IntegrityError("a member record with a name that cannot be printed")
        return _member_of(signed, payload)

    def judged(self, member: Member) -> Member:
        """`member` with those of the roles it claims that it may have now.

        Raises `NotPermitted`, and for a bad ticket `IntegrityError` or `ProtocolError`.
        """
        if self._grant is None:
            return member
        roles = self._grant(member.node_id, member.claimed, member.ticket)
        return member if roles == member.roles else replace(member, roles=roles)

    def own(self, me: Member) -> Member:
        """The same of this node, which may have to learn that it has no place any more."""
        try:
            return self.judged(me)
        except (NotPermitted, IntegrityError, ProtocolError):
            return replace(me, roles=frozenset())

    def accusation(self, accusation: Accusation, accuser_key: bytes) -> None:
        """Raises `IntegrityError` unless the accusation was signed with `accuser_key`."""
        claim = accusation, accuser_key
        if claim not in self._good:
            payload = _accused(
                self.cluster_id, accusation.subject, accusation.incarnation, accusation.verdict
            )
            self.verify(Signed(payload, accuser_key, accusation.signature), ACCUSATION_DOMAIN)
            _remember(self._good, claim, None, self._remembered)


def _remember(known: dict[K, T], key: K, value: T, limit: int) -> None:
    if len(known) >= limit:
        del known[next(iter(known))]
    known[key] = value


def accuse(
    identity: Identity, cluster_id: bytes, subject: NodeId, incarnation: int, verdict: Verdict
) -> Accusation:
    """`identity`'s signed statement that `subject` is suspect or dead at `incarnation`."""
    signed = identity.sign(ACCUSATION_DOMAIN, _accused(cluster_id, subject, incarnation, verdict))
    return Accusation(subject, incarnation, verdict, identity.node_id, signed.signature)


def _accused(cluster_id: bytes, subject: bytes, incarnation: int, verdict: Verdict) -> bytes:
    return encode_plain([cluster_id, subject, incarnation, verdict])


def _member_of(signed: Signed, payload: MemberRecord) -> Member:
    return Member(
        node_id=signed.signer,
        public_key=signed.key,
        name=payload.name,
        address=Address(payload.host, payload.port),
        roles=frozenset(payload.roles),
        claimed=frozenset(payload.roles),
        incarnation=payload.incarnation,
        phase=payload.phase,
        protocol_min=payload.protocol_min,
        protocol_max=payload.protocol_max,
        zone=payload.zone,
        record=signed,
        ticket=payload.ticket,
        mark=_mark_of(signed.signer, payload.incarnation),
        state="left" if payload.phase == "left" else "alive",
    )


def _mark_of(node: NodeId, incarnation: int) -> int:
    state = hashlib.blake2b(node, digest_size=DIGEST_BYTES, person=b"gossipcache/view")
    state.update(incarnation.to_bytes(8, "big"))
    return int.from_bytes(state.digest(), "big")
