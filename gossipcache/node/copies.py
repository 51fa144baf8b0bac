"""`--replicas N`: as many verified copies as a task's manifest asks for, on different nodes.

The first of the complete holders, by id, sees to it that there are enough: at import, when members
come and go, and now and then. It asks nodes in the order of `node.placement`. Whoever promises a
copy downloads it like any other, and is then a holder like any other; only where there come to be
too many, such as when a holder returns, such copies go again. What a user brought to a node
stays.
"""

from __future__ import annotations

from functools import partial

import trio

from gossipcache.errors import Busy, GossipcacheError, NotPermitted
from gossipcache.ids import NodeId, TaskId
from gossipcache.link.interface import Peer
from gossipcache.manifest import SignedManifest, open_manifest
from gossipcache.messages.holding import CopyPromised, KeepCopy
from gossipcache.node.deleting import may_drop
from gossipcache.node.evicting import evict
from gossipcache.node.fetching import fetch
from gossipcache.node.placement import is_spare, next_places
from gossipcache.node.rounds import each
from gossipcache.node.services import Services
from gossipcache.transfer.store.index import StoredTask

REVIEW_INTERVAL_S = 60.0
SETTLE_S = 5.0
"""After a change of the membership: who comes back at once was not missed."""
ASK_TIMEOUT_S = 2.0
FETCH_TIMEOUT_S = 3600.0
FETCHES_AT_ONCE = 2
REVIEWS_AT_ONCE = 8
"""So that a keeper which hangs holds up few tasks, and thousands of copies are soon seen to."""
MAX_PROMISES = 256


async def restore_copies(services: Services, signed: SignedManifest) -> None:
    """Asks further nodes to keep the task, if it has fewer complete holders than it wants."""
    holders = await services.announcer.holders(signed.task_id, ASK_TIMEOUT_S)
    complete = sorted(holder.node_id for holder in holders.known if holder.complete)
    if not complete or complete[0] != services.me:
        return
    missing = signed.manifest.copies - len(complete)
    for node in _places(services, signed.task_id, complete) if missing > 0 else ():
        if missing <= 0:
            return
        missing -= await _promises(services, node, signed)


def _places(services: Services, task_id: TaskId, holders: list[NodeId]) -> list[NodeId]:
    able = {
        member.node_id: member.zone
        for member in services.membership.members()
        if member.state == "alive" and "peer" in member.roles and member.node_id not in holders
    }
    return next_places(task_id, able, (_zone(services, holder) for holder in holders))


def _zone(services: Services, node: NodeId) -> str:
    member = services.membership.member(node)
    return "" if member is None else member.zone


async def drop_surplus(services: Services, stored: StoredTask) -> bool:
    """Drops this node's copy if it is but a replica, and enough others have one. Whether it did.

    The keepers give leave to one holder after the other, so that too few never stay.
    """
    task_id, copies = stored.task_id, stored.copies
    holders = await services.announcer.holders(task_id, ASK_TIMEOUT_S)
    others = [one.node_id for one in holders.known if one.complete and one.node_id != services.me]
    zones = (_zone(services, node) for node in others)
    if not is_spare(_zone(services, services.me), zones, copies):
        return False
    return await may_drop(services, task_id, others=copies) and await evict(services, task_id)


async def _promises(services: Services, node: NodeId, signed: SignedManifest) -> bool:
    try:
        await services.links.request(
            node, KeepCopy(manifest=signed.signed), CopyPromised, ASK_TIMEOUT_S
        )
    except GossipcacheError:
        return False
    return True


class CopyDuty:
    """A node's part in it: what it promised to others, and what it holds first."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._promise, self._promises = trio.open_memory_channel[SignedManifest](MAX_PROMISES)
        services.links.handle(KeepCopy, self._on_keep_copy)

    async def run(self) -> None:
        """Keeps promises and sees to copies until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(FETCHES_AT_ONCE):
                nursery.start_soon(self._keep_promises)
            while True:
                seen = self._services.membership.version
                await self._review()
                with trio.move_on_after(REVIEW_INTERVAL_S):
                    await self._services.membership.wait_change(seen)
                await trio.sleep(SETTLE_S)

    async def _review(self) -> None:
        complete = [one for one in self._services.store.replicated() if one.complete]
        await each(complete, self._review_one, at_once=REVIEWS_AT_ONCE)

    async def _review_one(self, stored: StoredTask) -> None:
        try:
            if not (_is_droppable(stored) and await drop_surplus(self._services, stored)):
                await restore_copies(self._services, stored.signed)
        except GossipcacheError:
            self._services.metrics.count("copy_reviews_failed")

    async def _on_keep_copy(self, _peer: Peer, message: KeepCopy) -> CopyPromised:
        signed = open_manifest(message.manifest, self._services.cluster.cluster_id)
        if signed.manifest.copies < 2:
            raise NotPermitted("the task's publisher asked for no further copy")
        await self._check_record(signed)
        try:
            self._promise.send_nowait(signed)
        except trio.WouldBlock:
            raise Busy("this node has promised to keep many copies already") from None
        return CopyPromised()

    async def _check_record(self, signed: SignedManifest) -> None:
        """What fills this node's disk must be a task that the keepers know."""
        record = await self._services.records.read(signed.task_id, timeout_s=ASK_TIMEOUT_S)
        standing = None if record is None else record.manifest
        if standing is None or standing.name != signed.name:
            raise NotPermitted("the record keepers know no such task")

    async def _keep_promises(self) -> None:
        async for signed in self._promises.clone():
            with trio.move_on_after(FETCH_TIMEOUT_S):
                try:
                    await self._keep(signed)
                except (GossipcacheError, OSError):
                    self._services.metrics.count("copies_not_kept")

    async def _keep(self, signed: SignedManifest) -> None:
        store = self._services.store
        before = store.find(signed.task_id)
        await fetch(self._services, signed)
        if before is None:
            work = partial(store.mark_replica, signed.task_id)
            await self._services.env.workers.run(work)


def _is_droppable(stored: StoredTask) -> bool:
    return stored.replica and not stored.pinned
