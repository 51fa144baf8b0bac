"""Writes under way at one keeper: candidates that are prepared here and not committed yet.

One a task at a time, whoever brings it, so that of two that differ at most one reaches a quorum.
Each expires, since whoever prepared it may have died.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gossipcache.dht.records.standing import Standing
from gossipcache.errors import Busy
from gossipcache.ids import NodeId, TaskId
from gossipcache.journal import Change
from gossipcache.wire import encode

MAX_PROVISIONAL = 4096
"""Writes under way at one keeper at once."""
PROVISIONAL = b"p"
"""Begins the journal's keys of these."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """One candidate that may yet be committed."""

    standing: Standing
    coordinators: tuple[NodeId, ...]
    """Who brought it: several if the first was slow. Each may commit; all must withdraw."""
    expires_at: float
    teller: NodeId | None = None
    """Who may say alone that this was committed before, as nothing was held here."""
    value: bytes | None = None
    """What the journal has of it, if it was prepared in this run."""


class Provisional:
    """The candidates prepared at one keeper, by task."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._prepared: dict[TaskId, Prepared] = {}

    def load(self, standing: Standing, coordinator: NodeId, now: float) -> None:
        """Takes one from the own journal."""
        self._prepared[standing.task_id] = Prepared(standing, (coordinator,), now + self._ttl_s)

    def is_taken(self, candidate: Standing, now: float) -> bool:
        """Whether another write of the task is under way."""
        other = self._prepared.get(candidate.task_id)
        return bool(
            other and other.expires_at > now and other.standing.version != candidate.version
        )

    def check_room(self, task_id: TaskId) -> None:
        """Raises `Busy` if there is no room for one more."""
        if task_id not in self._prepared and len(self._prepared) >= MAX_PROVISIONAL:
            raise Busy("too many writes are under way at this keeper")

    def prepare(
        self, candidate: Standing, coordinator: NodeId, now: float, *, is_told: bool
    ) -> tuple[Change, ...]:
        """Takes a candidate in, for the first time or from one more coordinator."""
        task_id = candidate.task_id
        other = self._prepared.get(task_id)
        earlier = other.coordinators if other and other.expires_at > now else ()
        coordinators = tuple(dict.fromkeys((*earlier, coordinator)))
        value = encode(candidate.entry)
        teller = coordinator if is_told else None
        self._prepared[task_id] = Prepared(
            candidate, coordinators, now + self._ttl_s, teller, value
        )
        return ((PROVISIONAL + task_id, value),)

    def encoded(self, standing: Standing) -> bytes:
        """The entry of `standing` as the journal has it, which need not be made twice."""
        prepared = self._prepared.get(standing.task_id)
        if prepared is None or prepared.value is None or prepared.standing is not standing:
            return encode(standing.entry)
        return prepared.value

    def find(self, task_id: TaskId, version: bytes, coordinator: NodeId) -> Prepared | None:
        """The candidate of that version, if `coordinator` prepared it here."""
        prepared = self._prepared.get(task_id)
        if (
            prepared is None
            or coordinator not in prepared.coordinators
            or prepared.standing.version != version
        ):
            return None
        return prepared

    def end(self, task_id: TaskId) -> tuple[Change, ...]:
        """Forgets the candidate: it is committed, or will never be."""
        del self._prepared[task_id]
        return ((PROVISIONAL + task_id, None),)

    def withdraw(self, task_id: TaskId, version: bytes, coordinator: NodeId) -> tuple[Change, ...]:
        """Forgets a prepared candidate, unless others brought it too."""
        prepared = self.find(task_id, version, coordinator)
        if prepared is None:
            return ()
        left = tuple(one for one in prepared.coordinators if one != coordinator)
        if left:
            self._prepared[task_id] = replace(prepared, coordinators=left)
            return ()
        return self.end(task_id)

    def next_timeout(self) -> float | None:
        """When the next one expires."""
        return min((one.expires_at for one in self._prepared.values()), default=None)

    def expire(self, now: float) -> tuple[Change, ...]:
        """Forgets those whose time is over."""
        over = [key for key, one in self._prepared.items() if one.expires_at <= now]
        return tuple(change for task_id in over for change in self.end(task_id))
