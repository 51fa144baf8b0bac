"""Writing a record: one keeper takes the writers of a task in turn and gathers the quorum."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar
from weakref import WeakValueDictionary

import trio

from gossipcache.dht.records.log import RecordLog
from gossipcache.dht.records.quorum import gather
from gossipcache.dht.records.replication import ReplicationCore
from gossipcache.dht.records.standing import Standing
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
        log: RecordLog,
        *,
        hint: Callable[[NodeId, TaskId], None],
        reconcile: Callable[[TaskId], Awaitable[None]],
    ) -> None:
        """`hint(node, task)` remembers a copy that is missing; `reconcile` compares the keepers."""
        self._config = means.config
        self._links = means.links
        self._wall_time = means.env.wall_time
        self._core = core
        self._log = log
        self._hint = hint
        self._reconcile = reconcile
        self._locks: WeakValueDictionary[TaskId, trio.Lock] = WeakValueDictionary()

    async def write(self, candidate: Standing, *, restore: bool) -> RecordWritten:
        """Publishes, buries or restores.

        Raises `Conflict`, `NotPermitted`, `UsageError`, `Busy`, `NoSpace`, and `NotReady` if too
        few keepers took part (the write is then withdrawn, and the same may be tried again).
        """
        lock = self._locks.setdefault(candidate.task_id, trio.Lock())
        async with lock:
            verdict = await self._judged(candidate, restore)
            if isinstance(verdict, Refused):
                return await self._refusal(candidate, verdict.standing)
            return await self._replicate(candidate, verdict, restore)

    async def _judged(self, candidate: Standing, restore: bool) -> Ready | Refused:
        if not self._core.knows_absence(candidate.task_id, trio.current_time()):
            await self._reconcile(candidate.task_id)
        verdict = self._prepare(candidate, restore)
        if isinstance(verdict, NotYet) and verdict.behind:
            await self._reconcile(candidate.task_id)
            verdict = self._prepare(candidate, restore)
        if isinstance(verdict, NotYet):
            raise NotReady(verdict.reason)
        return verdict

    def _prepare(self, candidate: Standing, restore: bool) -> Ready | Refused | NotYet:
        return self._core.prepare(
            candidate,
            self._core.me,
            restore=restore,
            now=trio.current_time(),
            wall_s=self._wall_time(),
        )

    async def _replicate(self, candidate: Standing, verdict: Ready, restore: bool) -> RecordWritten:
        task_id, me = candidate.task_id, self._core.me
        keepers = self._core.keepers(task_id)
        needed = min(self._config.write_quorum, len(keepers))
        refused: list[NodeId] = []

        async def prepare(node: NodeId) -> bool:
            if node == me:
                await self._log.write(verdict.changes)
                return True
            answer = await self._request(
                node, PrepareRecord(entry=candidate.entry, restore=restore), RecordPrepared
            )
            if answer.verdict == "refused":
                refused.append(node)
            return answer.verdict == "ready"

        prepared = await self._gather((me, *_others(keepers, me)), prepare, needed)
        if len(prepared) < needed or me not in prepared:
            await self._withdraw(candidate, keepers)
            return await self._missed(candidate, len(prepared), needed, bool(refused))
        committed = await self._commit(candidate, prepared, needed)
        return self._counted(candidate, keepers, committed, needed)

    async def _commit(
        self, candidate: Standing, prepared: tuple[NodeId, ...], needed: int
    ) -> tuple[NodeId, ...]:
        me = self._core.me
        changes = self._core.commit(candidate, me)
        if changes is None:
            own = self._core.standing(candidate.task_id)
            if own is None or own.version != candidate.version:
                raise NotReady("the write took too long")
            changes = ()  # Another coordinator of the same candidate was faster.

        async def commit(node: NodeId) -> bool:
            if node == me:
                await self._log.write(changes)
                return True
            answer = await self._request(node, CommitRecord(entry=candidate.entry), RecordsTaken)
            return answer.count == 1

        return await self._gather(prepared, commit, needed)

    async def _withdraw(self, candidate: Standing, keepers: tuple[NodeId, ...]) -> None:
        """Also from those who were not waited for: their answer may still be on its way."""
        me, version = self._core.me, candidate.version
        await self._log.write(self._core.withdraw(candidate.task_id, version, me))

        async def withdraw(node: NodeId) -> bool:
            # One that is not reached forgets by itself when its provisional entry expires.
            with trio.move_on_after(self._config.request_timeout_s):
                await self._links.notify(
                    node, WithdrawRecord(task_id=candidate.task_id, version=version)
                )
            return True

        others = _others(keepers, me)
        await self._gather(others, withdraw, len(others))

    async def _missed(
        self, candidate: Standing, copies: int, needed: int, refused: bool
    ) -> RecordWritten:
        if refused:
            # Somebody knows more than this keeper did.
            await self._reconcile(candidate.task_id)
            own = self._core.standing(candidate.task_id)
            if own is not None and (
                own.is_live(self._wall_time()) or own.generation >= candidate.generation
            ):
                return await self._refusal(candidate, own)
        raise NotReady(f"{copies} of {needed} record keepers took the write")

    async def _refusal(self, candidate: Standing, own: Standing | None) -> RecordWritten:
        """What a writer is told whose candidate something stands against."""
        if own is None:
            return RecordWritten(outcome="generation", generation=1)
        if candidate.tombstone is not None:
            if own.tombstone is None or own.generation > candidate.generation:
                raise Conflict("the task was imported anew after the deleted generation")
            return await self._confirm(own)
        if not own.is_live(self._wall_time()):
            if candidate.generation == own.generation + 1:
                raise NotReady("the keepers of the record do not agree yet")
            return RecordWritten(
                outcome="generation", generation=own.generation + 1, entry=own.entry
            )
        digest = candidate.manifests[0].manifest.digest
        if any(one.manifest.digest == digest for one in own.manifests):
            return await self._confirm(own)
        publishers = ", ".join(one.publisher.hex() for one in own.manifests)
        raise Conflict(f"other content stands under this cid and tag, published by {publishers}")

    async def _confirm(self, own: Standing) -> RecordWritten:
        """What stands already is made as durable as if it had just been written."""
        keepers = self._core.keepers(own.task_id)
        needed = min(self._config.write_quorum, len(keepers))
        me = self._core.me

        async def push(node: NodeId) -> bool:
            if node == me:
                return True
            answer = await self._request(node, PushRecords(entries=(own.entry,)), RecordsTaken)
            return answer.count == 1

        agreed = await self._gather((me, *_others(keepers, me)), push, needed)
        written = self._counted(own, keepers, agreed, needed)
        return RecordWritten(outcome="stands", copies=written.copies, entry=own.entry)

    def _counted(
        self,
        standing: Standing,
        keepers: tuple[NodeId, ...],
        agreed: tuple[NodeId, ...],
        needed: int,
    ) -> RecordWritten:
        for node in _others(keepers, self._core.me):
            if node not in agreed:
                self._hint(node, standing.task_id)
        for node in self._core.joining_keepers(standing.task_id, trio.current_time()):
            self._hint(node, standing.task_id)
        if len(agreed) < needed:
            raise NotReady(f"{len(agreed)} of {needed} record keepers confirmed the write")
        return RecordWritten(outcome="written", copies=len(agreed), generation=standing.generation)

    async def _gather(
        self,
        nodes: tuple[NodeId, ...],
        ask: Callable[[NodeId], Awaitable[bool]],
        needed: int,
    ) -> tuple[NodeId, ...]:
        return await gather(
            nodes, ask, needed=needed, straggler_wait_s=self._config.straggler_wait_s
        )

    async def _request(self, node: NodeId, message: Message, reply: type[Reply]) -> Reply:
        return await self._links.request(node, message, reply, self._config.request_timeout_s)


def _others(keepers: tuple[NodeId, ...], me: NodeId) -> tuple[NodeId, ...]:
    return tuple(node for node in keepers if node != me)
