"""Deletions that others remember, of tasks of which nothing is known here: hearsay.

Where only publishers delete, whoever says so can have made up both the manifest and its deletion.
Such a deletion waits until a manifest comes: it counts against one of the same publisher.
"""

from __future__ import annotations

from gossipcache.dht.records.standing import Standing
from gossipcache.ids import TaskId

MAX_TASKS = 65_536
MAX_OF_TASK = 4


class Unproven:
    """The deletions that wait; the oldest make room."""

    def __init__(self) -> None:
        self._waiting: dict[TaskId, tuple[Standing, ...]] = {}

    def keep(self, deletion: Standing) -> None:
        """Has `deletion` wait."""
        known = self._waiting.pop(deletion.task_id, ())
        if deletion.version not in [one.version for one in known]:
            known = (*known, deletion)[-MAX_OF_TASK:]
        self._waiting[deletion.task_id] = known
        if len(self._waiting) > MAX_TASKS:
            del self._waiting[next(iter(self._waiting))]

    def of(self, task_id: TaskId) -> tuple[Standing, ...]:
        """Those of a task."""
        return self._waiting.get(task_id, ())
