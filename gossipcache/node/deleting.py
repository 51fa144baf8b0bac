"""`delete`: a tombstone for the whole cluster, or just this node's copy."""

from __future__ import annotations

from contextlib import suppress

import trio

from gossipcache.errors import Conflict, GossipcacheError, NotPermitted, TimedOut
from gossipcache.identity import Signed
from gossipcache.ids import NodeId, TaskId
from gossipcache.link.interface import Peer
from gossipcache.manifest import SignedManifest, SignedTombstone, open_tombstone, sign_tombstone
from gossipcache.messages.holding import DropTask, TaskDropped
from gossipcache.node.looking import find_local, find_manifest
from gossipcache.node.services import Services, not_found
from gossipcache.requests import DeleteRequest
from gossipcache.results import DeleteResult
from gossipcache.transfer.store.index import StoredTask

HOLDERS_TIMEOUT_S = 2.0
ASK_AGAIN_S = 0.2
RECORD_TIMEOUT_S = 2.0
NEW_COPY_WAIT_S = 3.0
"""An export that has just ended elsewhere counts as a copy when it is durable and announced."""


async def delete(services: Services, request: DeleteRequest) -> DeleteResult:
    """`delete`: returns when the tombstone is durable and every alive holder was asked.

    Raises `TaskNotFound`, `NotPermitted`, and `TimedOut` if the tombstone is not durable.
    """
    if request.local:
        return await _delete_here(services, request)
    deadline = trio.current_time() + request.timeout_s
    found = await find_manifest(services, request.task, request.timeout_s)
    if not _may_delete(services, found, services.me):
        raise NotPermitted(
            f"only its publisher {found.publisher.hex()} may delete {found.manifest.cid!r}",
            "run the delete on the publisher's node",
        )
    holders = (await services.announcer.holders(found.task_id, HOLDERS_TIMEOUT_S)).known
    tombstone = sign_tombstone(
        found,
        services.identity,
        policy_number=services.charters.admission.number,
        deleted_at=int(services.env.wall_time()),
    )
    copies = await services.records.bury(
        tombstone, timeout_s=max(0.0, deadline - trio.current_time())
    )
    await bury_here(services, tombstone)
    is_alive = services.membership.is_alive
    others = [holder.node_id for holder in holders if holder.node_id != services.me]
    confirmed = await _drop_everywhere(services, tombstone, others, deadline)
    here = [services.me] if any(holder.node_id == services.me for holder in holders) else []
    return DeleteResult(
        confirmed=tuple(node.hex() for node in [*here, *confirmed]),
        pending=tuple(node.hex() for node in others if node not in confirmed and is_alive(node)),
        record_copies=copies,
    )


async def _drop_everywhere(
    services: Services, tombstone: SignedTombstone, holders: list[NodeId], deadline: float
) -> list[NodeId]:
    message = DropTask(tombstone=tombstone.signed, manifest=tombstone.manifest.signed)
    confirmed: list[NodeId] = []

    async def ask(holder: NodeId) -> None:
        while services.membership.is_alive(holder):
            timeout_s = max(0.1, deadline - trio.current_time())
            try:
                await services.links.request(holder, message, TaskDropped, timeout_s)
            except GossipcacheError:
                await trio.sleep(ASK_AGAIN_S)
            else:
                confirmed.append(holder)
                return

    with trio.move_on_at(deadline):
        async with trio.open_nursery() as nursery:
            for holder in holders:
                nursery.start_soon(ask, holder)
    return [holder for holder in holders if holder in confirmed]


async def handle_drop(services: Services, _peer: Peer, message: DropTask) -> TaskDropped:
    """Answers `DropTask`: the statements count, not who brings them."""
    await accept_tombstone(services, message.tombstone, message.manifest)
    return TaskDropped()


async def accept_tombstone(services: Services, tombstone: Signed, manifest: Signed) -> None:
    """Checks a deletion that was learned from another node, and carries it out here.

    A node that holds nothing of the task, or a later generation, has nothing to do: the keepers
    remember the deletion.
    """
    checked = open_tombstone(tombstone, manifest, services.cluster.cluster_id)
    await services.charters.reach(checked.tombstone.policy_number)
    stored = services.store.find(checked.task_id)
    if stored is None or stored.generation > checked.tombstone.generation:
        return
    is_of_this = stored.manifest_name == checked.manifest.name
    if not is_of_this or not _may_delete(services, checked.manifest, checked.signer):
        checked = await _as_recorded(services, checked)
    await bury_here(services, checked)


async def _as_recorded(services: Services, checked: SignedTombstone) -> SignedTombstone:
    """The deletion that the task's keepers agree on.

    Whoever deletes can make up a manifest, sign both, and be its publisher: for another one than
    is held here, nothing but the record tells whether it ever stood. The same goes for one that
    the present policy forbids: only the record tells whether it was made under an earlier one.
    """
    record = await services.records.read(checked.task_id, timeout_s=RECORD_TIMEOUT_S)
    if record is None or record.tombstone is None:
        raise NotPermitted("the task's record knows nothing of this deletion")
    return record.tombstone


async def is_over(services: Services, stored: StoredTask) -> bool:
    """Whether the task was deleted while this node was away, as far as its keepers can tell; this
    node's copy is then gone."""
    if services.announcer.is_taken(stored.task_id):
        return False
    try:
        return await drop_if_over(services, stored.task_id)
    except (Conflict, TimedOut):
        return False


async def drop_if_over(services: Services, task_id: TaskId) -> bool:
    """Drops this node's copy if the task's keepers agree that its generation is over: deleted, or
    outdone by a later one. Raises `TimedOut`, `Conflict`."""
    stored = services.store.find(task_id)
    if stored is None:
        return False
    record = await services.records.read(task_id, timeout_s=RECORD_TIMEOUT_S)
    if record is None or record.generation < stored.generation:
        return False
    if record.tombstone is not None:
        await bury_here(services, record.tombstone)
        return True
    if record.generation == stored.generation:
        return False
    await _drop_here(services, task_id)
    return True


async def bury_here(services: Services, tombstone: SignedTombstone) -> None:
    """Drops this node's copy and remembers the deletion; durable on return."""
    await services.env.workers.run(lambda: services.store.remember_tombstone(tombstone))
    if services.store.find(tombstone.task_id) is None:
        services.announcer.drop(tombstone.task_id)


def _may_delete(services: Services, dead: SignedManifest, signer: NodeId) -> bool:
    policy = services.charters.admission.deletion.policy
    return policy == "any" or signer == dead.publisher


async def _delete_here(services: Services, request: DeleteRequest) -> DeleteResult:
    stored = find_local(services, request.task)
    if stored is None:
        raise not_found(request.task, "this node has nothing of it")
    if (
        stored.complete
        and not request.force
        and not await _has_other_copy(services, stored.signed.task_id)
    ):
        raise NotPermitted(
            f"this is the last complete copy of {request.task.cid!r} in the cluster",
            "export it elsewhere first, or use --force",
        )
    await _drop_here(services, stored.signed.task_id)
    with suppress(TimedOut):
        await services.announcer.flush(stored.signed.task_id, HOLDERS_TIMEOUT_S)
    return DeleteResult(confirmed=(services.me.hex(),), pending=(), record_copies=0)


async def _has_other_copy(services: Services, task_id: TaskId) -> bool:
    give_up_at = trio.current_time() + NEW_COPY_WAIT_S
    while not await may_drop(services, task_id):
        if trio.current_time() >= give_up_at:
            return False
        await trio.sleep(ASK_AGAIN_S)
    return True


async def may_drop(services: Services, task_id: TaskId, *, others: int = 1) -> bool:
    """Asks the task's keepers for leave to drop a complete copy (`AnnounceService.release`)."""
    return await services.announcer.release(task_id, HOLDERS_TIMEOUT_S, others=others)


async def _drop_here(services: Services, task_id: TaskId) -> None:
    await services.env.workers.run(lambda: services.store.remove(task_id))
    services.announcer.drop(task_id)
