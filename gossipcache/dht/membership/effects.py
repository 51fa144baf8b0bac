"""What the membership core asks of whoever drives it."""

from __future__ import annotations

from dataclasses import dataclass

from gossipcache.dht.membership.member import Member
from gossipcache.ids import Address, NodeId
from gossipcache.messages.gossip import Datagram


@dataclass(frozen=True, slots=True)
class SendDatagram:
    """Encode, seal and send `message`; it fits the datagram limit."""

    address: Address
    message: Datagram


@dataclass(frozen=True, slots=True)
class PingLink:
    """Ping `node` over a link; if it answers, call `SwimCore.link_answered(sequence)`."""

    node: NodeId
    sequence: int


@dataclass(frozen=True, slots=True)
class RequestSync:
    """Push/pull with `node`."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class RequestJoin:
    """Push/pull with whoever answers at `address`, then call `SwimCore.seed_answered`."""

    address: Address


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """`member` is new, or another state, record or address of it is known now."""

    member: Member


@dataclass(frozen=True, slots=True)
class MemberForgotten:
    """The member was dead or gone for so long that it is no longer listed."""

    node_id: NodeId


Effect = SendDatagram | PingLink | RequestSync | RequestJoin | MemberChanged | MemberForgotten
