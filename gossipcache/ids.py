"""Names of things: node, task and digest identifiers, and addresses."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import NewType

from gossipcache.errors import UsageError

NodeId = NewType("NodeId", bytes)
"""BLAKE2b-128 of a node's Ed25519 public key, 16 bytes."""

TaskId = NewType("TaskId", bytes)
"""BLAKE2b-256 over the length-prefixed (domain, cid, tag), 32 bytes."""

NODE_ID_BYTES = 16
TASK_ID_BYTES = 32
MAX_CID_BYTES = 1024
MAX_TAG_BYTES = 256

_TASK_DOMAIN = b"gossipcache/task/1"
_REMEMBERED = 2048
"""Names whose ids are remembered: each is asked for some ten times within a moment."""


def node_id_of(public_key: bytes) -> NodeId:
    """The id of the node that holds the private half of `public_key` (32 bytes)."""
    return NodeId(_blake2b(public_key, NODE_ID_BYTES))


@lru_cache(_REMEMBERED)
def task_id_of(cid: str, tag: str) -> TaskId:
    """The id of the task `cid` + `tag`; length prefixes keep (a, bc) and (ab, c) apart.

    Raises `UsageError` if the cid is empty or either is too long.
    """
    parts = (_TASK_DOMAIN, *checked_name(cid, tag))
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return TaskId(_blake2b(framed, TASK_ID_BYTES))


def checked_name(cid: str, tag: str) -> tuple[bytes, bytes]:
    """A task's name as bytes. Raises `UsageError` if the cid is empty or either is too long."""
    name = _encoded(cid, "cid", MAX_CID_BYTES), _encoded(tag, "tag", MAX_TAG_BYTES)
    if not name[0]:
        raise UsageError("the cid is empty", "name the task with -i CID")
    return name


def _blake2b(data: bytes, size: int) -> bytes:
    from hashlib import blake2b  # a command, which needs no ids, starts without OpenSSL

    return blake2b(data, digest_size=size).digest()


def _encoded(text: str, what: str, limit_bytes: int) -> bytes:
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the {what} is not valid Unicode text") from error
    if len(encoded) > limit_bytes:
        raise UsageError(f"the {what} is {len(encoded)} bytes long, the limit is {limit_bytes}")
    return encoded


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A host (a numeric IP address, or a name where a user gave one) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if not is_numeric(self.host):
            return self.host == "localhost"
        return ipaddress.ip_address(self.host).is_loopback


def is_numeric(host: str) -> bool:
    """Whether `host` is an IP address (without a zone), so that no resolver is asked for it."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return "%" not in host


def is_unicast(host: str) -> bool:
    """Whether `host` is the IP address of one node, which others can be told to dial."""
    if not is_numeric(host):
        return False
    address = ipaddress.ip_address(host)
    return not (address.is_unspecified or address.is_multicast)


def parse_address(text: str) -> Address:
    """`HOST:PORT` or `[V6]:PORT` as an `Address`. Raises `UsageError`."""
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{text!r} is not an address", "write HOST:PORT, such as 127.0.0.1:7101")
    return Address(host, int(port))
