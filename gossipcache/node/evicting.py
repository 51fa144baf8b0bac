"""Giving up stored tasks: what has expired, what nobody uses, what does not fit the quota."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from gossipcache.errors import GossipcacheError, NoSpace
from gossipcache.ids import TaskId
from gossipcache.node.deleting import may_drop
from gossipcache.node.services import Services
from gossipcache.results import GcResult
from gossipcache.transfer.store.eviction import Eviction

R = TypeVar("R")


async def gc(services: Services, *, dry_run: bool, need_bytes: int = 0) -> GcResult:
    """`gc`: evicts what has expired, idles, or leaves no room for `need_bytes` in the quota, the
    least recently used first.

    A copy that may be the last complete one in the cluster stays, unless its own TTL is over.
    """
    removed: list[str] = []
    freed_bytes = kept = 0
    for proposal in services.store.evictable(services.env.wall_time(), need_bytes):
        would_be_freed = freed_bytes if dry_run else 0
        excess_bytes = services.store.excess_bytes(need_bytes)
        if proposal.reason == "quota" and excess_bytes <= would_be_freed:
            break
        if not await _may_evict(services, proposal, dry_run=dry_run):
            kept += 1
            continue
        if not dry_run and not await evict(services, proposal.task_id):
            continue
        freed_bytes += proposal.freed_bytes
        removed.append(proposal.task_id.hex())
    return GcResult(tuple(removed), freed_bytes, kept, dry_run)


async def _may_evict(services: Services, proposal: Eviction, *, dry_run: bool) -> bool:
    stored = services.store.find(proposal.task_id)
    if proposal.reason == "expired" or stored is None or not stored.complete or dry_run:
        return True
    # What only idles goes if as many copies are left as were asked for, else any would do.
    others = stored.copies if proposal.reason == "idle" else 1
    try:
        return await may_drop(services, proposal.task_id, others=others)
    except GossipcacheError:
        return False


async def evict(services: Services, task_id: TaskId) -> bool:
    """Removes a task, unless it is absent, pinned or in use by now."""
    evicted = await services.env.workers.run(lambda: services.store.evict(task_id))
    if evicted:
        services.announcer.drop(task_id)
    return evicted


async def make_room(services: Services, size_bytes: int) -> None:
    """Evicts what may go until `size_bytes` more fit the quota, or nothing is left that may.

    Nothing goes for what would not even fit an empty store.
    """
    store = services.store
    if store.excess_bytes(size_bytes) > 0 and size_bytes <= store.quota_bytes:
        await gc(services, dry_run=False, need_bytes=size_bytes)


async def with_room(services: Services, work: Callable[[], Awaitable[R]]) -> R:
    """Runs `work`; if the quota has no room for what it needs, makes room and runs it once more."""
    try:
        return await work()
    except NoSpace as full:
        if not full.wanted_bytes:
            raise
        wanted_bytes = full.wanted_bytes
    await make_room(services, wanted_bytes)
    return await work()
