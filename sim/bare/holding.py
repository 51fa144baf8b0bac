"""Copies on bare nodes: imported, announced, given back to keepers that lost the record, dropped as
deletions are heard of.

`BareScheduling` drives the announcer; what a node does on its word (`node.deleting`,
`node.assembly`) is done here again, for a cluster in which anyone may delete.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gossipcache.dht.membership.member import Member
from gossipcache.dht.records.publishing import Published
from gossipcache.errors import GossipcacheError, NotPermitted, TaskNotFound
from gossipcache.identity import Identity, Signed
from gossipcache.ids import NodeId, TaskId
from gossipcache.manifest import (
    SignedManifest,
    SignedTombstone,
    open_tombstone,
    sign_tombstone,
)
from gossipcache.messages.announcements import AskHolders, DeletedTask, HoldersReply
from gossipcache.messages.holding import DropTask, TaskDropped
from gossipcache.node.deleting import HOLDERS_TIMEOUT_S, RECORD_TIMEOUT_S
from gossipcache.schedule.announcement import Held
from gossipcache.wire import Message
from sim.bare.disk import BareDisk
from sim.bare.outcome import Answer, Outcome, begin
from sim.bare.process import Process
from sim.bare.records import BareRecords
from sim.bare.scheduling import BareScheduling


@dataclass(frozen=True, slots=True)
class Deletion:
    """A delete that was acknowledged."""

    generation: int
    copies: int
    """On how many keepers it was durable."""


class BareHolder:
    """The copies of one process."""

    answers: frozenset[type[Message]] = frozenset((DropTask,))

    def __init__(
        self,
        process: Process,
        disk: BareDisk,
        records: BareRecords,
        scheduling: BareScheduling,
        *,
        identity: Identity,
        cluster_id: bytes,
        wall_time: Callable[[], float],
    ) -> None:
        self._process = process
        self._disk = disk
        self._records = records
        self._scheduling = scheduling
        self._identity = identity
        self._cluster_id = cluster_id
        self._wall_time = wall_time
        self._repairing: set[TaskId] = set()
        scheduling.on_unknown = self._give_back
        scheduling.on_deleted = self._hear
        records.on_over = scheduling.generation_over
        for signed in disk.copies.values():
            self._announce(signed)

    def on_view_change(self, changed: Sequence[Member], *, new_ring: bool) -> None:
        """The announcer minds that."""

    def answer(self, peer: NodeId, message: Message) -> Answer:
        """Answers `DropTask`."""
        assert isinstance(message, DropTask)
        return _outcome(self._drop(message))

    # What a user asks for.

    def publish(
        self, candidate: Callable[[int], SignedManifest], task_id: TaskId
    ) -> Outcome[Published]:
        """`import`: the record, then the copy."""
        return _outcome(self._publish(candidate, task_id))

    def fetch(self, task_id: TaskId) -> Outcome[bool]:
        """What an export leaves behind: a copy of what the record says; whether there is one."""
        return _outcome(self._fetch(task_id))

    def delete(self, task_id: TaskId, timeout_s: float) -> Outcome[Deletion]:
        """`delete`: settled when the tombstone is durable; holders are told then."""
        return _outcome(self._delete(task_id, timeout_s))

    async def _publish(
        self, candidate: Callable[[int], SignedManifest], task_id: TaskId
    ) -> Published:
        published = await self._records.publish(candidate, task_id)
        self._adopt(published.manifest)
        return published

    async def _fetch(self, task_id: TaskId) -> bool:
        record = await self._records.read(task_id, RECORD_TIMEOUT_S)
        if record is None or record.manifest is None:
            return False
        self._adopt(record.manifest)
        return True

    async def _delete(self, task_id: TaskId, timeout_s: float) -> Deletion:
        record = await self._records.read(task_id, timeout_s)
        if record is None or record.manifest is None:
            raise TaskNotFound("nobody in the cluster knows the task")
        holders = await self._holders(task_id)
        dead = sign_tombstone(
            record.manifest, self._identity, policy_number=0, deleted_at=int(self._wall_time())
        )
        copies = await self._records.bury(dead, timeout_s)
        self._bury(dead)
        drop = DropTask(tombstone=dead.signed, manifest=dead.manifest.signed)
        for holder in holders:
            self._process.request(holder, drop, timeout_s)
        return Deletion(record.generation, copies)

    async def _holders(self, task_id: TaskId) -> list[NodeId]:
        asked = [
            self._process.request(keeper, AskHolders(task_id=task_id), HOLDERS_TIMEOUT_S)
            for keeper in self._scheduling.keepers_of(task_id)
        ]
        found: dict[NodeId, None] = {}
        for each in asked:
            with suppress(GossipcacheError):
                reply: HoldersReply = await each
                found |= {NodeId(entry.node_id): None for entry in reply.holders}
        return [node for node in found if node != self._process.node_id]

    # Copies.

    def _adopt(self, signed: SignedManifest) -> None:
        known = self._disk.copies.get(signed.task_id)
        if known is None or known.manifest.generation < signed.manifest.generation:
            self._disk.copies[signed.task_id] = signed
            self._announce(signed)

    def _announce(self, signed: SignedManifest) -> None:
        pieces = signed.manifest.piece_count
        self._scheduling.hold(Held(signed.task_id, signed.name, pieces, pieces))

    def _bury(self, tombstone: SignedTombstone) -> None:
        self._disk.bury(tombstone)
        if tombstone.task_id not in self._disk.copies:
            self._scheduling.drop(tombstone.task_id)

    async def _drop(self, message: DropTask) -> Message:
        await self._accept(message.tombstone, message.manifest)
        return TaskDropped()

    async def _accept(self, tombstone: Signed, manifest: Signed) -> SignedTombstone:
        """See `node.deleting.accept_tombstone`."""
        dead = open_tombstone(tombstone, manifest, self._cluster_id)
        copy = self._disk.copies.get(dead.task_id)
        if copy is None or copy.manifest.generation > dead.tombstone.generation:
            return dead
        if copy.name != dead.manifest.name:
            record = await self._records.read(dead.task_id, RECORD_TIMEOUT_S)
            if record is None or record.tombstone is None:
                raise NotPermitted("the task's record knows nothing of this deletion")
            dead = record.tombstone
        self._bury(dead)
        return dead

    # What keepers say of them.

    def _hear(self, proof: DeletedTask) -> None:
        begin(self._heard(proof))

    async def _heard(self, proof: DeletedTask) -> None:
        with suppress(GossipcacheError):
            dead = await self._accept(proof.tombstone, proof.manifest)
            copy = self._disk.copies.get(dead.task_id)
            if copy is not None and copy.manifest.generation > dead.tombstone.generation:
                self._give_back(dead.task_id)

    def _give_back(self, task_id: TaskId) -> None:
        if task_id in self._disk.copies and task_id not in self._repairing:
            self._repairing.add(task_id)
            begin(self._restore(task_id))

    async def _restore(self, task_id: TaskId) -> None:
        try:
            if not await self._records.restore(self._disk.copies[task_id]):
                await self._drop_if_over(task_id)
        except GossipcacheError:
            pass  # The announcer asks for it again.
        finally:
            self._repairing.discard(task_id)

    async def _drop_if_over(self, task_id: TaskId) -> None:
        """See `node.deleting.drop_if_over`."""
        copy = self._disk.copies.get(task_id)
        record = await self._records.read(task_id, RECORD_TIMEOUT_S)
        if copy is None or record is None or record.generation < copy.manifest.generation:
            return
        if record.tombstone is not None:
            self._bury(record.tombstone)
        elif record.generation > copy.manifest.generation:
            del self._disk.copies[task_id]
            self._scheduling.drop(task_id)


def _outcome(work: Coroutine[Any, Any, Any]) -> Outcome[Any]:
    """What comes of a coroutine that begins now."""
    outcome: Outcome[Any] = Outcome()

    async def run() -> None:
        try:
            outcome.set(await work)
        except GossipcacheError as error:
            outcome.fail(error)

    begin(run())
    return outcome
