"""How two keepers make their entries equal.

The *exchange*: one digest, by datagrams if they arrive, and if it differs, digests by bucket, then
the rows of the buckets that differ, then only the entries that differ, in both directions. It
serves a joining keeper, a ring change and the periodic anti-entropy alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import reduce
from typing import TypeVar

from gossipcache.dht.records.antientropy import SharedView, differing
from gossipcache.dht.records.graves import Graves
from gossipcache.dht.records.paging import PAGE_BYTES, batches, entry_bytes
from gossipcache.dht.records.recall import Recall
from gossipcache.dht.records.replication import ReplicationCore
from gossipcache.dht.records.standing import Standing, merge
from gossipcache.dht.records.steps import (
    Breathe,
    Look,
    ReachCharter,
    Steps,
    Turn,
    ask,
    clock,
    persist,
    together,
    work,
)
from gossipcache.dht.records.surroundings import Means, Surroundings
from gossipcache.dht.records.verdicts import Absorbed, Contested, Full
from gossipcache.dht.ring import Ring
from gossipcache.errors import GossipcacheError
from gossipcache.ids import NodeId, TaskId
from gossipcache.journal import Change
from gossipcache.messages.records import (
    MAX_ENTRIES,
    MAX_ROWS,
    BucketPage,
    BucketRow,
    BucketsDiffer,
    CompareBuckets,
    CompareShared,
    FetchRecords,
    ListBucket,
    PushRecords,
    ReadRecord,
    RecordAnswer,
    RecordEntry,
    RecordPage,
    RecordsTaken,
    SharedCompared,
)
from gossipcache.wire import Message

Reply = TypeVar("Reply", bound=Message)

_MAX_PAGES = 64
_MAX_RECONCILED = 8
"""Contested entries of one message that are looked into at once; exchanges bring the rest."""


class Exchange:
    """Both sides of the exchange at one keeper."""

    def __init__(
        self,
        means: Means,
        around: Surroundings,
        core: ReplicationCore,
        graves: Graves,
        recall: Recall,
    ) -> None:
        self._config = means.config
        self._metrics = means.metrics
        self._opener = means.opener
        self._around = around
        self._core = core
        self._graves = graves
        self._recall = recall
        self._filling = Turn()

    def exchange(self, node: NodeId) -> Steps[bool | None]:
        """Makes both have the same of what they share. True if they had, None if it failed, or is
        to be tried again."""
        try:
            had_same = yield from self._glance(node)
            if had_same is None:
                return None
            if had_same:
                yield from self._agree(node, (yield from self.view(self._core.ring)))
            if not had_same:
                compared = yield from self._compare(node)
                had_same = compared.equal
            if not had_same:
                yield from self._exchange_buckets(node)
                # Once more, so that the other learns that both have the same now. Where they do
                # not, some entry is contested; this side has still seen all that the other has,
                # if the other had the same ring all the time.
                yield from self._compare(node, seen_on=compared.epoch)
        except GossipcacheError:
            self._metrics.count("record_exchanges_failed")
            return None
        self._metrics.count("record_exchanges")
        return had_same

    def _glance(self, node: NodeId) -> Steps[bool | None]:
        yield from self.view(self._core.ring)
        has_same: bool | None = yield Look(node)
        return has_same

    def _compare(self, node: NodeId, *, seen_on: bytes | None = None) -> Steps[SharedCompared]:
        """`seen_on`: the ring by which `node` has just shown all that this keeper shares."""
        view = yield from self.view(self._core.ring)
        opening = CompareShared(
            epoch=view.ring.epoch, digest=view.digest(node), graves=self._graves.sum
        )
        compared = yield from self._request(node, opening, SharedCompared)
        moment = yield from clock()
        self._core.settling.inherit(moment.now + compared.recovering_ms / 1000)
        yield from self._recall.ask_once(node, compared.graves)
        if compared.equal:
            yield from self._agree(node, view)
        if compared.equal or compared.epoch == seen_on:
            moment = yield from clock()
            self._core.settling.compared(node, compared.epoch, moment.now)
        return compared

    def _agree(self, node: NodeId, view: SharedView) -> Steps[None]:
        """What one keeper alone had told of, `node` may confirm."""
        for changes in self._core.agreed(node, view):
            yield from persist(changes)
            yield Breathe()

    def _exchange_buckets(self, node: NodeId) -> Steps[None]:
        view = yield from self.view(self._core.ring)
        digests = CompareBuckets(digests=view.digests(node))
        answer = yield from self._request(node, digests, BucketsDiffer)
        for bucket in answer.buckets:
            yield from self._exchange_bucket(node, view, bucket)

    def _exchange_bucket(self, node: NodeId, view: SharedView, bucket: int) -> Steps[None]:
        theirs = yield from self._listed(node, bucket)
        mine = view.rows(node, bucket)
        different = [key for key in theirs if mine.get(key) != theirs[key]]
        lacking = {key for key in mine if mine[key] != theirs.get(key)}
        yield from self._fetch(node, different)
        # What was fetched may have changed; what is newer here goes back.
        back = [
            standing
            for standing in self.entries(sorted(lacking))
            if standing.version != theirs.get(standing.task_id)
        ]
        for batch in batches(back):
            yield from self.push(node, batch)

    def _listed(self, node: NodeId, bucket: int) -> Steps[dict[TaskId, bytes]]:
        rows: dict[TaskId, bytes] = {}
        after = b""
        for _ in range(_MAX_PAGES):
            page = yield from self._request(
                node, ListBucket(bucket=bucket, after=after), BucketPage
            )
            rows.update((TaskId(row.task_id), row.version) for row in page.rows)
            if not page.more or not page.rows or page.rows[-1].task_id <= after:
                break
            after = page.rows[-1].task_id
        return rows

    def _fetch(self, node: NodeId, task_ids: list[TaskId]) -> Steps[None]:
        start = 0
        while start < len(task_ids):
            wanted = tuple(task_ids[start : start + MAX_ROWS])
            page = yield from self._request(node, FetchRecords(task_ids=wanted), RecordPage)
            yield from self.take(node, page.entries)
            if page.done == 0:
                return
            start += page.done

    # Single tasks

    def reconcile(self, task_id: TaskId) -> Steps[None]:
        """Compares one task with its other keepers and brings those who are behind up to date."""
        answers = yield from self._catch_up(task_id)
        own = self._core.standing(task_id)
        for node, held in answers.items():
            if own is not None and (held is None or held.version != own.version):
                yield from self.push(node, [own])

    def _catch_up(self, task_id: TaskId) -> Steps[dict[NodeId, Standing | None]]:
        """Takes over what the task's other keepers hold; returns their answers.

        What would replace something that lives here counts if two others hold it, or if there is
        but one other on the ring. A rival of the same generation replaces nothing: it
        makes a fork, at which readers stop.
        """
        others = [node for node in self._core.keepers(task_id) if node != self._core.me]
        answers: dict[NodeId, Standing | None] = {}
        witnesses: set[NodeId] = set()

        def ask_one(node: NodeId) -> Steps[None]:
            try:
                answer = yield from self._request(node, ReadRecord(task_id=task_id), RecordAnswer)
                if answer.entry is not None:
                    answers[node] = self._opener.open(answer.entry, task_id)
                    if not answer.hearsay:
                        witnesses.add(node)
                elif answer.state == "absent":
                    answers[node] = None
            except GossipcacheError:
                return

        yield from together([ask_one(node) for node in others])
        yield from self._adopt(task_id, answers, witnesses)
        return answers

    def _adopt(
        self,
        task_id: TaskId,
        answers: dict[NodeId, Standing | None],
        witnesses: set[NodeId],
    ) -> Steps[None]:
        """Of the `answers` only those of `witnesses` vouch: the others have theirs by hearsay."""
        held = {node: standing for node, standing in answers.items() if standing is not None}
        if not held:
            return
        yield from self.reach_charters(held.values())
        for node, standing in held.items():
            if node in witnesses:
                yield from persist(self._core.heard(node, standing))
        newest = reduce(merge, held.values())
        is_new = self._core.standing(task_id) is None
        tellers = [node for node, one in held.items() if one.version == newest.version]
        supporters = [node for node in tellers if node in witnesses]
        others = len(self._core.keepers(task_id)) - 1
        alone = len(supporters) == others and not self._core.is_hearsay(task_id)
        vouched = len(supporters) >= 2 or alone
        moment = yield from clock()
        absorbed = self._core.absorb(
            newest,
            moment.wall_s,
            vouched=vouched or _are_rivals(newest, self._core.standing(task_id)),
            teller=tellers[0] if is_new and len(tellers) == 1 else None,
        )
        if isinstance(absorbed, Contested):
            self._metrics.count("records_contested")
        if not isinstance(absorbed, Full):
            yield from persist(absorbed.changes)

    def reach_charters(self, candidates: Iterable[Standing]) -> Steps[None]:
        """Before deletions are judged: looks for the charters that they name. One that nobody
        has leaves its deletion without effect."""
        lacking = [one.tombstone for one in candidates if self._core.rights.lacks_charter(one)]
        numbers = [one.tombstone.policy_number for one in lacking if one is not None]
        if numbers:
            with suppress(GossipcacheError):
                yield ReachCharter(max(numbers))

    # What others ask

    def take(self, node: NodeId, entries: tuple[RecordEntry, ...]) -> Steps[int]:
        """Absorbs entries of the keeper `node`; how many of them now stand or are outdone."""
        opened = yield from work(lambda: self._opener.open_all(entries))
        self._metrics.count("record_entries_invalid", len(entries) - len(opened))
        if len(opened) < len(entries):
            self._around.on_void(node, len(entries) - len(opened))
        yield from self.reach_charters(opened)
        moment = yield from clock()
        changes: list[Change] = []
        contested: list[Standing] = []
        taken = 0
        for standing in opened:
            match self._core.absorb(standing, moment.wall_s, teller=node):
                case Absorbed(found):
                    changes += found
                    taken += 1
                case Contested(found):
                    changes += found
                    contested.append(standing)
                case Full():
                    self._metrics.count("record_entries_without_room")
        yield from persist(changes)
        for standing in contested[:_MAX_RECONCILED]:
            # Without pushing back, so that two keepers cannot contest in circles.
            yield from self._catch_up(standing.task_id)
            absorbed = self._core.absorb(standing, moment.wall_s)
            taken += absorbed == Absorbed()
        return taken

    def compare(self, peer: NodeId, message: CompareShared) -> Steps[SharedCompared]:
        """Answers `CompareShared`."""
        view = yield from self.view(self._core.ring_with(peer))
        equal = message.digest == view.digest(peer)
        moment = yield from clock()
        now = moment.now
        # What the peer remembers of deletions this side has to ask for itself.
        if equal:
            yield from self._agree(peer, view)
        if equal and self._recall.has_asked(peer, message.graves):
            self._core.settling.compared(peer, message.epoch, now)
        return SharedCompared(
            epoch=view.ring.epoch,
            equal=equal,
            graves=self._graves.sum,
            recovering_ms=max(0, int(1000 * (self._core.settling.recovering_until() - now))),
        )

    def compare_buckets(self, peer: NodeId, message: CompareBuckets) -> Steps[BucketsDiffer]:
        """Answers `CompareBuckets`."""
        view = yield from self.view(self._core.ring_with(peer))
        return BucketsDiffer(buckets=differing(message.digests, view.digests(peer)))

    def list_bucket(self, peer: NodeId, message: ListBucket) -> Steps[BucketPage]:
        """Answers `ListBucket`."""
        view = yield from self.view(self._core.ring_with(peer))
        rows = [
            BucketRow(task_id, version)
            for task_id, version in view.rows(peer, message.bucket).items()
            if task_id > message.after
        ]
        return BucketPage(rows=tuple(rows[:MAX_ROWS]), more=len(rows) > MAX_ROWS)

    def fetch(self, message: FetchRecords) -> RecordPage:
        """Answers `FetchRecords`."""
        entries: list[RecordEntry] = []
        size = done = 0
        for task_id in message.task_ids:
            standing = self._core.standing(TaskId(task_id))
            if standing is not None:
                size += entry_bytes(standing.entry)
                if entries and (size > PAGE_BYTES or len(entries) == MAX_ENTRIES):
                    break
                entries.append(standing.entry)
            done += 1
        return RecordPage(entries=tuple(entries), done=done)

    def view(self, ring: Ring) -> Steps[SharedView]:
        """The view on `ring`, with all entries in it."""
        view = self._core.views.on(ring)
        if not view.filled:
            yield from self._filling.take(self._fill(view))
        return view

    def _fill(self, view: SharedView) -> Steps[None]:
        if not view.filled:
            for _ in self._core.views.fill(view):
                yield Breathe()

    def count_shared(self, node: NodeId) -> Steps[None]:
        """Readies what a member that is alive shares, on the ring that it sees."""
        if self._around.is_alive(node):
            yield from self.view(self._core.ring_with(node))

    # Sending

    def entries(self, task_ids: Iterable[TaskId]) -> list[Standing]:
        """What is held of these tasks."""
        found = (self._core.standing(task_id) for task_id in task_ids)
        return [standing for standing in found if standing is not None]

    def push(self, node: NodeId, batch: list[Standing]) -> Steps[bool]:
        """Whether `node` took the whole batch."""
        entries = tuple(standing.entry for standing in batch)
        try:
            answer = yield from self._request(node, PushRecords(entries=entries), RecordsTaken)
        except GossipcacheError:
            return False
        return answer.count == len(entries)

    def _request(self, node: NodeId, message: Message, reply: type[Reply]) -> Steps[Reply]:
        return ask(node, message, reply, self._config.request_timeout_s)


def _are_rivals(one: Standing, other: Standing | None) -> bool:
    """Whether both may have been committed, on the two sides of a partition."""
    return (
        other is not None
        and one.generation == other.generation
        and one.version != other.version
        and bool(one.manifests and other.manifests)
    )
