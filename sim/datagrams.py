"""Datagrams of a simulated host: lost, delayed, doubled, spoilt and overtaken."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio

from gossipcache.env import DatagramRefused, Datagrams
from gossipcache.ids import Address
from sim.impairment import Packet

if TYPE_CHECKING:
    from sim.network import SimHost

MAX_DATAGRAM_BYTES = 65_507
_OVERHEAD_BYTES = 28
_INBOX_SIZE = 4096


class SimDatagrams(Datagrams):
    """`gossipcache.env.Datagrams` of a simulated host."""

    def __init__(self, host: SimHost, address: Address) -> None:
        self._host = host
        self._fabric = host.fabric
        self._address = address
        self._refused: dict[Address, None] = {}
        self._arrived, self._inbox = trio.open_memory_channel[
            tuple[bytes, Address] | DatagramRefused
        ](_INBOX_SIZE)

    async def send_to(self, data: bytes, address: Address) -> None:
        """Sends one datagram."""
        await trio.lowlevel.checkpoint()
        self._host.check_alive()
        if self._host.ports.get(self._address.port) is None:
            raise trio.ClosedResourceError("this socket is closed")
        if len(data) > MAX_DATAGRAM_BYTES:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        size = len(data) + _OVERHEAD_BYTES
        packet = Packet(self._host.ip, address.host, size, "datagram")
        fabric = self._fabric
        if fabric.is_cut(packet):
            return
        for echo_s in (0.0, *fabric.echoes(packet)):
            lost = fabric.is_lost(packet)
            arrives = fabric.arrival(self._host, packet) + echo_s
            if not lost:
                arrived = fabric.spoils(packet, bytes(data))
                fabric.clock.call_at(arrives, self._arrive, arrived, address, fabric.clock.now)

    async def receive(self) -> tuple[bytes, Address]:
        """The next datagram and its source. Raises `DatagramRefused`."""
        arrived = await self._inbox.receive()
        if isinstance(arrived, DatagramRefused):
            raise arrived
        return arrived

    def close(self) -> None:
        """Releases the socket."""
        self._inbox.close()

    def _arrive(self, data: bytes, address: Address, sent_s: float) -> None:
        target = self._fabric.reachable(address.host)
        if target is None:
            return
        self._fabric.trace.carried("datagram", f"{self._address}>{address}", data, sent_s)
        port = target.ports.get(address.port)
        if port is None:
            target.missed += 1
            refuse = partial(self._refuse, address)
            self._fabric.control(target, self._host.ip, refuse, "datagram")
            return
        try:
            port.inbox._arrived.send_nowait((data, self._address))
        except trio.WouldBlock:
            self._fabric.trace.record("overflow", str(address))

    def _refuse(self, address: Address) -> None:
        with suppress(trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            self._arrived.send_nowait(DatagramRefused(address))
