"""What of a bare node outlives its process: its records' journal, its copies, its graves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gossipcache.ids import TaskId
from gossipcache.manifest import SignedManifest, SignedTombstone

SYNC_S = 0.001
"""How long it takes until a change is durable."""


@dataclass(eq=False)
class BareDisk:
    """Durable as soon as a change is made here; who changes it waits `SYNC_S` before that.

    The part that remembers deletions is what `transfer.store.store.Store` is to a keeper
    (`dht.records.graves.Memory`).
    """

    journal: dict[bytes, bytes] = field(default_factory=dict)
    copies: dict[TaskId, SignedManifest] = field(default_factory=dict)
    """The tasks that the node holds all of."""
    graves: dict[TaskId, SignedTombstone] = field(default_factory=dict)

    def image(self) -> BareDisk:
        """The same at this instant."""
        return BareDisk(dict(self.journal), dict(self.copies), dict(self.graves))

    def bury(self, tombstone: SignedTombstone) -> None:
        """Drops the copy of the generation that was deleted, or an earlier one, and remembers."""
        task_id, generation = tombstone.task_id, tombstone.tombstone.generation
        copy = self.copies.get(task_id)
        if copy is not None and copy.manifest.generation <= generation:
            del self.copies[task_id]
        known = self.graves.get(task_id)
        if known is None or known.tombstone.generation < generation:
            self.graves[task_id] = tombstone

    @property
    def dead_sum(self) -> int:
        """The sum of the highest deleted generations."""
        return sum(proof.tombstone.generation for proof in self.graves.values())

    def dead_generations(self) -> Mapping[TaskId, int]:
        """The highest deleted generation by task."""
        return {task_id: one.tombstone.generation for task_id, one in self.graves.items()}

    def tombstone(self, task_id: TaskId, cluster_id: bytes) -> SignedTombstone | None:
        """The proof of a task's last deletion."""
        return self.graves.get(task_id)
