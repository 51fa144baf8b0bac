"""Entries that an empty keeper was told: from whom, and who else says so.

A keeper that holds nothing of a task believes what it hears first, since otherwise a task could
not outlive its keepers. If it then spoke for that like for what it saw written, one lying keeper
would have two voices. So it remembers, durably, which keeper told it which version, until a
second one says the same. Until then its word vouches for nothing, and while those who told it
differ, it takes no part in reads and writes of the task.
"""

from __future__ import annotations

from gossipcache.ids import NODE_ID_BYTES, NodeId, TaskId
from gossipcache.journal import Change
from gossipcache.messages.records import VERSION_BYTES

MAX_TELLERS = 8
NEEDED = 2
"""Who say the same: one of them is honest, if no two lie."""
HEARSAY = b"h"
"""Begins the journal's keys of these."""


class Hearsay:
    """Of each task that this keeper was only told of: who said which version."""

    def __init__(self) -> None:
        self._said: dict[TaskId, dict[NodeId, bytes]] = {}

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._said

    def load(self, task_id: TaskId, value: bytes) -> None:
        """Takes one entry of the own journal."""
        step = NODE_ID_BYTES + VERSION_BYTES
        each = (value[start : start + step] for start in range(0, len(value), step))
        self._said[task_id] = {NodeId(one[:NODE_ID_BYTES]): one[NODE_ID_BYTES:] for one in each}

    def tasks(self) -> list[TaskId]:
        """All that this keeper was only told of."""
        return list(self._said)

    def is_disputed(self, task_id: TaskId) -> bool:
        """Whether those who told of the task differ."""
        return len(set(self._said.get(task_id, {}).values())) > 1

    def begin(self, task_id: TaskId, teller: NodeId | None, version: bytes) -> tuple[Change, ...]:
        """The keeper took the task over from `teller`; None: from a writer."""
        self._said[task_id] = {} if teller is None else {teller: version}
        return self._saved(task_id)

    def note(self, task_id: TaskId, teller: NodeId, version: bytes) -> tuple[Change, ...]:
        """`teller` says `version`, where the keeper has something by hearsay."""
        said = self._said.get(task_id)
        if said is None or said.get(teller) == version:
            return ()
        if teller not in said and len(said) >= MAX_TELLERS:
            return ()
        said[teller] = version
        return self._saved(task_id)

    def is_agreed(self, task_id: TaskId, version: bytes) -> bool:
        """Whether enough say `version`."""
        return list(self._said.get(task_id, {}).values()).count(version) >= NEEDED

    def end(self, task_id: TaskId) -> tuple[Change, ...]:
        """What is held of the task is proven now, or nothing is held any more."""
        if self._said.pop(task_id, None) is None:
            return ()
        return ((HEARSAY + task_id, None),)

    def _saved(self, task_id: TaskId) -> tuple[Change, ...]:
        value = b"".join(node + version for node, version in self._said[task_id].items())
        return ((HEARSAY + task_id, value),)
