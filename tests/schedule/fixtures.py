"""What the tests of the schedulers are made of: nodes, tasks, a ring, a small network."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import trio

from gossipcache.cluster import Cluster
from gossipcache.config import ScheduleConfig
from gossipcache.env import Env
from gossipcache.errors import NodeUnreachable, TimedOut
from gossipcache.identity import Identity, Signed
from gossipcache.ids import Address, NodeId, TaskId, task_id_of
from gossipcache.link.interface import ChannelHandler, Handler, Peer, PieceChannel
from gossipcache.manifest import (
    Manifest,
    SignedManifest,
    SignedTombstone,
    open_tombstone,
    sign_manifest,
    sign_tombstone,
)
from gossipcache.messages.announcements import AnnounceReply
from gossipcache.messages.sessions import RegisterPeer, SessionReply
from gossipcache.metrics import Metrics
from gossipcache.schedule.announcement import AnnouncementBatch, Held, sign_batch
from gossipcache.schedule.scheduler import Scheduler
from gossipcache.schedule.scheduling import SchedulerService
from gossipcache.schedule.service import AnnounceService
from gossipcache.schedule.task import RecordView, View, bits_of_pieces, runs_of
from gossipcache.wire import Message, decode, encode

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)

CLUSTER = Cluster(b"cluster1")
CONFIG = ScheduleConfig()
WALL = 1_800_000_000.0
"""Wall time at monotonic time 0 (s since 1970)."""


def identity(number: int) -> Identity:
    """The node of that number; the same every time."""
    return Identity(number.to_bytes(32, "big"))


def manifest_of(cid: str, *, pieces: int = 8, generation: int = 1) -> SignedManifest:
    """A task of `pieces` pieces of 1 KiB, published by node 1."""
    manifest = Manifest(
        cluster_id=CLUSTER.cluster_id,
        task_id=task_id_of(cid, ""),
        cid=cid,
        tag="",
        generation=generation,
        kind="file",
        size=1024 * pieces,
        listing_size=0,
        piece_size=1024,
        root=bytes(32),
        digest="blake3:" + "0" * 64,
        created_at=int(WALL),
    )
    return sign_manifest(manifest, identity(1))


def tombstone_of(manifest: SignedManifest) -> SignedTombstone:
    """The deletion of a task, by node 1."""
    return sign_tombstone(manifest, identity(1), policy_number=0, deleted_at=int(WALL))


@dataclass(frozen=True)
class Record:
    """A task's record at a keeper."""

    manifest: SignedManifest | None = None
    tombstone: SignedTombstone | None = None


def held_of(manifest: SignedManifest, pieces: int | None = None) -> Held:
    """That a node has `pieces` of it, or all."""
    total = manifest.manifest.piece_count
    return Held(manifest.task_id, manifest.name, total if pieces is None else pieces, total)


def batch_of(*held: Held, sequence: int, **changed: Any) -> AnnouncementBatch:
    """A batch that is fine in every respect but what is `changed`."""
    fields: dict[str, Any] = {
        "cluster_id": CLUSTER.cluster_id,
        "issued_at": int(WALL),
        "expires_at": int(WALL) + 3600,
        "fresh": False,
        "withdrawn": (),
    }
    return AnnouncementBatch(held=held, sequence=sequence, **(fields | changed))


@dataclass
class Keeper:
    """A scheduler core with a world around it that a test sets as it likes. It is node 100."""

    records: dict[TaskId, Record] = field(default_factory=dict)
    dead: set[NodeId] = field(default_factory=set)
    foreign: set[TaskId] = field(default_factory=set)
    """Tasks that it does not keep."""
    zones: dict[NodeId, str] = field(default_factory=dict)
    now: float = 0.0
    core: Scheduler = field(init=False)
    sequence: int = 0

    def __post_init__(self) -> None:
        self.me = identity(100).node_id
        other = identity(101).node_id
        view = View(
            record_of=lambda task_id: cast(RecordView | None, self.records.get(task_id)),
            keepers_of=lambda task_id: (other,) if task_id in self.foreign else (self.me, other),
            is_alive=lambda node_id: node_id not in self.dead,
            zone_of=lambda node_id: self.zones.get(node_id, ""),
        )
        self.core = Scheduler(CONFIG, CLUSTER.cluster_id, self.me, view, random.Random(1))

    def knows(self, *manifests: SignedManifest) -> None:
        """Puts records there."""
        for manifest in manifests:
            self.records[manifest.task_id] = Record(manifest)

    def announce(self, node: Identity, *held: Held, **changed: Any) -> AnnounceReply:
        """A batch of `node` comes in, signed by it."""
        self.sequence += 1
        batch = batch_of(*held, **({"sequence": self.sequence} | changed))
        return self.receive(node, sign_batch(batch, node))

    def receive(self, node: Identity, signed: Signed) -> AnnounceReply:
        """`node` sends a batch, whoever signed it."""
        return self.core.announce(signed, node.node_id, self.now, WALL + self.now)

    def register(
        self, node: Identity, manifest: SignedManifest, *have: int, **changed: Any
    ) -> SessionReply:
        """`node` opens a session, having some pieces."""
        total = manifest.manifest.piece_count
        fields: dict[str, Any] = {
            "task_id": manifest.task_id,
            "manifest_name": manifest.name,
            "session": 1,
            "piece_count": total,
            "have": tuple(runs_of(bits_of_pieces(have, total))),
            "parents": (),
        }
        return self.core.register(RegisterPeer(**(fields | changed)), node.node_id, self.now)


class Fabric:
    """All links of a test's nodes. A node that is cut off neither sends nor receives."""

    def __init__(self) -> None:
        self._handlers: dict[NodeId, dict[type[Message], Handler[Any]]] = {}
        self._peers: dict[NodeId, Peer] = {}
        self.down: set[NodeId] = set()
        self.silent: set[NodeId] = set()
        """Nodes that take requests and never answer."""
        self.sent: list[tuple[NodeId, NodeId, Message]] = []

    def links_of(self, node: Identity) -> FabricLinks:
        """The links of one node."""
        self._peers[node.node_id] = Peer(
            node.node_id, node.public_key, frozenset(), 1, Address("127.0.0.1", 1)
        )
        self._handlers[node.node_id] = {}
        return FabricLinks(self, node.node_id, self._handlers[node.node_id])

    async def deliver(self, source: NodeId, target: NodeId, message: Message) -> Message | None:
        """One message over the wire, encoded and decoded, and its answer back."""
        await trio.lowlevel.checkpoint()
        if {source, target} & self.down or target not in self._handlers:
            raise NodeUnreachable("the node is down")
        self.sent.append((source, target, message))
        if target in self.silent:
            await trio.sleep_forever()
        handler = self._handlers[target].get(type(message))
        if handler is None:
            raise NodeUnreachable("nobody answers this kind of message")
        answer = await handler(self._peers[source], decode(encode(message), type(message)))
        if {source, target} & self.down:
            raise NodeUnreachable("the node went down")
        return decode(encode(answer), type(answer)) if answer is not None else None


class FabricLinks:
    """Implements `Links` over a `Fabric`."""

    def __init__(
        self, fabric: Fabric, me: NodeId, handlers: dict[type[Message], Handler[Any]]
    ) -> None:
        self._fabric, self._me, self._handlers = fabric, me, handlers

    def handle(self, kind: type[M], handler: Handler[M]) -> None:
        self._handlers[kind] = handler

    def handle_channels(self, handler: ChannelHandler) -> None:
        raise NotImplementedError

    async def request(self, node: NodeId, message: Message, reply: type[R], timeout_s: float) -> R:
        with trio.move_on_after(timeout_s):
            answer = await self._fabric.deliver(self._me, node, message)
            assert isinstance(answer, reply)
            return answer
        raise TimedOut("no answer")

    async def request_address(
        self, address: Address, message: Message, reply: type[R], timeout_s: float
    ) -> tuple[Peer, R]:
        raise NotImplementedError

    async def notify(self, node: NodeId, message: Message) -> None:
        await self._fabric.deliver(self._me, node, message)

    async def open_channel(self, node: NodeId) -> PieceChannel:
        raise NotImplementedError


@dataclass
class FixedRing:
    """Keepers as a test sets them, the same for every task."""

    nodes: tuple[NodeId, ...] = ()

    @property
    def epoch(self) -> bytes:
        return b"".join(self.nodes)

    def keepers(self, task_id: TaskId, count: int) -> tuple[NodeId, ...]:
        return self.nodes[:count]


class Cast:
    """Several nodes over one fabric and one ring, all of one view of who is alive."""

    def __init__(self) -> None:
        self.fabric = Fabric()
        self.ring = FixedRing()
        self.dead: set[NodeId] = set()
        self.records: dict[NodeId, dict[TaskId, Record]] = {}
        self.metrics: dict[NodeId, Metrics] = {}
        self.schedulers: dict[NodeId, SchedulerService] = {}
        self.peers: dict[NodeId, AnnounceService] = {}
        self.dropped: list[tuple[NodeId, TaskId]] = []
        self.restored: list[tuple[NodeId, TaskId]] = []

    def is_alive(self, node_id: NodeId) -> bool:
        return node_id not in self.dead

    def _env(self, node: Identity) -> Env:
        unused = cast(Any, None)
        return Env(
            network=unused,
            disk=unused,
            workers=unused,
            wall_time=lambda: WALL + trio.current_time(),
            entropy=unused,
            rng=random.Random(node.node_id),
        )

    async def add(
        self, nursery: trio.Nursery, number: int, *, keeper: bool = False
    ) -> AnnounceService:
        """Starts a node; a keeper also joins the ring."""
        node = identity(number)
        me = node.node_id
        records = self.records.setdefault(me, {})
        metrics = self.metrics[me] = Metrics()
        links = self.fabric.links_of(node)

        async def on_deleted(tombstone: Signed, dead: Signed) -> None:
            found = open_tombstone(tombstone, dead, CLUSTER.cluster_id)
            self.dropped.append((me, found.task_id))
            service.drop(found.task_id)

        async def restore(task_id: TaskId) -> None:
            self.restored.append((me, task_id))

        service = AnnounceService(
            self._env(node), CONFIG, node, CLUSTER, links, metrics,
            ring=lambda: self.ring, is_alive=self.is_alive,
            on_deleted=on_deleted, restore=restore,
        )  # fmt: skip
        self.peers[me] = service
        await nursery.start(_started(service.run))
        if keeper:
            scheduler = SchedulerService(
                self._env(node), CONFIG, node, CLUSTER, links, metrics,
                record_of=lambda task_id: cast(RecordView | None, records.get(task_id)),
                ring=lambda: self.ring, is_alive=self.is_alive,
            )  # fmt: skip
            self.schedulers[me] = scheduler
            await nursery.start(_started(scheduler.run))
            self.set_ring(*self.ring.nodes, me)
        return service

    def set_ring(self, *nodes: NodeId) -> None:
        """The ring changes, and every node sees it."""
        self.ring.nodes = nodes
        for peer in self.peers.values():
            peer.on_ring_change()

    def publish(self, manifest: SignedManifest) -> None:
        """Puts the record on every keeper."""
        for keeper in self.schedulers:
            self.records[keeper][manifest.task_id] = Record(manifest)

    def kill(self, number: int) -> None:
        """Cuts a node off; nobody has noticed yet."""
        self.fabric.down.add(identity(number).node_id)

    def notice_death(self, number: int) -> None:
        """Membership finds it out."""
        me = identity(number).node_id
        self.dead.add(me)
        for scheduler in self.schedulers.values():
            scheduler.member_down(me)
        self.set_ring(*(node for node in self.ring.nodes if node != me))


def _started(run: Callable[..., Any]) -> Callable[..., Any]:
    async def start(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await run(task_status=task_status)

    return start
