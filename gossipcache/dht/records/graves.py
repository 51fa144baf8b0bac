"""The deletions that a node remembers outside its records, told to keepers that ask.

Former holders, and whoever deleted, keep the proof: the signed tombstone and the signed header
of the manifest that it deletes. Of old deletions only the generation is left. A keeper whose
disk is lost or old learns from them what it must not let come back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from gossipcache.dht.records.standing import standing_tombstone
from gossipcache.dht.records.steps import Breathe, Steps, work
from gossipcache.dht.ring import Ring
from gossipcache.ids import NodeId, TaskId
from gossipcache.manifest import SignedTombstone
from gossipcache.messages.graves import (
    MAX_GRAVES,
    AskGraves,
    AskProofs,
    GraveRow,
    GravesPage,
    ProofsPage,
)
from gossipcache.messages.records import MAX_ENTRIES, RecordEntry
from gossipcache.wire import encode

_PAGE_BYTES = 56 * 1024
_LOOKUPS_AT_ONCE = 1000
_SUM_MODULUS = 2**63


class Memory(Protocol):
    """What a node's store remembers (`transfer.store.store.Store`)."""

    @property
    def dead_sum(self) -> int:
        """The sum of the highest deleted generations: another number after each deletion."""

    def dead_generations(self) -> Mapping[TaskId, int]:
        """The highest deleted generation by task."""

    def tombstone(self, task_id: TaskId, cluster_id: bytes) -> SignedTombstone | None:
        """The proof of a task's last deletion, if it is still there; blocks."""


class Graves:
    """Answers for what one node remembers."""

    def __init__(
        self,
        memory: Memory,
        cluster_id: bytes,
        ring: Callable[[], Ring],
        replicas: int,
    ) -> None:
        self._memory = memory
        self._cluster_id = cluster_id
        self._ring = ring
        self._replicas = replicas

    @property
    def sum(self) -> int:
        """Another number after each deletion that is newly remembered."""
        return self._memory.dead_sum % _SUM_MODULUS

    def of(
        self, keeper: NodeId, after: bytes = b"", count: int | None = None
    ) -> Steps[list[tuple[TaskId, int]]]:
        """Task and generation of the first `count` deletions that concern `keeper`, by task id."""
        ring = self._ring()
        if keeper not in ring.members:
            ring = ring.with_members((*ring.members, keeper))
        found: list[tuple[TaskId, int]] = []
        for number, grave in enumerate(sorted(self._memory.dead_generations().items()), start=1):
            if len(found) == count:
                break
            if grave[0] > after and keeper in ring.keepers(grave[0], self._replicas):
                found.append(grave)
            if number % _LOOKUPS_AT_ONCE == 0:
                yield Breathe()
        return found

    def proofs(self, task_ids: list[TaskId]) -> Steps[list[SignedTombstone]]:
        """The proofs that are left of these, in their order."""

        def read() -> list[SignedTombstone]:
            found = (self._memory.tombstone(task_id, self._cluster_id) for task_id in task_ids)
            return [tombstone for tombstone in found if tombstone is not None]

        return (yield from work(read))

    def tell(self, peer: NodeId, message: AskGraves) -> Steps[GravesPage]:
        """Answers `AskGraves`."""
        found = yield from self.of(peer, message.after, MAX_GRAVES + 1)
        rows = tuple(GraveRow(*grave) for grave in found[:MAX_GRAVES])
        return GravesPage(graves=rows, more=len(found) > MAX_GRAVES)

    def prove(self, message: AskProofs) -> Steps[ProofsPage]:
        """Answers `AskProofs`."""
        entries: list[RecordEntry] = []
        size = done = 0
        for task_id in message.task_ids:
            for tombstone in (yield from self.proofs([TaskId(task_id)])):
                entry = standing_tombstone(tombstone).entry
                size += len(encode(entry))
                if entries and (size > _PAGE_BYTES or len(entries) == MAX_ENTRIES):
                    return ProofsPage(entries=tuple(entries), done=done)
                entries.append(entry)
            done += 1
        return ProofsPage(entries=tuple(entries), done=done)
