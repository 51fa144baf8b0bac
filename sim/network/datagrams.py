"""Datagrams of a simulated host: lost, delayed, doubled, spoilt and overtaken."""

from __future__ import annotations

import errno
import os
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import trio

from gossipcache.env import DatagramRefused, Datagrams
from gossipcache.ids import Address
from sim.network.impairment import Packet

if TYPE_CHECKING:
    from sim.network.fabric import SimHost

MAX_DATAGRAM_BYTES = 65_507
_OVERHEAD_BYTES = 28
_INBOX_SIZE = 4096


class SimDatagrams(Datagrams):
    """`gossipcache.env.Datagrams` of a simulated host."""

    def __init__(self, host: SimHost, address: Address) -> None:
        self._host = host
        self._fabric = host.fabric
        self._address = address
        self._labels: dict[Address, str] = {}
        self._arrived: deque[tuple[bytes, Address] | DatagramRefused] = deque()
        self._receiver: trio.lowlevel.Task | None = None
        self._closed = False

    def send_to(self, data: bytes, address: Address) -> None:
        """Sends one datagram."""
        if self._closed or self._host.is_dead:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
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
        if self._arrived or self._closed:
            await trio.lowlevel.checkpoint()
        while not self._arrived:
            if self._closed:
                raise trio.ClosedResourceError("this socket is closed")
            self._receiver = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._give_up)
        arrived = self._arrived.popleft()
        if isinstance(arrived, DatagramRefused):
            raise arrived
        return arrived

    @property
    def queued(self) -> int:
        """How many datagrams wait to be read."""
        return len(self._arrived)

    def close(self) -> None:
        """Releases the socket."""
        self._closed = True
        self._wake()

    def offer(self, arrived: tuple[bytes, Address] | DatagramRefused) -> bool:
        """Something for whoever receives here; whether there is room for it."""
        if self._closed or len(self._arrived) >= _INBOX_SIZE:
            return False
        self._arrived.append(arrived)
        self._wake()
        return True

    def _wake(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            trio.lowlevel.reschedule(receiver)

    def _give_up(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._receiver = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _arrive(self, data: bytes, address: Address, sent_s: float) -> None:
        target = self._fabric.reachable(address.host)
        if target is None:
            return
        self._fabric.trace.carried("datagram", self._label(address), data, sent_s)
        port = target.ports.get(address.port)
        if port is None:
            target.missed += 1
            refuse = partial(self._refuse, address)
            self._fabric.control(target, self._host.ip, refuse, "datagram")
            return
        if not port.inbox.offer((data, self._address)):
            self._fabric.trace.record("overflow", str(address))

    def _label(self, address: Address) -> str:
        label = self._labels.get(address)
        if label is None:
            label = self._labels[address] = f"{self._address}>{address}"
        return label

    def _refuse(self, address: Address) -> None:
        self.offer(DatagramRefused(address))
