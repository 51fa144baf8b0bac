"""What the membership core asks of whoever drives it.

Made by the million in a simulation, hence no dataclasses: a frozen one takes ten times as long.
"""

from __future__ import annotations

import msgspec

from gossipcache.dht.membership.member import Member
from gossipcache.ids import Address, NodeId
from gossipcache.messages.gossip import Datagram


class SendDatagram(msgspec.Struct, frozen=True):
    """Encode, seal and send `message`; it fits the datagram limit."""

    address: Address
    message: Datagram


class PingLink(msgspec.Struct, frozen=True):
    """Ping `node` over a link; if it answers, call `SwimCore.link_answered(sequence)`."""

    node: NodeId
    sequence: int


class RequestSync(msgspec.Struct, frozen=True):
    """Push/pull with `node`."""

    node: NodeId


class RequestJoin(msgspec.Struct, frozen=True):
    """Push/pull with whoever answers at `address`, then call `SwimCore.seed_answered`."""

    address: Address


class MemberChanged(msgspec.Struct, frozen=True):
    """`member` is new, or another state, record or address of it is known now."""

    member: Member


class MemberForgotten(msgspec.Struct, frozen=True):
    """The member was dead or gone for so long that it is no longer listed."""

    node_id: NodeId


Effect = SendDatagram | PingLink | RequestSync | RequestJoin | MemberChanged | MemberForgotten
