"""Task records in the cluster: reading and writing them from any node, keeping them on some.

Every node reads and writes; a scheduler is also a `Keeper`. Nothing here depends on a single
keeper: a read asks several, a write goes on with the next, and both go on trying, with backoff,
until their deadline, while the ring learns who is gone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import TypeVar

import trio

from gossipcache.cluster import Cluster
from gossipcache.config import RecordConfig
from gossipcache.dht.records.client import RecordClient
from gossipcache.dht.records.glances import Glances, Whispers
from gossipcache.dht.records.graves import Graves, Memory
from gossipcache.dht.records.keeper import Keeper
from gossipcache.dht.records.log import RecordLog
from gossipcache.dht.records.reading import Accept, TaskRecord
from gossipcache.dht.records.replication import committed_task
from gossipcache.dht.records.standing import Opener, standing_manifest, standing_tombstone
from gossipcache.dht.records.surroundings import Means, Surroundings
from gossipcache.env import Env
from gossipcache.errors import Conflict, NotReady
from gossipcache.identity import Identity
from gossipcache.ids import TaskId
from gossipcache.journal import Change
from gossipcache.link.interface import Handler, Links, Peer
from gossipcache.manifest import SignedManifest, SignedTombstone
from gossipcache.messages.graves import GravesHere
from gossipcache.messages.records import (
    CommitRecord,
    CompareBuckets,
    CompareShared,
    FetchRecords,
    ListBucket,
    PrepareRecord,
    PushRecords,
    ReadRecord,
    RecordWritten,
    WithdrawRecord,
    WriteRecord,
)
from gossipcache.metrics import Metrics
from gossipcache.wire import Message

__all__ = ["Published", "RecordService", "TaskRecord"]

M = TypeVar("M", bound=Message)
RESTORE_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Published:
    """The manifest that stands after `publish`, durable on `copies` keepers.

    `adopted`: it is another's, with the same content.
    """

    manifest: SignedManifest
    copies: int
    adopted: bool


class RecordService:
    """The records as one node sees them."""

    def __init__(
        self,
        env: Env,
        config: RecordConfig,
        identity: Identity,
        cluster: Cluster,
        links: Links,
        metrics: Metrics,
        around: Surroundings,
        journal_path: PurePath,
        memory: Memory,
        *,
        is_scheduler: bool,
        whispers: Whispers | None = None,
    ) -> None:
        """To be made before `links` serves; `journal_path` is used by a scheduler only, `memory`
        is what this node remembers of deletions as a holder. Without `whispers` all comparisons
        need a connection.
        """
        self._env = env
        self._me = identity.node_id
        self._links = links
        self._metrics = metrics
        self._around = around
        self._journal_path = journal_path
        self._is_scheduler = is_scheduler
        self._opener = Opener(cluster.cluster_id)
        self._means = Means(env, config, self._me, links, metrics, self._opener)
        self._keeper: Keeper | None = None
        self.graves = Graves(env, memory, links, cluster.cluster_id, around.ring, config.replicas)
        self._client = RecordClient(self._means, around, self._answer)
        self.synced = trio.Event()
        """Set when this node, as a keeper, first has all that it should have."""
        self._glances: Glances | None = None
        if is_scheduler:
            self._name_handlers()
            if whispers is not None:
                self._glances = Glances(env, identity, cluster, whispers)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps records until cancelled; started when it answers others.

        Raises `VersionUnsupported` for a journal of a newer version, and `OSError`.
        """
        if not self._is_scheduler:
            self.synced.set()
            task_status.started()
            await trio.sleep_forever()
        log = RecordLog(self._env, self._journal_path, self._metrics, self._note_written)
        try:
            self._keeper = keeper = await Keeper.open(
                self._means, self._around, log, self.graves, self._glances
            )
            keeper.set_ring(self._around.ring())
            task_status.started()
            await keeper.run(self.synced)
        finally:
            self._keeper = None
            if self._glances is not None:
                self._glances.look_away()
            await log.close()

    def _note_written(self, change: Change) -> None:
        task_id = committed_task(change)
        if task_id is not None and self._keeper is not None:
            standing = self._keeper.standing(task_id)
            if standing is not None and (standing.tombstone or standing.generation > 1):
                self._around.on_over(task_id)

    def on_ring_change(self) -> None:
        """Says that `ring()` gives another ring now."""
        if self._keeper is not None:
            self._keeper.set_ring(self._around.ring())

    def was_away(self) -> None:
        """Says that others took this node for dead, and that it has just told them better."""
        if self._keeper is not None:
            self._keeper.was_away()

    def local(self, task_id: TaskId) -> TaskRecord | None:
        """What this node holds as a keeper, without asking anyone; expired manifests included."""
        standing = self._keeper.standing(task_id) if self._keeper is not None else None
        if standing is None:
            return None
        return TaskRecord(standing.manifest, standing.tombstone, standing.generation, 1)

    @property
    def record_count(self) -> int:
        """How many tasks this node keeps an entry of."""
        return self._keeper.record_count if self._keeper is not None else 0

    async def read(
        self, task_id: TaskId, *, accept: Accept | None = None, timeout_s: float
    ) -> TaskRecord | None:
        """The record of a task, or None if it certainly has none (or an expired one).

        `accept` says of a manifest that it is the one meant, whoever tells it. Raises `TimedOut`
        if the keepers could not answer or agree in time, `Conflict` for a fork.
        """
        return await self._client.read(task_id, accept, trio.current_time() + timeout_s)

    async def publish(
        self,
        candidate: Callable[[int], SignedManifest],
        *,
        task_id: TaskId,
        timeout_s: float,
    ) -> Published:
        """Makes a manifest stand for `task_id`; `candidate` signs it for a generation.

        The same content under another header is adopted. Raises `Conflict` (other content
        stands), `TimedOut` (too few keepers), and what `candidate` raises.
        """
        deadline = trio.current_time() + timeout_s
        mine = candidate(1)
        while True:
            written = await self._client.write(
                standing_manifest(mine), restore=False, deadline=deadline
            )
            if written.outcome != "generation":
                break
            mine = candidate(written.generation)
        if written.outcome == "written":
            return Published(mine, written.copies, adopted=False)
        standing = self._standing_manifest(written, task_id, mine)
        return Published(standing, written.copies, adopted=standing.name != mine.name)

    def _standing_manifest(
        self, written: RecordWritten, task_id: TaskId, mine: SignedManifest
    ) -> SignedManifest:
        if written.entry is not None:
            for one in self._opener.open(written.entry, task_id).manifests:
                if one.manifest.digest == mine.manifest.digest:
                    return one
        raise Conflict("other content stands under this cid and tag")

    async def bury(self, tombstone: SignedTombstone, timeout_s: float) -> int:
        """Makes a deletion stand; returns the number of durable copies.

        Raises `NotPermitted`, `Conflict` (imported anew since), `TimedOut` (too few keepers).
        """
        deadline = trio.current_time() + timeout_s
        written = await self._client.write(
            standing_tombstone(tombstone), restore=False, deadline=deadline
        )
        return written.copies

    async def restore(self, manifest: SignedManifest, timeout_s: float = RESTORE_TIMEOUT_S) -> bool:
        """Gives a record back that its keepers may have lost; whether this manifest stands now.

        Raises `TimedOut`. A deletion, or other content, that stands is left alone.
        """
        deadline = trio.current_time() + timeout_s
        try:
            written = await self._client.write(
                standing_manifest(manifest), restore=True, deadline=deadline
            )
        except Conflict:
            return False
        if written.outcome == "stands" and written.entry is not None:
            stands = self._opener.open(written.entry, manifest.task_id)
            return manifest.name in [one.name for one in stands.manifests]
        return written.outcome == "written"

    # Serving

    def _serving(self) -> Keeper:
        if self._keeper is None:
            raise NotReady("this keeper is starting or stopping")
        return self._keeper

    async def _answer(self, message: ReadRecord | WriteRecord) -> Message:
        keeper = self._serving()
        if isinstance(message, ReadRecord):
            return await keeper.read(self._me, message)
        return await keeper.write(message)

    def _name_handlers(self) -> None:
        async def read(peer: Peer, message: ReadRecord) -> Message:
            return await self._serving().read(peer.node_id, message)

        async def write(_peer: Peer, message: WriteRecord) -> Message:
            return await self._serving().write(message)

        self._links.handle(ReadRecord, read)
        self._links.handle(WriteRecord, write)
        self._links.handle(PrepareRecord, self._served(Keeper.prepare))
        self._links.handle(CommitRecord, self._served(Keeper.commit))
        self._links.handle(WithdrawRecord, self._served(Keeper.withdraw))
        self._links.handle(PushRecords, self._served(Keeper.push))
        self._links.handle(CompareShared, self._served(Keeper.compare))
        self._links.handle(CompareBuckets, self._served(Keeper.compare_buckets))
        self._links.handle(ListBucket, self._served(Keeper.list_bucket))
        self._links.handle(FetchRecords, self._served(Keeper.fetch))
        self._links.handle(GravesHere, self._served(Keeper.hear_of_graves))

    def _served(self, answer: Callable[[Keeper, Peer, M], Awaitable[Message | None]]) -> Handler[M]:
        async def handler(peer: Peer, message: M) -> Message | None:
            return await answer(self._serving(), peer, message)

        return handler
