"""A record keeper: what a scheduler does for the tasks whose keeper it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from gossipcache.dht.records.batches import Batches
from gossipcache.dht.records.client import Asked
from gossipcache.dht.records.coordinator import Coordinator
from gossipcache.dht.records.exchange import Exchange
from gossipcache.dht.records.graves import Graves
from gossipcache.dht.records.paging import PAGE_BYTES, entry_bytes
from gossipcache.dht.records.recall import Recall
from gossipcache.dht.records.replication import ReplicationCore
from gossipcache.dht.records.standing import Standing
from gossipcache.dht.records.steps import Breathe, Steps, clock, persist
from gossipcache.dht.records.surroundings import Means, Surroundings
from gossipcache.dht.records.upkeep import Upkeep
from gossipcache.dht.records.verdicts import NotYet, Ready
from gossipcache.dht.ring import Ring
from gossipcache.errors import NotPermitted
from gossipcache.ids import NodeId, TaskId
from gossipcache.link.interface import Peer
from gossipcache.messages.batches import (
    CommitRecords,
    KnownRecord,
    PrepareRecords,
    ReadRecords,
    RecordsJudged,
    RecordsRead,
    RecordsWritten,
    WriteRecords,
)
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
from gossipcache.wire import Message

ASKED: tuple[type[Asked], ...] = (ReadRecord, ReadRecords, WriteRecord, WriteRecords)
"""What anyone may ask a keeper."""
_RETURN_S = 2.0


class Keeper:
    """The server side of the records on one scheduler."""

    def __init__(
        self,
        means: Means,
        around: Surroundings,
        core: ReplicationCore,
        graves: Graves,
    ) -> None:
        self._opener = means.opener
        self._metrics = means.metrics
        self._around = around
        self._core = core
        self.recall = Recall(means, around, core, graves)
        self._exchange = Exchange(means, around, core, graves, self.recall)
        self.upkeep = Upkeep(means, around, core, self._exchange, self.recall)
        self._coordinator = Coordinator(
            means, core, hint=self.upkeep.hint, reconcile=self._exchange.reconcile
        )
        self._batches = Batches(means, around, core, self._coordinator, hint=self.upkeep.hint)

    def set_ring(self, ring: Ring, now: float) -> None:
        """Takes the ring of the ACTIVE schedulers."""
        before = self._core.ring.epoch
        self._core.set_ring(ring, now)
        if self._core.ring.epoch != before:
            self.upkeep.on_ring_change()

    def was_away(self, now: float) -> None:
        """Says that others held this node for dead: for a while it vouches for nothing, until
        they have told it what it missed."""
        self._core.settling.distrust(now + _RETURN_S)

    def standing(self, task_id: TaskId) -> Standing | None:
        """The committed entry held here."""
        return self._core.standing(task_id)

    @property
    def record_count(self) -> int:
        """How many tasks have an entry here."""
        return len(self._core)

    def count_shared(self, node: NodeId) -> Steps[None]:
        """Readies what is to be compared with `node`."""
        yield from self._exchange.count_shared(node)

    # What anyone may ask

    def answer(self, asker: NodeId, message: Asked) -> Steps[Message]:
        """Answers whatever anyone may ask, `asker` being this node itself or another."""
        match message:
            case ReadRecord():
                return (yield from self.read(asker, message))
            case ReadRecords():
                return (yield from self._read_many(asker, message))
            case WriteRecord():
                return (yield from self.write(message))
            case WriteRecords():
                copies = yield from self._batches.write(asker, message.entries)
                return RecordsWritten(copies=copies)

    def _read_many(self, asker: NodeId, message: ReadRecords) -> Steps[RecordsRead]:
        moment = yield from clock()
        known: list[KnownRecord] = []
        size = 0
        for task_id in message.task_ids:
            one = self._known_record(asker, TaskId(task_id), moment.now)
            size += 8 if one.entry is None else entry_bytes(one.entry)
            if known and size > PAGE_BYTES:
                break
            known.append(one)
        return RecordsRead(records=tuple(known))

    def _known_record(self, asker: NodeId, task_id: TaskId, now: float) -> KnownRecord:
        if self._core.me not in self._core.keepers(task_id):
            return KnownRecord(None, settled=False, hearsay=False)
        standing = self._core.standing(task_id)
        if standing is not None and asker == self._core.me:
            # They were checked before they came to stand here, and are about to be opened.
            for manifest in standing.manifests:
                self._opener.remember(manifest)
        known = self._known(asker, task_id, standing, now)
        return KnownRecord(known.entry, known.settled or known.state == "absent", known.hearsay)

    def read(self, asker: NodeId, message: ReadRecord) -> Steps[RecordAnswer]:
        """Answers `ReadRecord`. What is held is given by anyone who holds it.

        To an asker that it believes dead the keeper vouches for nothing: it was cut off itself.
        """
        task_id = TaskId(message.task_id)
        keepers = self._core.keepers(task_id)
        if message.reconcile and self._core.me in keepers:
            yield from self._exchange.reconcile(task_id)
        standing = self._core.standing(task_id)
        if self._core.me not in keepers:
            return self._naming(keepers, RecordAnswer(state="not_keeper"))
        moment = yield from clock()
        answer = self._known(asker, task_id, standing, moment.now)
        if message.epoch in (b"", self._core.ring.epoch):
            return answer
        return self._naming(keepers, answer)

    def _known(
        self, asker: NodeId, task_id: TaskId, standing: Standing | None, now: float
    ) -> RecordAnswer:
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

    def write(self, message: WriteRecord) -> Steps[RecordWritten]:
        """Answers `WriteRecord`."""
        candidate = self._opener.open(message.entry)
        keepers = self._core.keepers(candidate.task_id)
        if self._core.me not in keepers:
            return RecordWritten(
                outcome="not_keeper",
                keepers=keepers,
                introductions=self._around.introduce(keepers),
            )
        yield from self._exchange.reach_charters([candidate])
        return (yield from self._coordinator.write(candidate, restore=message.restore))

    def hear_of_graves(self, peer: Peer, _message: GravesHere) -> Steps[None]:
        """Takes `GravesHere`."""
        yield from self.recall.try_ask(peer.node_id)

    # What other keepers ask

    def prepare(self, peer: Peer, message: PrepareRecord) -> Steps[RecordPrepared]:
        """Answers `PrepareRecord`."""
        _check_scheduler(peer)
        candidate = self._opener.open(message.entry)
        yield from self._exchange.reach_charters([candidate])
        moment = yield from clock()
        verdict = self._core.prepare(
            candidate,
            peer.node_id,
            restore=message.restore,
            now=moment.now,
            wall_s=moment.wall_s,
        )
        if isinstance(verdict, NotYet):
            return RecordPrepared(verdict="not_ready")
        if isinstance(verdict, Ready):
            yield from persist(verdict.changes)
            return RecordPrepared(verdict="ready")
        return RecordPrepared(verdict="refused")

    def commit(self, peer: Peer, message: CommitRecord) -> Steps[RecordsTaken]:
        """Answers `CommitRecord`; one that was not prepared here, or has expired, is a push."""
        _check_scheduler(peer)
        changes = self._core.commit(self._opener.open(message.entry), peer.node_id)
        if changes is None:
            return RecordsTaken(
                count=(yield from self._exchange.take(peer.node_id, (message.entry,)))
            )
        yield from persist(changes)
        return RecordsTaken(count=1)

    def prepare_many(self, peer: Peer, message: PrepareRecords) -> Steps[RecordsJudged]:
        """Answers `PrepareRecords`."""
        _check_scheduler(peer)
        return (yield from self._batches.prepare(peer.node_id, message.entries))

    def commit_many(self, peer: Peer, message: CommitRecords) -> Steps[RecordsJudged]:
        """Answers `CommitRecords`."""
        _check_scheduler(peer)
        return (yield from self._batches.commit(peer.node_id, message.rows))

    def withdraw(self, peer: Peer, message: WithdrawRecord) -> Steps[None]:
        """Takes `WithdrawRecord`."""
        yield from persist(
            self._core.withdraw(TaskId(message.task_id), message.version, peer.node_id)
        )

    def push(self, peer: Peer, message: PushRecords) -> Steps[RecordsTaken]:
        """Answers `PushRecords`."""
        _check_scheduler(peer)
        return RecordsTaken(count=(yield from self._exchange.take(peer.node_id, message.entries)))

    def compare(self, peer: Peer, message: CompareShared) -> Steps[SharedCompared]:
        """Answers `CompareShared`."""
        _check_scheduler(peer)
        return (yield from self._exchange.compare(peer.node_id, message))

    def compare_buckets(self, peer: Peer, message: CompareBuckets) -> Steps[BucketsDiffer]:
        """Answers `CompareBuckets`."""
        _check_scheduler(peer)
        return (yield from self._exchange.compare_buckets(peer.node_id, message))

    def list_bucket(self, peer: Peer, message: ListBucket) -> Steps[BucketPage]:
        """Answers `ListBucket`."""
        _check_scheduler(peer)
        return (yield from self._exchange.list_bucket(peer.node_id, message))

    def fetch(self, peer: Peer, message: FetchRecords) -> Steps[RecordPage]:
        """Answers `FetchRecords`."""
        _check_scheduler(peer)
        yield Breathe()
        return self._exchange.fetch(message)


def _check_scheduler(peer: Peer) -> None:
    if "scheduler" not in peer.roles:
        raise NotPermitted("only schedulers keep records")


ANSWERS: dict[type[Message], Callable[[Keeper, Peer, Any], Steps[Message | None]]] = {
    PrepareRecord: Keeper.prepare,
    CommitRecord: Keeper.commit,
    WithdrawRecord: Keeper.withdraw,
    PushRecords: Keeper.push,
    CompareShared: Keeper.compare,
    CompareBuckets: Keeper.compare_buckets,
    ListBucket: Keeper.list_bucket,
    FetchRecords: Keeper.fetch,
    GravesHere: Keeper.hear_of_graves,
    PrepareRecords: Keeper.prepare_many,
    CommitRecords: Keeper.commit_many,
}
"""How a keeper answers other nodes; and, with what anyone may ask it for, `Keeper.answer`."""
