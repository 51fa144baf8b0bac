"""Writes datagrams: the header, what the recipient must hear about itself, then news."""

from __future__ import annotations

from collections.abc import Callable

from gossipcache.cluster import SEAL_OVERHEAD_BYTES
from gossipcache.config import SwimConfig
from gossipcache.dht.membership.broadcast import (
    ACCUSATION_BYTES,
    BroadcastQueue,
    retransmit_limit,
    size_of,
)
from gossipcache.dht.membership.effects import Effect, SendDatagram
from gossipcache.dht.membership.member import Member
from gossipcache.dht.membership.table import MemberTable
from gossipcache.identity import Signed
from gossipcache.ids import Address, NodeId
from gossipcache.messages.gossip import Accusation, Datagram

HEADER_BYTES = 112
"""More than the fields of any datagram take without its gossip."""


class Courier:
    """Fills each outgoing datagram with gossip up to the limit of its size."""

    def __init__(
        self,
        config: SwimConfig,
        cluster_id: bytes,
        table: MemberTable,
        queue: BroadcastQueue,
        proofs: Callable[[NodeId], tuple[Accusation, ...]],
        emit: Callable[[Effect], None],
    ) -> None:
        self._room_bytes = config.max_datagram_bytes - SEAL_OVERHEAD_BYTES - HEADER_BYTES
        self._warns = config.lifeguard
        self._cluster_id = cluster_id
        self._table = table
        self._queue = queue
        self._proofs = proofs
        self._emit = emit

    def post(
        self,
        kind: Callable[..., Datagram],
        address: Address,
        recipient: Member | None,
        *,
        records: tuple[Signed, ...] = (),
        **fields: object,
    ) -> None:
        """Sends a datagram of `kind`, with `records` first. A recipient that is suspect or dead
        is told so, with its record and the accusations, so that it can refute (Lifeguard's buddy
        system)."""
        accusations: tuple[Accusation, ...] = ()
        if recipient is not None and recipient.state != "alive" and self._is_told(recipient):
            records += (recipient.record,)
            accusations = self._proofs(recipient.node_id)[:2]
        # News is repeated a few times only: none of them is spent on a stranger.
        if recipient is not None and self._queue.count:
            room_bytes = self._room_bytes - ACCUSATION_BYTES * len(accusations)
            room_bytes -= sum(size_of(record) for record in records)
            news = self._queue.take(room_bytes, retransmit_limit(self._table.live_count))
            records += tuple(news[0])
            accusations += tuple(news[1])
        message = kind(
            cluster_id=self._cluster_id,
            sender=self._table.me.node_id,
            records=records,
            accusations=accusations,
            **fields,
        )
        self._emit(SendDatagram(address, message))

    def _is_told(self, accused: Member) -> bool:
        return accused.state == "dead" or (accused.state == "suspect" and self._warns)
