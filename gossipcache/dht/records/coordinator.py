"""Writing a record: one keeper takes the writers of a task in turn and gathers the quorum."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar
from weakref import WeakValueDictionary

from gossipcache.dht.records.quorum import gather
from gossipcache.dht.records.replication import ReplicationCore
from gossipcache.dht.records.standing import Standing
from gossipcache.dht.records.steps import (
    Moment,
    Notify,
    Steps,
    Turn,
    ask,
    clock,
    persist,
    within,
)
from gossipcache.dht.records.surroundings import Means
from gossipcache.dht.records.verdicts import NotYet, Ready, Refused
from gossipcache.errors import Conflict, NotReady
from gossipcache.ids import NodeId, TaskId
from gossipcache.messages.records import (
    CommitRecord,
    PrepareRecord,
    PushRecords,
    RecordPrepared,
    RecordsTaken,
    RecordWritten,
    WithdrawRecord,
)
from gossipcache.wire import Message

Reply = TypeVar("Reply", bound=Message)


class Coordinator:
    """The writing side of one keeper."""

    def __init__(
        self,
        means: Means,
        core: ReplicationCore,
        *,
        hint: Callable[[NodeId, TaskId], None],
        reconcile: Callable[[TaskId], Steps[None]],
    ) -> None:
        """`hint(node, task)` remembers a copy that is missing; `reconcile` compares the keepers."""
        self._config = means.config
        self._core = core
        self._hint = hint
        self._reconcile = reconcile
        self._turns: WeakValueDictionary[TaskId, Turn] = WeakValueDictionary()

    def write(self, candidate: Standing, *, restore: bool) -> Steps[RecordWritten]:
        """Publishes, buries or restores.

        Raises `Conflict`, `NotPermitted`, `UsageError`, `Busy`, `NoSpace`, and `NotReady` if too
        few keepers took part (the write is then withdrawn, and the same may be tried again).
        """
        turn = self._turns.setdefault(candidate.task_id, Turn())
        return (yield from turn.take(self._write(candidate, restore)))

    def free_turns(self, task_ids: Iterable[TaskId]) -> dict[TaskId, Turn]:
        """The turns of those tasks that nobody writes now, taken; to be given back."""
        turns = {task_id: self._turns.setdefault(task_id, Turn()) for task_id in task_ids}
        return {task_id: turn for task_id, turn in turns.items() if turn.try_take()}

    def _write(self, candidate: Standing, restore: bool) -> Steps[RecordWritten]:
        verdict = yield from self._judged(candidate, restore)
        if isinstance(verdict, Refused):
            return (yield from self._refusal(candidate, verdict.standing))
        return (yield from self._replicate(candidate, verdict, restore))

    def _judged(self, candidate: Standing, restore: bool) -> Steps[Ready | Refused]:
        moment = yield from clock()
        if not self._core.knows_absence(candidate.task_id, moment.now):
            yield from self._reconcile(candidate.task_id)
            moment = yield from clock()
        verdict = self._prepare(candidate, restore, moment)
        if isinstance(verdict, NotYet) and verdict.behind:
            yield from self._reconcile(candidate.task_id)
            verdict = self._prepare(candidate, restore, (yield from clock()))
        if isinstance(verdict, NotYet):
            raise NotReady(verdict.reason)
        return verdict

    def _prepare(
        self, candidate: Standing, restore: bool, moment: Moment
    ) -> Ready | Refused | NotYet:
        return self._core.prepare(
            candidate,
            self._core.me,
            restore=restore,
            now=moment.now,
            wall_s=moment.wall_s,
        )

    def _replicate(
        self, candidate: Standing, verdict: Ready, restore: bool
    ) -> Steps[RecordWritten]:
        task_id, me = candidate.task_id, self._core.me
        keepers = self._core.keepers(task_id)
        needed = min(self._config.write_quorum, len(keepers))
        refused: list[NodeId] = []

        def prepare(node: NodeId) -> Steps[bool]:
            if node == me:
                yield from persist(verdict.changes)
                return True
            answer = yield from self._request(
                node, PrepareRecord(entry=candidate.entry, restore=restore), RecordPrepared
            )
            if answer.verdict == "refused":
                refused.append(node)
            return answer.verdict == "ready"

        prepared = yield from self._gather((me, *_others(keepers, me)), prepare, needed)
        if len(prepared) < needed or me not in prepared:
            yield from self.withdraw(candidate, keepers)
            return (yield from self._missed(candidate, len(prepared), needed, bool(refused)))
        committed = yield from self._commit(candidate, prepared, needed)
        return (yield from self._counted(candidate, keepers, committed, needed))

    def _commit(
        self, candidate: Standing, prepared: tuple[NodeId, ...], needed: int
    ) -> Steps[tuple[NodeId, ...]]:
        me = self._core.me
        changes = self._core.commit(candidate, me)
        if changes is None:
            own = self._core.standing(candidate.task_id)
            if own is None or own.version != candidate.version:
                raise NotReady("the write took too long")
            changes = ()  # Another coordinator of the same candidate was faster.

        def commit(node: NodeId) -> Steps[bool]:
            if node == me:
                yield from persist(changes)
                return True
            answer = yield from self._request(
                node, CommitRecord(entry=candidate.entry), RecordsTaken
            )
            return answer.count == 1

        return (yield from self._gather(prepared, commit, needed))

    def withdraw(self, candidate: Standing, keepers: tuple[NodeId, ...]) -> Steps[None]:
        """Has all forget a prepared candidate, also those who were not waited for: their answer
        may still be on its way."""
        me, version = self._core.me, candidate.version
        yield from persist(self._core.withdraw(candidate.task_id, version, me))

        def withdraw(node: NodeId) -> Steps[bool]:
            # One that is not reached forgets by itself when its provisional entry expires.
            moment = yield from clock()
            until = moment.now + self._config.request_timeout_s
            yield from within(self._tell_withdrawn(node, candidate.task_id, version), until)
            return True

        others = _others(keepers, me)
        yield from self._gather(others, withdraw, len(others))

    def _tell_withdrawn(self, node: NodeId, task_id: TaskId, version: bytes) -> Steps[None]:
        yield Notify(node, WithdrawRecord(task_id=task_id, version=version))

    def _missed(
        self, candidate: Standing, copies: int, needed: int, refused: bool
    ) -> Steps[RecordWritten]:
        if refused:
            # Somebody knows more than this keeper did.
            yield from self._reconcile(candidate.task_id)
            own = self._core.standing(candidate.task_id)
            moment = yield from clock()
            if own is not None and (
                own.is_live(moment.wall_s) or own.generation >= candidate.generation
            ):
                return (yield from self._refusal(candidate, own))
        raise NotReady(f"{copies} of {needed} record keepers took the write")

    def _refusal(self, candidate: Standing, own: Standing | None) -> Steps[RecordWritten]:
        """What a writer is told whose candidate something stands against."""
        if own is None:
            return RecordWritten(outcome="generation", generation=1)
        if candidate.tombstone is not None:
            if own.tombstone is None or own.generation > candidate.generation:
                raise Conflict("the task was imported anew after the deleted generation")
            return (yield from self._confirm(own))
        moment = yield from clock()
        if not own.is_live(moment.wall_s):
            if candidate.generation == own.generation + 1:
                raise NotReady("the keepers of the record do not agree yet")
            return RecordWritten(
                outcome="generation", generation=own.generation + 1, entry=own.entry
            )
        digest = candidate.manifests[0].manifest.digest
        if any(one.manifest.digest == digest for one in own.manifests):
            return (yield from self._confirm(own))
        publishers = ", ".join(one.publisher.hex() for one in own.manifests)
        raise Conflict(f"other content stands under this cid and tag, published by {publishers}")

    def _confirm(self, own: Standing) -> Steps[RecordWritten]:
        """What stands already is made as durable as if it had just been written."""
        keepers = self._core.keepers(own.task_id)
        needed = min(self._config.write_quorum, len(keepers))
        me = self._core.me

        def push(node: NodeId) -> Steps[bool]:
            if node == me:
                return True
            answer = yield from self._request(node, PushRecords(entries=(own.entry,)), RecordsTaken)
            return answer.count == 1

        agreed = yield from self._gather((me, *_others(keepers, me)), push, needed)
        written = yield from self._counted(own, keepers, agreed, needed)
        return RecordWritten(outcome="stands", copies=written.copies, entry=own.entry)

    def _counted(
        self,
        standing: Standing,
        keepers: tuple[NodeId, ...],
        agreed: tuple[NodeId, ...],
        needed: int,
    ) -> Steps[RecordWritten]:
        for node in _others(keepers, self._core.me):
            if node not in agreed:
                self._hint(node, standing.task_id)
        moment = yield from clock()
        for node in self._core.joining_keepers(standing.task_id, moment.now):
            self._hint(node, standing.task_id)
        if len(agreed) < needed:
            raise NotReady(f"{len(agreed)} of {needed} record keepers confirmed the write")
        return RecordWritten(outcome="written", copies=len(agreed), generation=standing.generation)

    def _gather(
        self, nodes: tuple[NodeId, ...], asked: Callable[[NodeId], Steps[bool]], needed: int
    ) -> Steps[tuple[NodeId, ...]]:
        return gather(nodes, asked, needed=needed, straggler_wait_s=self._config.straggler_wait_s)

    def _request(self, node: NodeId, message: Message, reply: type[Reply]) -> Steps[Reply]:
        return ask(node, message, reply, self._config.request_timeout_s)


def _others(keepers: tuple[NodeId, ...], me: NodeId) -> tuple[NodeId, ...]:
    return tuple(node for node in keepers if node != me)
