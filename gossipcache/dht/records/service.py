"""Task records in the cluster: reading and writing them from any node, keeping them on some.

Every node reads and writes; a scheduler is also a `Keeper`. Nothing here depends on a single
keeper: a read asks several, a write goes on with the next, and both go on trying, with backoff,
until their deadline, while the ring learns who is gone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any

import trio

from gossipcache.cluster import Cluster
from gossipcache.config import RecordConfig
from gossipcache.dht.records.client import Asked, RecordClient
from gossipcache.dht.records.glances import Glances, Whispers
from gossipcache.dht.records.graves import Graves, Memory
from gossipcache.dht.records.keeper import ANSWERS, ASKED, Keeper
from gossipcache.dht.records.log import RecordLog
from gossipcache.dht.records.performing import Performer
from gossipcache.dht.records.publishing import Published, Publisher
from gossipcache.dht.records.reading import Accept, TaskRecord
from gossipcache.dht.records.reminding import Reminder
from gossipcache.dht.records.replication import ReplicationCore, committed_task
from gossipcache.dht.records.standing import Opener
from gossipcache.dht.records.steps import Steps, Wait
from gossipcache.dht.records.surroundings import Means, Surroundings
from gossipcache.env import Env
from gossipcache.errors import NotReady
from gossipcache.identity import Identity
from gossipcache.ids import NodeId, TaskId
from gossipcache.journal import Change
from gossipcache.link.interface import Links, Peer
from gossipcache.manifest import SignedManifest, SignedTombstone
from gossipcache.messages.graves import AskGraves, AskProofs
from gossipcache.metrics import Metrics
from gossipcache.wire import Message

__all__ = ["Published", "RecordService", "TaskRecord"]

RESTORE_TIMEOUT_S = 10.0


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
        opener = Opener(cluster.cluster_id)
        self._means = Means(config, self._me, metrics, opener, env.rng)
        self._performer = Performer(env, links, around.reach_charter)
        self._keeper: Keeper | None = None
        self._graves = Graves(memory, cluster.cluster_id, around.ring, config.replicas)
        self._reminder = Reminder(self._me, memory, around.ring, config.replicas)
        self._client = RecordClient(self._means, around, self._answer)
        self._publisher = Publisher(self._client, opener)
        self.synced = trio.Event()
        """Set when this node, as a keeper, first has all that it should have."""
        self._name_handlers()
        if is_scheduler and whispers is not None:
            self._performer.glances = Glances(env, identity, cluster, whispers)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps records until cancelled; started when it answers others.

        Raises `VersionUnsupported` for a journal of a newer version, and `OSError`.
        """
        if not self._is_scheduler:
            self.synced.set()
            task_status.started()
            await self._performer.perform(self._reminder.loop())
            return
        log = RecordLog(self._env, self._journal_path, self._metrics, self._note_written)
        try:
            keeper = await self._open(log)
            task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._performer.perform, self._note_synced(keeper))
                for loop in (*keeper.upkeep.loops(), self._reminder.loop()):
                    nursery.start_soon(self._performer.perform, loop)
                if (glances := self._performer.glances) is not None:
                    nursery.start_soon(glances.answer_late, self._counter(keeper))
        finally:
            self._keeper = self._performer.log = None
            if self._performer.glances is not None:
                self._performer.glances.look_away()
            await log.close()

    async def _open(self, log: RecordLog) -> Keeper:
        """A keeper with what its journal holds."""
        now, around = trio.current_time(), self._around
        core = ReplicationCore(self._me, around.ring(), self._means.config, around.deletion, now)
        await log.open(lambda key, value: core.load(key, value, now))
        self._performer.log = log
        self._keeper = keeper = Keeper(self._means, around, core, self._graves)
        if self._performer.glances is not None:
            self._performer.glances.look_at(core, self._graves, keeper.recall)
        keeper.set_ring(around.ring(), trio.current_time())
        return keeper

    def _counter(self, keeper: Keeper) -> Callable[[NodeId], Awaitable[None]]:
        async def count(node: NodeId) -> None:
            await self._performer.perform(keeper.count_shared(node))

        return count

    def _note_synced(self, keeper: Keeper) -> Steps[None]:
        yield Wait(keeper.upkeep.synced)
        self.synced.set()

    def _note_written(self, change: Change) -> None:
        task_id = committed_task(change)
        if task_id is not None and self._keeper is not None:
            standing = self._keeper.standing(task_id)
            if standing is not None and (standing.tombstone or standing.generation > 1):
                self._around.on_over(task_id)

    def on_ring_change(self) -> None:
        """Says that `ring()` gives another ring now."""
        self._reminder.on_ring_change()
        if self._keeper is not None:
            self._keeper.set_ring(self._around.ring(), trio.current_time())

    def was_away(self) -> None:
        """Says that others took this node for dead, and that it has just told them better."""
        if self._keeper is not None:
            self._keeper.was_away(trio.current_time())

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
        deadline = trio.current_time() + timeout_s
        return await self._performer.perform(self._client.read(task_id, accept, deadline))

    async def publish(
        self,
        candidate: Callable[[int], SignedManifest],
        *,
        task_id: TaskId,
        timeout_s: float,
    ) -> Published:
        """See `Publisher.publish`."""
        deadline = trio.current_time() + timeout_s
        publish = self._publisher.publish(candidate, task_id, deadline)
        return await self._performer.perform(publish)

    async def publish_many(self, manifests: Sequence[SignedManifest]) -> dict[TaskId, Published]:
        """See `Publisher.publish_many`."""
        return await self._performer.perform(self._publisher.publish_many(manifests))

    async def read_many(self, task_ids: Sequence[TaskId]) -> dict[TaskId, TaskRecord | None]:
        """See `RecordClient.read_many`."""
        return await self._performer.perform(self._client.read_many(task_ids))

    async def bury(self, tombstone: SignedTombstone, timeout_s: float) -> int:
        """See `Publisher.bury`."""
        deadline = trio.current_time() + timeout_s
        return await self._performer.perform(self._publisher.bury(tombstone, deadline))

    async def restore(self, manifest: SignedManifest, timeout_s: float = RESTORE_TIMEOUT_S) -> bool:
        """See `Publisher.restore`."""
        deadline = trio.current_time() + timeout_s
        return await self._performer.perform(self._publisher.restore(manifest, deadline))

    # Serving

    def _serving(self) -> Keeper:
        if self._keeper is None:
            raise NotReady("this keeper is starting or stopping")
        return self._keeper

    def _answer(self, message: Asked) -> Steps[Message]:
        """Answers for this node itself."""
        return self._serving().answer(self._me, message)

    def _name_handlers(self) -> None:
        graves = self._graves
        self._handle(AskGraves, lambda peer, message: graves.tell(peer.node_id, message))
        self._handle(AskProofs, lambda _peer, message: graves.prove(message))
        if not self._is_scheduler:
            return
        serving = self._serving
        for asked in ASKED:
            self._handle(asked, lambda peer, message: serving().answer(peer.node_id, message))
        for kind, answer in ANSWERS.items():
            self._handle(kind, partial(self._kept, answer))

    def _kept(
        self, answer: Callable[[Keeper, Peer, Any], Steps[Message | None]], peer: Peer, message: Any
    ) -> Steps[Message | None]:
        return answer(self._serving(), peer, message)

    def _handle(
        self, kind: type[Message], answer: Callable[[Peer, Any], Steps[Message | None]]
    ) -> None:
        async def handler(peer: Peer, message: Message) -> Message | None:
            return await self._performer.perform(answer(peer, message))

        self._links.handle(kind, handler)
