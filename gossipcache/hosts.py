"""Names and addresses of hosts: what to dial, and how others reach this machine."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import socket
import struct

import trio

from gossipcache.ids import Address

_SIOCGIFADDR = 0x8915


async def resolve(address: Address) -> list[tuple[int, str]]:
    """(family, numeric host) of each address of a host, in the resolver's order."""
    try:
        if "\0" in address.host:  # the resolver would stop there
            raise ValueError
        found = await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except ValueError as error:
        raise OSError(errno.EINVAL, f"{address.host!r} is no name of a host") from error
    return [(int(family), str(where[0])) for family, _, _, _, where in found]


def reachable(address: Address, family: int) -> Address:
    """`address` as others can dial it: in place of any address, one of this machine's own."""
    if not ipaddress.ip_address(address.host).is_unspecified:
        return address
    host = _outward_host(family) or ("::1" if family == socket.AF_INET6 else "127.0.0.1")
    return Address(host, address.port)


def _outward_host(family: int) -> str | None:
    """The source address on the default route, else that of the first interface that has one."""
    beyond = "2001:db8::1" if family == socket.AF_INET6 else "192.0.2.1"  # RFC 5737, RFC 3849
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((beyond, 9))  # sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            pass
        for _, name in socket.if_nameindex() if family == socket.AF_INET else ():
            try:
                found = fcntl.ioctl(probe, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue
            if not (host := ipaddress.IPv4Address(found[20:24])).is_loopback:
                return str(host)
    return None
