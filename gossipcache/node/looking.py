"""Finding a task: its record, and who holds it. `stat` is little more than that."""

from __future__ import annotations

import trio

from gossipcache.dht.records.service import TaskRecord
from gossipcache.errors import GossipcacheError, NodeUnreachable, TaskNotFound, TimedOut
from gossipcache.ids import task_id_of
from gossipcache.manifest import SignedManifest
from gossipcache.node.beside import beside
from gossipcache.node.services import Services, fits, not_found
from gossipcache.requests import TaskQuery
from gossipcache.results import Holder, LocalCopy, StatResult
from gossipcache.schedule.service import HolderInfo, Holders
from gossipcache.transfer.store.index import StoredTask

REANNOUNCED_S = 4.0
"""Holders announce themselves to new keepers within this time of a change of the ring."""
ASK_AGAIN_S = 0.2
ASK_HOLDERS_S = 5.0


def find_local(services: Services, query: TaskQuery) -> StoredTask | None:
    """What this node's own store has of the task, if it is what the query pins."""
    stored = services.store.find(task_id_of(query.cid, query.tag))
    if stored is None or not stored.published or not fits(query, stored.signed):
        return None
    return stored


async def find_manifest(services: Services, query: TaskQuery, timeout_s: float) -> SignedManifest:
    """The manifest that the cluster's record keepers give for the task.

    Raises `TaskNotFound`, also if what stands is not what is pinned, `Conflict` for a fork that
    no pin decides, or `TimedOut`.
    """
    record = await read_record(services, query, timeout_s)
    if record is None:
        raise not_found(query, "nobody in the cluster knows it")
    if record.manifest is None:
        raise not_found(query, "it was deleted")
    if not fits(query, record.manifest):
        found = record.manifest
        raise TaskNotFound(
            f"{query.cid!r} stands with other content than the one pinned: "
            f"{found.manifest.digest}, by {found.publisher.hex()}",
            "leave out --digest and --publisher to take what is there",
        )
    return record.manifest


async def read_record(services: Services, query: TaskQuery, timeout_s: float) -> TaskRecord | None:
    """The task's record; a pinned digest or publisher makes one valid answer enough."""
    pinned = query.digest is not None or query.publisher is not None
    accept = (lambda found: fits(query, found)) if pinned else None
    return await services.records.read(
        task_id_of(query.cid, query.tag), accept=accept, timeout_s=timeout_s
    )


async def stat(
    services: Services, query: TaskQuery, *, local: bool, timeout_s: float
) -> StatResult:
    """`stat`: raises `TaskNotFound` unless every piece can be had.

    After a keeper died its successor knows no holders until they have announced themselves, so
    "nobody holds it" counts only once the membership has been quiet for a while.
    """
    task_id = task_id_of(query.cid, query.tag)
    stored = find_local(services, query)
    if local:
        if stored is None or not stored.complete:
            raise not_found(query, "it is not complete on this node")
        return describe(services, stored.signed, stored, ())
    deadline = trio.current_time() + timeout_s
    found, holders = await _found_and_held(services, query, timeout_s)
    while not (holders.covered or found.manifest.size == 0):
        if services.membership.quiet_s > REANNOUNCED_S or trio.current_time() >= deadline:
            raise not_found(query, "the alive members do not hold all of it")
        await trio.sleep(ASK_AGAIN_S)
        holders = await services.announcer.holders(task_id, timeout_s)
    return describe(services, found, stored, holders.known)


async def _found_and_held(
    services: Services, query: TaskQuery, timeout_s: float
) -> tuple[SignedManifest, Holders]:
    """Asks for the record and for the holders at once; raises what `find_manifest` raises first."""
    answers: list[Holders | GossipcacheError] = []
    answered = trio.Event()

    async def ask_holders() -> None:
        try:
            task_id = task_id_of(query.cid, query.tag)
            answers.append(await services.announcer.holders(task_id, timeout_s))
        except GossipcacheError as error:
            answers.append(error)
        answered.set()

    async def find() -> SignedManifest:
        found = await find_manifest(services, query, timeout_s)
        await answered.wait()
        return found

    found = await beside(ask_holders, find)
    if isinstance(answers[0], GossipcacheError):
        raise answers[0]
    return found, answers[0]


async def check_reach(services: Services, signed: SignedManifest) -> None:
    """Raises `TaskNotFound` if the members that are alive do not hold all of the task, which
    counts only once the membership has been quiet for a while (see `stat`)."""
    try:
        holders = await services.announcer.holders(signed.task_id, ASK_HOLDERS_S)
    except (NodeUnreachable, TimedOut):
        return
    if not holders.covered and services.membership.quiet_s > REANNOUNCED_S:
        query = TaskQuery(signed.manifest.cid, signed.manifest.tag)
        raise not_found(query, "the alive members do not hold all of it")


def describe(
    services: Services,
    found: SignedManifest,
    stored: StoredTask | None,
    holders: tuple[HolderInfo, ...],
) -> StatResult:
    """A task as `stat` shows it."""
    manifest = found.manifest
    keepers = services.keepers(found.task_id)
    complete = [holder for holder in holders if holder.complete]
    warnings = ("only one node holds all of it",) if len(complete) == 1 else ()
    return StatResult(
        cid=manifest.cid,
        tag=manifest.tag,
        task_id=found.task_id.hex(),
        size=manifest.size,
        digest=manifest.digest,
        piece_size=manifest.piece_size,
        pieces=manifest.piece_count,
        kind=manifest.kind,
        publisher=found.publisher.hex(),
        owner=keepers[0].hex() if keepers else None,
        replicas=tuple(node.hex() for node in keepers[1:]),
        holders=tuple(_holder(services, holder) for holder in holders),
        local=local_copy(stored),
        expires_at=manifest.expires_at,
        warnings=warnings,
    )


def local_copy(stored: StoredTask | None) -> LocalCopy:
    """This node's own copy as `stat` shows it."""
    if stored is None:
        return LocalCopy(present=False, complete=False, pinned=False)
    return LocalCopy(present=True, complete=stored.complete, pinned=stored.pinned)


def _holder(services: Services, holder: HolderInfo) -> Holder:
    member = services.membership.member(holder.node_id)
    return Holder(
        node=holder.node_id.hex(),
        name=services.name_of(holder.node_id),
        address=str(member.address) if member is not None and member.address else "",
        pieces=holder.pieces,
        complete=holder.complete,
    )
