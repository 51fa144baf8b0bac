"""Which tasks the store would give up, and in which order."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from gossipcache.ids import TaskId
from gossipcache.transfer.store.index import StoredTask


@dataclass(frozen=True, slots=True)
class Eviction:
    """A proposal. Only `expired` may take the last complete copy in the cluster."""

    task_id: TaskId
    reason: Literal["expired", "idle", "quota"]
    freed_bytes: int


def evictions(
    tasks: Iterable[StoredTask],
    now: float,
    *,
    in_use: Collection[TaskId],
    idle_ttl_s: float | None,
    excess_bytes: int,
) -> tuple[Eviction, ...]:
    """What may go at `now` (seconds since 1970): first the expired, then the idle, then, while
    the store is `excess_bytes` too full, all others, least recently used first.

    The last group is longer than needed, since the cluster may forbid to evict some of it: the
    caller stops when enough is freed. Pinned tasks, tasks in use, imports under way and what is
    not durable yet are never proposed.
    """
    expired, idle, others = [], [], []
    for task in sorted(tasks, key=lambda task: (task.last_use, task.task_id)):
        is_busy = task.task_id in in_use or not task.settled or not task.published
        if task.pinned or is_busy:
            continue
        if task.expires_at is not None and task.expires_at <= now:
            expired.append(Eviction(task.task_id, "expired", task.disk_bytes))
        elif idle_ttl_s is not None and task.last_use + idle_ttl_s <= now:
            idle.append(Eviction(task.task_id, "idle", task.disk_bytes))
        else:
            others.append(Eviction(task.task_id, "quota", task.disk_bytes))
    still_excess_bytes = excess_bytes - sum(going.freed_bytes for going in expired + idle)
    return (*expired, *idle, *(others if still_excess_bytes > 0 else ()))
