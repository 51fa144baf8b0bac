"""Many records at once: the plain ones by a few messages and syncs for all of them.

A batch only does what each of its entries allows by itself: every entry is judged alone, takes
its own turn at the coordinator and its own quorum. An entry that is not plain (something stands
against it, somebody else is writing it, too few keepers took it) is left out, and its writer goes
on with it alone, by `Coordinator`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from gossipcache.dht.records.coordinator import Coordinator
from gossipcache.dht.records.paging import batches
from gossipcache.dht.records.quorum import gather_until
from gossipcache.dht.records.replication import ReplicationCore
from gossipcache.dht.records.standing import Opener, Standing
from gossipcache.dht.records.steps import Moment, Steps, ask, clock, persist, work
from gossipcache.dht.records.surroundings import Means, Surroundings
from gossipcache.dht.records.verdicts import Ready
from gossipcache.errors import GossipcacheError, IntegrityError, ProtocolError
from gossipcache.ids import NodeId, TaskId
from gossipcache.journal import Change
from gossipcache.messages.batches import CommitRecords, PrepareRecords, RecordsJudged
from gossipcache.messages.records import BucketRow, RecordEntry

Agreed = dict[TaskId, list[NodeId]]


class Batches:
    """A keeper's side of the batches, as one that coordinates and as one that is asked to."""

    def __init__(
        self,
        means: Means,
        around: Surroundings,
        core: ReplicationCore,
        coordinator: Coordinator,
        *,
        hint: Callable[[NodeId, TaskId], None],
    ) -> None:
        self._config = means.config
        self._metrics = means.metrics
        self._opener = means.opener
        self._around = around
        self._core = core
        self._coordinator = coordinator
        self._hint = hint

    # As coordinator

    def write(self, asker: NodeId, entries: Sequence[RecordEntry]) -> Steps[tuple[int, ...]]:
        """Publishes; on how many keepers each entry is committed, 0 for those that are left out."""
        opened = yield from self._opened(asker, entries)
        candidates = {
            one.task_id: one
            for one in opened
            if one is not None and self._core.me in self._core.keepers(one.task_id)
        }
        turns = self._coordinator.free_turns(candidates)
        try:
            ready, changes = yield from self._judged([candidates[task_id] for task_id in turns])
            copies = yield from self._replicate(ready, changes)
        finally:
            for turn in turns.values():
                turn.give_back()
        self._metrics.count("record_batches")
        return tuple(
            copies.get(one.task_id, 0) if one and candidates.get(one.task_id) is one else 0
            for one in opened
        )

    def _judged(self, candidates: Iterable[Standing]) -> Steps[tuple[list[Standing], list[Change]]]:
        """Those that may be written, provisional here once the changes are durable."""
        moment = yield from clock()
        ready: list[Standing] = []
        changes: list[Change] = []
        for candidate in candidates:
            if self._core.knows_absence(candidate.task_id, moment.now):
                found = self._prepared(candidate, self._core.me, moment)
                if found is not None:
                    ready.append(candidate)
                    changes += found
        return ready, changes

    def _replicate(
        self, candidates: list[Standing], changes: list[Change]
    ) -> Steps[dict[TaskId, int]]:
        keepers = {one.task_id: self._core.keepers(one.task_id) for one in candidates}
        quorum = self._config.write_quorum
        needed = {task_id: min(quorum, len(nodes)) for task_id, nodes in keepers.items()}
        if all(len(nodes) == 1 for nodes in keepers.values()):
            # Nobody else can commit them: there is no state between.
            prepared = {task_id: list(nodes) for task_id, nodes in keepers.items()}
        else:
            prepared = yield from self._gathered(candidates, keepers, needed, changes, self._ask)
        taken: list[Standing] = []
        committed: list[Change] = []
        for one in candidates:
            nodes = prepared[one.task_id]
            if len(nodes) < needed[one.task_id] or self._core.me not in nodes:
                yield from self._coordinator.withdraw(one, keepers[one.task_id])
            elif (found := self._core.commit(one, self._core.me)) is not None:
                taken.append(one)
                committed += found
        agreed = yield from self._gathered(taken, prepared, needed, committed, self._tell)
        return (yield from self._counted(taken, keepers, agreed, needed))

    def _gathered(
        self,
        candidates: list[Standing],
        nodes_of: dict[TaskId, tuple[NodeId, ...]] | Agreed,
        needed: dict[TaskId, int],
        changes: list[Change],
        ask_one: Callable[[NodeId, list[Standing]], Steps[tuple[bool, ...]]],
    ) -> Steps[Agreed]:
        """Who did its part for which candidate: each node for those that it keeps."""
        me = self._core.me
        agreed: Agreed = {one.task_id: [] for one in candidates}
        by_node: dict[NodeId, list[Standing]] = {me: []} if candidates else {}
        for one in candidates:
            for node in nodes_of[one.task_id]:
                by_node.setdefault(node, []).append(one)

        def do(node: NodeId) -> Steps[None]:
            if node == me:
                yield from persist(changes)
                for one in by_node[me]:
                    agreed[one.task_id].append(me)
                return
            for batch in batches(by_node[node]):
                done = yield from ask_one(node, batch)
                for one, is_done in zip(batch, done, strict=False):
                    if is_done:
                        agreed[one.task_id].append(node)

        def is_enough() -> bool:
            return all(len(agreed[task_id]) >= needed[task_id] for task_id in agreed)

        yield from gather_until(
            by_node, do, is_enough=is_enough, straggler_wait_s=self._config.straggler_wait_s
        )
        return agreed

    def _ask(self, node: NodeId, batch: list[Standing]) -> Steps[tuple[bool, ...]]:
        message = PrepareRecords(entries=tuple(one.entry for one in batch))
        answer = yield from ask(node, message, RecordsJudged, self._config.request_timeout_s)
        return answer.done

    def _tell(self, node: NodeId, batch: list[Standing]) -> Steps[tuple[bool, ...]]:
        message = CommitRecords(rows=tuple(BucketRow(one.task_id, one.version) for one in batch))
        answer = yield from ask(node, message, RecordsJudged, self._config.request_timeout_s)
        return answer.done

    def _counted(
        self,
        candidates: list[Standing],
        keepers: dict[TaskId, tuple[NodeId, ...]],
        agreed: Agreed,
        needed: dict[TaskId, int],
    ) -> Steps[dict[TaskId, int]]:
        moment = yield from clock()
        copies: dict[TaskId, int] = {}
        for one in candidates:
            task_id, nodes = one.task_id, agreed[one.task_id]
            joining = self._core.joining_keepers(task_id, moment.now)
            for node in (*keepers[task_id], *joining):
                if node not in nodes and node != self._core.me:
                    self._hint(node, task_id)
            if len(nodes) >= needed[task_id]:
                copies[task_id] = len(nodes)
        return copies

    # As keeper

    def prepare(self, coordinator: NodeId, entries: Sequence[RecordEntry]) -> Steps[RecordsJudged]:
        """Answers `PrepareRecords`."""
        opened = yield from self._opened(coordinator, entries)
        moment = yield from clock()
        done: list[bool] = []
        changes: list[Change] = []
        for one in opened:
            found = None if one is None else self._prepared(one, coordinator, moment)
            done.append(found is not None)
            changes += found or ()
        yield from persist(changes)
        return RecordsJudged(done=tuple(done))

    def _prepared(
        self, candidate: Standing, coordinator: NodeId, moment: Moment
    ) -> tuple[Change, ...] | None:
        try:
            verdict = self._core.prepare(
                candidate, coordinator, restore=False, now=moment.now, wall_s=moment.wall_s
            )
        except GossipcacheError:
            return None
        return verdict.changes if isinstance(verdict, Ready) else None

    def commit(self, coordinator: NodeId, rows: Iterable[BucketRow]) -> Steps[RecordsJudged]:
        """Answers `CommitRecords`."""
        done: list[bool] = []
        changes: list[Change] = []
        for row in rows:
            found = self._core.commit_version(TaskId(row.task_id), row.version, coordinator)
            done.append(found is not None)
            changes += found or ()
        yield from persist(changes)
        return RecordsJudged(done=tuple(done))

    # Both

    def _opened(
        self, sender: NodeId, entries: Sequence[RecordEntry]
    ) -> Steps[list[Standing | None]]:
        """The manifests in the entries, each checked; None for what is void, or no manifest."""
        unknown = self._opener.lacking(entries)
        if unknown:
            checked = yield from work(lambda: self._opener.check_all(unknown))
            for one in checked:
                self._opener.remember(one)
            if len(checked) < len(unknown):
                self._metrics.count("record_entries_invalid", len(unknown) - len(checked))
                self._around.on_void(sender, len(unknown) - len(checked))
        return [_plain(self._opener, entry) for entry in entries]


def _plain(opener: Opener, entry: RecordEntry) -> Standing | None:
    if entry.tombstone is not None or len(entry.manifests) != 1:
        return None
    try:
        return opener.open(entry)
    except (IntegrityError, ProtocolError):
        return None
