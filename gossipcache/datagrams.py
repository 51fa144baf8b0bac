"""UDP sockets behind `gossipcache.env.Datagrams`."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import deque
from functools import lru_cache

import trio

from gossipcache.env import DatagramRefused, Datagrams
from gossipcache.ids import Address, is_numeric

_MAX_BYTES = 65_535
_BUFFER_BYTES = 4 << 20
_BATCH = 16
"""Datagrams read at a time: one for each pass of a busy loop would leave its answers so late that
others take this node for dead."""
_MAX_REFUSALS = 1024
# What linux/in.h and linux/in6.h name, and Python's socket module does not everywhere.
_IP_RECVERR = 11
_IPV6_RECVERR = 25
_ERROR_MESSAGES = frozenset(
    ((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR))
)
_ICMP_ORIGINS = frozenset((2, 3))  # linux/errqueue.h: SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6


class UdpDatagrams(Datagrams):
    """A UDP socket that says which destination refused a datagram.

    By IP_RECVERR (ip(7)) the kernel queues the ICMP errors of an unconnected socket with the
    destination they are about, and wakes whoever receives. A refusal is raised there at once;
    any other error by the next `send_to` to that same destination.
    """

    def __init__(self, bound: socket.socket) -> None:
        self._plain = bound
        self._socket = trio.socket.from_stdlib_socket(bound)
        self._failures: dict[Address, int] = {}
        self._refusals: deque[Address] = deque(maxlen=_MAX_REFUSALS)
        self._read: deque[tuple[bytes, Address]] = deque()

    def send_to(self, data: bytes, address: Address) -> None:
        """Sends one datagram, or drops it if the kernel has no room for it. Raises the error
        an earlier one to `address` met, or `OSError`."""
        self._collect_failures()
        code = self._failures.pop(address, None)
        if code is not None:
            raise OSError(code, os.strerror(code))
        target = _target(address, self._plain.family)
        for last_attempt in (False, True):
            try:
                self._plain.sendto(data, target)
                return
            except BlockingIOError:
                return
            except OSError:
                # The kernel reports a pending error of *another* destination here, once.
                if last_attempt or not self._collect_failures():
                    raise

    async def receive(self) -> tuple[bytes, Address]:
        """The next datagram and its source; at once, if it was read with another one. Raises
        `DatagramRefused`, or `OSError`."""
        while True:
            if self._refusals:
                await trio.lowlevel.checkpoint()
                raise DatagramRefused(self._refusals.popleft())
            if self._read:
                return self._read.popleft()
            try:
                with ClosedSocket():
                    data, source = await self._socket.recvfrom(_MAX_BYTES)
            except OSError:
                if not self._collect_failures():
                    raise
                continue
            self._read_ahead()
            return data, address_of(source)

    def _read_ahead(self) -> None:
        for _ in range(_BATCH - 1):
            try:
                data, source = self._plain.recvfrom(_MAX_BYTES)
            except BlockingIOError:
                return
            except OSError:
                # The kernel tells it once; what it is about waits in the queue of errors.
                self._collect_failures()
                return
            self._read.append((data, address_of(source)))

    def close(self) -> None:
        """Releases the socket."""
        self._read.clear()
        self._socket.close()

    def _collect_failures(self) -> bool:
        """Empties the kernel's error queue; False if nothing was queued."""
        found = False
        while True:
            try:
                _, control, _, destination = self._plain.recvmsg(
                    1, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT
                )
            except OSError:
                return found
            found = True
            code = _icmp_error(control)
            if not code or not destination:
                continue
            if code == errno.ECONNREFUSED:
                self._refusals.append(address_of(destination))
            elif len(self._failures) < _MAX_REFUSALS:
                self._failures[address_of(destination)] = code


def prepare(datagram: socket.socket) -> None:
    """Gives a socket its buffers, and makes it report refusals."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        datagram.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
    if datagram.family == socket.AF_INET6:
        datagram.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
    else:
        datagram.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)


def address_of(name: tuple[str, int] | tuple[str, int, int, int]) -> Address:
    """The address in a socket's name."""
    return Address(name[0], name[1])


@lru_cache(maxsize=4096)
def _target(address: Address, family: int) -> tuple[str, int]:
    # A name is not looked up here: all other datagrams would wait for the answer.
    if not is_numeric(address.host):
        raise OSError(errno.EINVAL, f"{address.host!r} is not a numeric address")
    if (":" in address.host) != (family == socket.AF_INET6):
        raise OSError(errno.EAFNOSUPPORT, f"{address} is of another address family")
    return (address.host, address.port)


def _icmp_error(control: list[tuple[int, int, bytes]]) -> int:
    """The errno in a `struct sock_extended_err` that came by ICMP, 0 if there is none."""
    for level, kind, data in control:
        if (level, kind) in _ERROR_MESSAGES:
            code, origin = struct.unpack_from("=IB", data)
            return int(code) if origin in _ICMP_ORIGINS else 0
    return 0


class ClosedSocket:
    """Tells that a socket was closed as trio does; a generator costs three times as much."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError) and error.errno == errno.EBADF:
            raise trio.ClosedResourceError("this socket is closed") from None
