"""Without the cluster's secret nobody joins, reads datagrams, or makes use of old ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from gossipcache.cluster import LOOPBACK, Cluster
from gossipcache.errors import NodeUnreachable, NotPermitted
from gossipcache.identity import Identity
from gossipcache.ids import Address
from gossipcache.keyfiles import ClusterFile, new_cluster
from gossipcache.messages.announcements import AskHolders, HoldersReply
from gossipcache.messages.records import ReadRecord, RecordAnswer
from tests.processes.cluster import (
    LIMIT_S,
    Node,
    cluster_in,
    open_links,
    random_file,
    wait_until,
)
from tests.processes.cluster import Cluster as Nodes
from tests.security.attacker import gossip, join, linked, member_record, shoot, udp
from tests.security.tap import Tap, tapped

STRANGER = Identity(b"stranger".ljust(32, b"."))
MARK = "a-cid-that-stands-out"


@dataclass
class Sealed:
    """Two nodes of a cluster with a secret; what goes to the second passes the tap."""

    one: Node
    two: Node
    tap: Tap
    key: ClusterFile


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sealed]:
    folder, key = tmp_path_factory.mktemp("nodes"), new_cluster()
    with tapped() as tap, cluster_in(folder) as cluster:
        one = admitted(cluster, "first-of-the-two", key)
        two = admitted(cluster, "second-of-the-two", key)
        one.spawn()
        one.await_ready()
        two.spawn(one.address, "--advertise", f"127.0.0.1:{tap.port}")
        two.await_ready()
        tap.target = ("127.0.0.1", port_of(two))
        one.expect_members(2)
        two.expect_members(2)
        one.import_file(random_file(folder / "content", 200_000), MARK)
        two.export(MARK, folder / "export")
        wait_until(lambda: len(tap.datagrams) >= 5, "datagrams pass the tap")
        yield Sealed(one, two, tap, key)


def admitted(cluster: Nodes, name: str, key: ClusterFile) -> Node:
    node = Node(cluster.folder, name, {})
    cluster.nodes.append(node)
    node.home.prepare()
    node.home.write_cluster(key, replace=False)
    return node


def port_of(node: Node) -> int:
    """The port it listens on, which is not the one it advertises."""
    with open(f"/proc/{node.pid}/net/tcp") as file:
        listening = {line.split()[9]: line.split()[1] for line in file if line.split()[3] == "0A"}
    for link in open_links(node.pid):
        if link.startswith("socket:") and link[8:-1] in listening:
            return int(listening[link[8:-1]].split(":")[1], 16)
    raise AssertionError("it does not listen")


def test_datagrams_tell_an_eavesdropper_nothing(sealed: Sealed) -> None:
    caught = b"".join(sealed.tap.datagrams)
    secret = sealed.key.secrets[0]
    for plain in (
        sealed.key.cluster_id,
        bytes.fromhex(sealed.one.id),
        b"of-the-two",
        b"127.0.0.1",
        MARK.encode(),
        secret,
        secret.hex().encode(),
    ):
        assert plain not in caught
    assert secret not in bytes(sealed.tap.stream_bytes)


def test_a_caught_datagram_draws_no_answer_and_changes_nothing(sealed: Sealed) -> None:
    before = known_to(sealed.two)
    with udp() as replayer:
        replayer.setblocking(False)
        for datagram in sealed.tap.datagrams[:200]:
            replayer.sendto(datagram, sealed.tap.target or ("", 0))
        shoot_at_port(sealed.two, port_of(sealed.two), b"the end")
        with pytest.raises(BlockingIOError):
            replayer.recv(2048)
    after = known_to(sealed.two)
    assert after.keys() == before.keys()
    assert all(after[member] >= before[member] for member in before), "nobody is taken back"


def known_to(node: Node) -> dict[tuple[str, ...], int]:
    """Who is a member in the node's view, and where, with its incarnation: one that is refuted or
    started anew counts up, whatever is said of it."""
    node.expect_members(2)
    return {
        (member["id"], member["name"], member["address"], *member["roles"]): member["incarnation"]
        for member in node.client.call("GET", "/v1/members")["members"]
    }


def shoot_at_port(node: Node, port: int, datagram: bytes) -> None:
    before = node.metric("datagrams_unsealed")
    with udp() as sender:
        sender.sendto(datagram, ("127.0.0.1", port))
    wait_until(lambda: node.metric("datagrams_unsealed") > before, "the datagram is judged")


@pytest.mark.parametrize("secrets", [(), (b"x" * 32,)], ids=["no secret", "another secret"])
@pytest.mark.parametrize("knows_id", [False, True], ids=["another cluster", "its id"])
def test_a_stranger_can_neither_join_nor_ask(
    sealed: Sealed, secrets: tuple[bytes, ...], knows_id: bool
) -> None:
    cluster = Cluster(sealed.key.cluster_id if knows_id else LOOPBACK.cluster_id, secrets)
    before = sealed.one.metric("link_handshake_failed_not_permitted")
    asked = (
        (ReadRecord(task_id=bytes(32)), RecordAnswer),
        (AskHolders(task_id=bytes(32)), HoldersReply),
    )

    async def attack() -> None:
        async with linked(STRANGER, sealed.one, cluster) as (pool, victim):
            with pytest.raises(NotPermitted):
                await join(pool, victim, STRANGER, Address("127.0.0.1", 9))
            for message, reply in asked:
                with pytest.raises(NotPermitted):
                    await pool.request(victim, message, reply, LIMIT_S)
            with pytest.raises((NotPermitted, NodeUnreachable)):
                await pool.open_channel(victim)

    trio.run(attack)
    assert sealed.one.metric("link_handshake_failed_not_permitted") >= before + 3
    sealed.one.expect_members(2)


def test_a_strangers_datagrams_are_dropped_and_counted(sealed: Sealed) -> None:
    record = member_record(STRANGER, Address("127.0.0.1", 9))
    plain = gossip(STRANGER, record)
    before = sealed.one.metric("datagrams_unsealed")
    other = Cluster(sealed.key.cluster_id, (b"x" * 32,))
    bent = bytearray(sealed.tap.datagrams[0])
    bent[-1] ^= 1
    shoot(sealed.one, plain, other.seal(plain, os.urandom), bytes(bent), b"", b"x" * 41)
    assert sealed.one.metric("datagrams_unsealed") == before + 5
    sealed.one.expect_members(2)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:0", "[::]:0"])
def test_without_a_secret_a_node_faces_no_network(tmp_path: Path, address: str) -> None:
    home = str(tmp_path / "home")
    refused = subprocess.run(
        [sys.executable, "-P", "-m", "gossipcache", "--home", home, "node", "run",
         "--listen", address],
        capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert refused.returncode == 10
    assert "cluster init" in refused.stderr


def test_nothing_that_a_node_shows_tells_the_secret(sealed: Sealed) -> None:
    hidden = [secret.hex() for secret in sealed.key.secrets]
    hidden.append(sealed.one.home.node_seed().hex())
    shown = [
        sealed.one.home.log_path.read_text(),
        Path(f"/proc/{sealed.one.pid}/cmdline").read_text(),
        Path(f"/proc/{sealed.one.pid}/environ").read_text(),
    ]
    for command in (["node", "status"], ["config", "show"], ["doctor"], ["members"], ["ring"]):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "gossipcache", "--home", str(sealed.one.home.path),
             "--format", "json", *command],
            capture_output=True, text=True, timeout=LIMIT_S,
        )  # fmt: skip
        shown += [done.stdout, done.stderr]
    for text in shown:
        for secret in hidden:
            assert secret not in text
