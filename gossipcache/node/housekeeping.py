"""The local store kept in order: list, pin, verify, and the loop behind them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from functools import partial
from operator import attrgetter

import trio

from gossipcache.errors import GossipcacheError, TaskNotFound
from gossipcache.ids import TaskId, task_id_of
from gossipcache.node.evicting import gc
from gossipcache.node.fetching import fetch
from gossipcache.node.looking import find_local
from gossipcache.node.rounds import settled
from gossipcache.node.services import Services, not_found
from gossipcache.requests import TaskQuery
from gossipcache.results import LocalTask, RottenTask, UncheckedTask, VerifyResult
from gossipcache.transfer.store.index import StoredTask

_log = logging.getLogger(__name__)

REPAIR_TIMEOUT_S = 60.0
COMPACTION_INTERVAL_S = 24 * 3600.0
PROOF_KEPT_S = 30 * 24 * 3600.0
"""After this long only the generation of a deletion is remembered, without its signatures."""


def list_tasks(services: Services) -> tuple[LocalTask, ...]:
    """`ls`: sorted by cid and tag."""
    return tuple(
        sorted(
            (_local_task(stored) for stored in services.store.tasks()),
            key=lambda task: (task.cid, task.tag),
        )
    )


def _local_task(stored: StoredTask) -> LocalTask:
    manifest = stored.signed.manifest
    expires_at = stored.expires_at
    return LocalTask(
        cid=manifest.cid,
        tag=manifest.tag,
        task_id=stored.task_id.hex(),
        size=manifest.size,
        pieces=manifest.piece_count,
        pieces_present=stored.have.count,
        complete=stored.complete,
        pinned=stored.pinned,
        last_use=int(stored.last_use),
        expires_at=None if expires_at is None else int(expires_at),
    )


async def pin(services: Services, query: TaskQuery, *, pinned: bool) -> None:
    """`pin` and `unpin`. Raises `TaskNotFound` if this node has nothing of the task."""
    stored = find_local(services, query)
    if stored is None:
        raise not_found(query, "this node has nothing of it")
    change = services.store.pin if pinned else services.store.unpin
    await services.env.workers.run(lambda: change(stored.signed.task_id))


async def verify(services: Services, query: TaskQuery | None) -> VerifyResult:
    """`verify`: re-hashes one task or all, and fetches bad pieces anew from other holders. A task
    with which that fails holds up no other."""
    rotten: list[RottenTask] = []
    unchecked: list[UncheckedTask] = []
    chosen = services.store.tasks() if query is None else [_required(services, query)]
    for stored in chosen:
        bad = await settled(partial(_verify_one, services, stored.task_id))
        if not bad:
            continue
        manifest = stored.signed.manifest
        names = manifest.cid, manifest.tag, stored.task_id.hex()
        if isinstance(bad, GossipcacheError):
            unchecked.append(UncheckedTask(*names, bad.code, bad.message))
        else:
            rotten.append(RottenTask(*names, bad, await repair(services, stored)))
    in_order = attrgetter("cid", "tag")
    rotten.sort(key=in_order)
    unchecked.sort(key=in_order)
    return VerifyResult(
        len(chosen) - len(unchecked),
        _by_cid(rotten),
        _by_cid(task for task in rotten if task.repaired),
        tuple(rotten),
        tuple(unchecked),
    )


def _by_cid(tasks: Iterable[RottenTask]) -> dict[str, tuple[int, ...]]:
    pieces: dict[str, set[int]] = {}
    for task in tasks:
        pieces.setdefault(task.cid, set()).update(task.bad)
    return {cid: tuple(sorted(found)) for cid, found in pieces.items()}


async def _verify_one(services: Services, task_id: TaskId) -> tuple[int, ...]:
    try:
        return await services.env.workers.run(lambda: services.store.verify(task_id))
    except TaskNotFound:
        return ()


def _required(services: Services, query: TaskQuery) -> StoredTask:
    stored = services.store.find(task_id_of(query.cid, query.tag))
    if stored is None:
        raise not_found(query, "this node has nothing of it")
    return stored


async def repair(services: Services, stored: StoredTask) -> bool:
    """Fetches what a task lacks from others; whether it is complete now."""
    with trio.move_on_after(REPAIR_TIMEOUT_S):
        try:
            await fetch(services, stored.signed)
        except (GossipcacheError, OSError) as error:
            fields = {"task": stored.task_id, "cause": str(error)}
            _log.warning("a task cannot be mended", extra={"fields": fields})
            return False
        return True
    return False


async def keep_in_order(services: Services) -> None:
    """Runs `gc` and the store's tidying for as long as the node runs."""
    compacted_at = -math.inf
    while True:
        await trio.sleep(services.config.store.gc_interval_s)
        await gc(services, dry_run=False)
        await services.env.workers.run(services.store.tidy)
        if trio.current_time() >= compacted_at + COMPACTION_INTERVAL_S:
            compacted_at = trio.current_time()
            before = services.env.wall_time() - PROOF_KEPT_S
            await services.env.workers.run(partial(services.store.compact_tombstones, before))
