"""What attackers bring: raw sockets, and a key of their own with a control connection."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import PurePath

import trio

from gossipcache.cluster import LOOPBACK, Cluster
from gossipcache.config import NodeConfig
from gossipcache.dht.membership.member import Profile, boot_incarnation
from gossipcache.identity import Identity, Signed
from gossipcache.ids import Address, NodeId, parse_address
from gossipcache.link.pool import LinkPool
from gossipcache.machine import real_env
from gossipcache.messages.gossip import Gossip, SyncOpen, SyncOpened
from gossipcache.metrics import Metrics
from gossipcache.wire import encode
from tests.processes.cluster import LIMIT_S, Node, wait_until

MIB = 2**20
VOLLEY_BYTES, DATAGRAM_COST_BYTES = 64 * 1024, 1024
"""So much has room in a node's socket while its process does not run."""


def rss_bytes(node: Node) -> int:
    """What the node's process takes of memory now."""
    with open(f"/proc/{node.pid}/statm") as file:
        return int(file.read().split()[1]) * 4096


def open_files(node: Node) -> int:
    """How many descriptors the node's process holds."""
    return len(os.listdir(f"/proc/{node.pid}/fd"))


def tcp(address: str) -> socket.socket:
    """A raw connection to a node's port."""
    host, port = parse_address(address).host, parse_address(address).port
    return socket.create_connection((host, port), timeout=LIMIT_S)


def pour(connection: socket.socket, data: bytes) -> None:
    """Sends what the node takes of `data`."""
    try:
        connection.sendall(data)
    except OSError:
        pass


def await_end(connection: socket.socket) -> bytes:
    """All that comes until the node closes."""
    received = bytearray()
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionError:
        pass
    return bytes(received)


@contextmanager
def udp() -> Iterator[socket.socket]:
    """A socket to send datagrams from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        sender.settimeout(LIMIT_S)
        yield sender


def shoot(node: Node, *datagrams: bytes) -> None:
    """Sends datagrams to a node, and returns when it has judged them all."""
    target = parse_address(node.address)
    before, waiting_bytes = node.metric("datagrams_received"), 0
    with udp() as sender:
        for number, datagram in enumerate(datagrams, start=1):
            sender.sendto(datagram, (target.host, target.port))
            waiting_bytes += len(datagram) + DATAGRAM_COST_BYTES
            if waiting_bytes > VOLLEY_BYTES or number == len(datagrams):
                taken = partial(has_received, node, before + number)
                wait_until(taken, "the node takes datagrams, and the kernel drops none")
                waiting_bytes = 0
    # Others' datagrams are counted too, and the answer that told of enough may have overtaken the
    # last of these; the next one cannot.
    node.metric("datagrams_received")


def has_received(node: Node, count: int) -> bool:
    """Whether the node has taken so many datagrams since it started."""
    return node.metric("datagrams_received") >= count


def member_record(identity: Identity, address: Address, name: str = "liar") -> Signed:
    """A record as any member can sign one for itself."""
    profile = Profile(LOOPBACK.cluster_id, name, address, frozenset(("peer",)))
    return profile.sign(identity, boot_incarnation(time.time()), "active").record


def gossip(identity: Identity, *records: Signed) -> bytes:
    """A datagram that carries records."""
    return encode(Gossip(cluster_id=LOOPBACK.cluster_id, sender=identity.node_id, records=records))


@asynccontextmanager
async def linked(
    identity: Identity, node: Node, cluster: Cluster = LOOPBACK
) -> AsyncIterator[tuple[LinkPool, NodeId]]:
    """Links of a node that consists of a key only, and the id of `node` to talk to."""
    target, victim = parse_address(node.address), NodeId(bytes.fromhex(node.id))
    config = NodeConfig(home=PurePath("/nowhere"), name="liar", listen=None)
    pool = LinkPool(
        real_env(), config, identity, cluster, Metrics(),
        {victim: target}.get, lambda _node: None,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.serve, None)
        with trio.fail_after(LIMIT_S):
            yield pool, victim
        nursery.cancel_scope.cancel()


async def join(pool: LinkPool, victim: NodeId, identity: Identity, address: Address) -> None:
    """Makes the key a member in the victim's view."""
    opening = SyncOpen(
        cluster_id=LOOPBACK.cluster_id, digest=bytes(16), record=member_record(identity, address)
    )
    await pool.request(victim, opening, SyncOpened, LIMIT_S)


def noise(seed: int, count: int, most_bytes: int) -> list[bytes]:
    """The same random datagrams every time."""
    rng = random.Random(seed)
    return [rng.randbytes(rng.randint(0, most_bytes)) for _ in range(count)]
