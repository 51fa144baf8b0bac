"""A record keeper: what a scheduler does for the tasks whose keeper it is."""

from __future__ import annotations

import trio
from msgspec.structs import replace

from gossipcache.dht.records.coordinator import Coordinator
from gossipcache.dht.records.exchange import Exchange
from gossipcache.dht.records.glances import Glances
from gossipcache.dht.records.graves import Graves
from gossipcache.dht.records.log import RecordLog
from gossipcache.dht.records.recall import Recall
from gossipcache.dht.records.replication import ReplicationCore
from gossipcache.dht.records.standing import Standing
from gossipcache.dht.records.surroundings import Means, Surroundings
from gossipcache.dht.records.upkeep import Upkeep
from gossipcache.dht.records.verdicts import NotYet, Ready
from gossipcache.dht.ring import Ring
from gossipcache.errors import NotPermitted
from gossipcache.ids import NodeId, TaskId
from gossipcache.link.interface import Peer
from gossipcache.messages.graves import GravesHere
from gossipcache.messages.records import (
    BucketPage,
    BucketsDiffer,
    CommitRecord,
    CompareBuckets,
    CompareShared,
    FetchRecords,
    ListBucket,
    PrepareRecord,
    PushRecords,
    ReadRecord,
    RecordAnswer,
    RecordPage,
    RecordPrepared,
    RecordsTaken,
    RecordWritten,
    SharedCompared,
    WithdrawRecord,
    WriteRecord,
)

_RETURN_S = 2.0


class Keeper:
    """The server side of the records on one scheduler."""

    def __init__(
        self,
        means: Means,
        around: Surroundings,
        core: ReplicationCore,
        log: RecordLog,
        graves: Graves,
        glances: Glances | None,
    ) -> None:
        self._env = means.env
        self._opener = means.opener
        self._metrics = means.metrics
        self._around = around
        self._core = core
        self._log = log
        self._recall = Recall(means, around, core, log, graves)
        self._exchange = Exchange(means, around, core, log, graves, self._recall, glances)
        if glances is not None:
            glances.look_at(core, graves, self._recall)
        self._upkeep = Upkeep(means, around, core, log, self._exchange, self._recall)
        self._coordinator = Coordinator(
            means, core, log, hint=self._upkeep.hint, reconcile=self._exchange.reconcile
        )

    @classmethod
    async def open(
        cls,
        means: Means,
        around: Surroundings,
        log: RecordLog,
        graves: Graves,
        glances: Glances | None,
    ) -> Keeper:
        """A keeper with what its journal holds."""
        now = trio.current_time()
        core = ReplicationCore(means.me, around.ring(), means.config, around.deletion, now)
        await log.open(lambda key, value: core.load(key, value, now))
        return cls(means, around, core, log, graves, glances)

    async def run(self, synced: trio.Event) -> None:
        """Keeps the entries in step with the other keepers until cancelled."""
        await self._upkeep.run(synced)

    def set_ring(self, ring: Ring) -> None:
        """Takes the ring of the ACTIVE schedulers."""
        before = self._core.ring.epoch
        self._core.set_ring(ring, trio.current_time())
        if self._core.ring.epoch != before:
            self._upkeep.on_ring_change()

    def was_away(self) -> None:
        """Says that others held this node for dead: for a while it vouches for nothing, until
        they have told it what it missed."""
        self._core.settling.distrust(trio.current_time() + _RETURN_S)

    def standing(self, task_id: TaskId) -> Standing | None:
        """The committed entry held here."""
        return self._core.standing(task_id)

    @property
    def record_count(self) -> int:
        """How many tasks have an entry here."""
        return len(self._core)

    # What anyone may ask

    async def read(self, asker: NodeId, message: ReadRecord) -> RecordAnswer:
        """Answers `ReadRecord`. What is held is given by anyone who holds it.

        To an asker that it believes dead the keeper vouches for nothing: it was cut off itself.
        """
        task_id = TaskId(message.task_id)
        keepers = self._core.keepers(task_id)
        if message.reconcile and self._core.me in keepers:
            await self._exchange.reconcile(task_id)
        standing = self._core.standing(task_id)
        if self._core.me not in keepers:
            return self._naming(keepers, RecordAnswer(state="not_keeper"))
        answer = self._known(asker, task_id, standing)
        if message.epoch in (b"", self._core.ring.epoch):
            return answer
        return self._naming(keepers, answer)

    def _known(self, asker: NodeId, task_id: TaskId, standing: Standing | None) -> RecordAnswer:
        now = trio.current_time()
        settled = self._core.knows_absence(task_id, now) and (
            asker == self._core.me or self._around.is_alive(asker)
        )
        if standing is not None:
            hearsay = self._core.is_hearsay(task_id)
            return RecordAnswer(
                state="held", entry=standing.entry, settled=settled, hearsay=hearsay
            )
        return RecordAnswer(state="absent" if settled else "recovering")

    def _naming(self, keepers: tuple[NodeId, ...], answer: RecordAnswer) -> RecordAnswer:
        return replace(answer, keepers=keepers, introductions=self._around.introduce(keepers))

    async def write(self, message: WriteRecord) -> RecordWritten:
        """Answers `WriteRecord`."""
        candidate = self._opener.open(message.entry)
        keepers = self._core.keepers(candidate.task_id)
        if self._core.me not in keepers:
            return RecordWritten(
                outcome="not_keeper",
                keepers=keepers,
                introductions=self._around.introduce(keepers),
            )
        await self._exchange.reach_charters([candidate])
        return await self._coordinator.write(candidate, restore=message.restore)

    async def hear_of_graves(self, peer: Peer, _message: GravesHere) -> None:
        """Takes `GravesHere`."""
        await self._recall.try_ask(peer.node_id)

    # What other keepers ask

    async def prepare(self, peer: Peer, message: PrepareRecord) -> RecordPrepared:
        """Answers `PrepareRecord`."""
        _check_scheduler(peer)
        candidate = self._opener.open(message.entry)
        await self._exchange.reach_charters([candidate])
        verdict = self._core.prepare(
            candidate,
            peer.node_id,
            restore=message.restore,
            now=trio.current_time(),
            wall_s=self._env.wall_time(),
        )
        if isinstance(verdict, NotYet):
            return RecordPrepared(verdict="not_ready")
        if isinstance(verdict, Ready):
            await self._log.write(verdict.changes)
            return RecordPrepared(verdict="ready")
        return RecordPrepared(verdict="refused")

    async def commit(self, peer: Peer, message: CommitRecord) -> RecordsTaken:
        """Answers `CommitRecord`; one that was not prepared here, or has expired, is a push."""
        _check_scheduler(peer)
        changes = self._core.commit(self._opener.open(message.entry), peer.node_id)
        if changes is None:
            return RecordsTaken(count=await self._exchange.take(peer.node_id, (message.entry,)))
        await self._log.write(changes)
        return RecordsTaken(count=1)

    async def withdraw(self, peer: Peer, message: WithdrawRecord) -> None:
        """Takes `WithdrawRecord`."""
        await self._log.write(
            self._core.withdraw(TaskId(message.task_id), message.version, peer.node_id)
        )

    async def push(self, peer: Peer, message: PushRecords) -> RecordsTaken:
        """Answers `PushRecords`."""
        _check_scheduler(peer)
        return RecordsTaken(count=await self._exchange.take(peer.node_id, message.entries))

    async def compare(self, peer: Peer, message: CompareShared) -> SharedCompared:
        """Answers `CompareShared`."""
        _check_scheduler(peer)
        return await self._exchange.compare(peer.node_id, message)

    async def compare_buckets(self, peer: Peer, message: CompareBuckets) -> BucketsDiffer:
        """Answers `CompareBuckets`."""
        _check_scheduler(peer)
        return await self._exchange.compare_buckets(peer.node_id, message)

    async def list_bucket(self, peer: Peer, message: ListBucket) -> BucketPage:
        """Answers `ListBucket`."""
        _check_scheduler(peer)
        return await self._exchange.list_bucket(peer.node_id, message)

    async def fetch(self, peer: Peer, message: FetchRecords) -> RecordPage:
        """Answers `FetchRecords`."""
        _check_scheduler(peer)
        return self._exchange.fetch(message)


def _check_scheduler(peer: Peer) -> None:
    if "scheduler" not in peer.roles:
        raise NotPermitted("only schedulers keep records")
