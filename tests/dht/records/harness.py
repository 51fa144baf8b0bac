"""Several record services on one switchboard, and what a task's publisher does."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import PurePath
from typing import TypeVar

import trio

from gossipcache.charter import Deletion, PolicyChange
from gossipcache.cluster import LOOPBACK
from gossipcache.config import DeletePolicy, RecordConfig
from gossipcache.dht.records.service import Published, RecordService
from gossipcache.dht.records.surroundings import Surroundings
from gossipcache.dht.ring import Ring
from gossipcache.env import ByteStream, Env, Port
from gossipcache.errors import NotReady
from gossipcache.identity import Identity, Signed
from gossipcache.ids import Address, NodeId, TaskId, task_id_of
from gossipcache.manifest import (
    Manifest,
    SignedManifest,
    SignedTombstone,
    sign_manifest,
    sign_tombstone,
)
from gossipcache.metrics import Metrics
from tests.fakes.disk import MemoryDisk
from tests.fakes.links import Switchboard
from tests.fakes.workers import InlineWorkers

T = TypeVar("T")
EPOCH_S = 1_800_000_000.0
JOURNAL = PurePath("/home/records")


def identity(number: int) -> Identity:
    return Identity(hashlib.blake2b(b"node %d" % number, digest_size=32).digest())


def manifest(
    cid: str,
    generation: int = 1,
    content: str = "content",
    publisher: Identity | None = None,
    expires_at: int | None = None,
) -> SignedManifest:
    """A small file's manifest; a cid that begins with `sha256:` names its content."""
    digest = (
        cid
        if cid.startswith("sha256:")
        else f"blake3:{hashlib.sha256(content.encode()).hexdigest()}"
    )
    return sign_manifest(
        Manifest(
            cluster_id=LOOPBACK.cluster_id,
            task_id=task_id_of(cid, ""),
            cid=cid,
            tag="",
            generation=generation,
            kind="file",
            size=len(content),
            listing_size=0,
            piece_size=2**22,
            root=hashlib.sha256(content.encode()).digest(),
            digest=digest,
            created_at=int(EPOCH_S),
            expires_at=expires_at,
        ),
        publisher or identity(1000),
    )


def tombstone(dead: SignedManifest, signer: Identity | None = None) -> SignedTombstone:
    return sign_tombstone(dead, signer or identity(1000), policy_number=0, deleted_at=int(EPOCH_S))


class NoNetwork:
    async def bind(self, address: Address) -> Port:
        raise NotImplementedError

    async def dial(self, address: Address) -> ByteStream:
        raise NotImplementedError


class Memory:
    """What a node remembers of deletions as a former holder."""

    def __init__(self) -> None:
        self.proofs: dict[TaskId, SignedTombstone] = {}

    @property
    def dead_sum(self) -> int:
        return sum(self.dead_generations().values())

    def dead_generations(self) -> dict[TaskId, int]:
        return {key: proof.tombstone.generation for key, proof in self.proofs.items()}

    def tombstone(self, task_id: TaskId, cluster_id: bytes) -> SignedTombstone | None:
        return self.proofs.get(task_id)

    def remember(self, tombstone: SignedTombstone) -> None:
        self.proofs[tombstone.task_id] = tombstone


class Node:
    """One scheduler (or peer) with a disk that outlives its runs."""

    def __init__(
        self, cluster: RecordCluster, number: int, is_scheduler: bool, config: RecordConfig
    ) -> None:
        self.cluster = cluster
        self.identity = identity(number)
        self.node_id = self.identity.node_id
        self.is_scheduler = is_scheduler
        self.config = config
        self.disk = MemoryDisk()
        self.memory = Memory()
        self.metrics = Metrics()
        self.ring = Ring()
        self.met: list[NodeId] = []
        """Whose member records it was shown."""
        self.scope: trio.CancelScope | None = None
        self._number = number
        self._make()

    def _make(self) -> None:
        env = Env(
            network=NoNetwork(),
            disk=self.disk,
            workers=InlineWorkers(),
            wall_time=lambda: EPOCH_S + trio.current_time() - self.cluster.started_at,
            entropy=lambda count: bytes(count),
            rng=random.Random(self._number),
        )
        roles = frozenset(("peer", "scheduler") if self.is_scheduler else ("peer",))
        self.links = self.cluster.board.join(self.identity, roles)
        self.service = RecordService(
            env,
            self.config,
            self.identity,
            LOOPBACK,
            self.links,
            self.metrics,
            Surroundings(
                ring=lambda: self.ring,
                may_keep=lambda node: node not in self.cluster.bystanders,
                introduce=self.cluster.introduce,
                meet=lambda _teller, records: self.met.extend(one.signer for one in records),
                is_alive=lambda node: node not in self.cluster.dead,
                reach_charter=reach_none,
                bystanders=lambda: self.cluster.bystanders,
                deletion=who_may_delete(self.cluster.delete_policy),
            ),
            JOURNAL,
            self.memory,
            is_scheduler=self.is_scheduler,
        )

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.CancelScope() as self.scope:
            await self.service.run(task_status=task_status)

    def remake(self) -> None:
        """A new life of the node on its old disk."""
        self._make()

    async def publish(
        self,
        cid: str,
        content: str = "content",
        timeout_s: float = 10.0,
        expires_at: int | None = None,
    ) -> Published:
        return await self.service.publish(
            lambda generation: manifest(cid, generation, content, self.identity, expires_at),
            task_id=task_id_of(cid, ""),
            timeout_s=timeout_s,
        )


def who_may_delete(policy: DeletePolicy, number: int = 0) -> Callable[[], Deletion]:
    """What is known of who may delete, in a cluster whose charter `number` says `policy`."""
    return lambda: Deletion(number, (PolicyChange(number, policy),))


async def reach_none(number: int) -> None:
    raise NotReady(f"there is no charter {number}")


class RecordCluster:
    """Nodes whose rings the test sets, as membership would."""

    def __init__(self, nursery: trio.Nursery, delete_policy: DeletePolicy) -> None:
        self.board = Switchboard()
        self.started_at = trio.current_time()
        self.delete_policy: DeletePolicy = delete_policy
        self.nodes: list[Node] = []
        self.dead: set[NodeId] = set()
        self.bystanders: list[NodeId] = []
        self._nursery = nursery

    async def add(self, *, is_scheduler: bool = True, config: RecordConfig | None = None) -> Node:
        """A node that runs, but whom nobody knows yet."""
        node = Node(self, len(self.nodes), is_scheduler, config or RecordConfig())
        node.ring = self.nodes[0].ring if self.nodes else node.ring
        self.nodes.append(node)
        await self._nursery.start(node.run)
        return node

    async def start(self, node: Node) -> None:
        await self._nursery.start(node.run)

    def see(self, *members: Node) -> None:
        """Everybody's membership now says that these are the ACTIVE schedulers."""
        ids = [node.node_id for node in members]
        self.dead = {node.node_id for node in self.nodes} - set(ids)
        for node in self.nodes:
            node.ring = node.ring.with_members(ids)
            node.service.on_ring_change()

    def introduce(self, nodes: Iterable[NodeId]) -> tuple[Signed, ...]:
        """Stands for the member records of nodes."""
        by_id = {node.node_id: node.identity for node in self.nodes}
        return tuple(by_id[node].sign(b"test/member", b"") for node in nodes)

    def crash(self, node: Node) -> None:
        """kill -9: nothing is said, connections to it are refused from now on."""
        self.board.refuse(node.node_id)
        assert node.scope is not None
        node.scope.cancel()

    def keepers(self, cid: str) -> list[Node]:
        """The task's keepers as the first node sees them, owner first."""
        by_id = {node.node_id: node for node in self.nodes}
        ring = self.nodes[0].ring
        return [by_id[node] for node in ring.keepers(task_id_of(cid, ""), 3)]

    def held(self, cid: str) -> list[bool]:
        """Which keepers hold an entry of the task, owner first."""
        return [
            keeper.service.local(task_id_of(cid, "")) is not None for keeper in self.keepers(cid)
        ]


@asynccontextmanager
async def record_cluster(
    count: int, delete_policy: DeletePolicy = "any", config: RecordConfig | None = None
) -> AsyncIterator[RecordCluster]:
    """`count` schedulers that know each other and are in sync."""
    async with trio.open_nursery() as nursery:
        cluster = RecordCluster(nursery, delete_policy)
        for _ in range(count):
            await cluster.add(config=config)
        cluster.see(*cluster.nodes)
        await trio.sleep(1.0)
        yield cluster
        nursery.cancel_scope.cancel()


def task(cid: str) -> TaskId:
    return task_id_of(cid, "")
