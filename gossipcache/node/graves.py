"""What this node remembers of deletions, offered to keepers that may have lost them.

When a keeper of a deleted task is new on this node's ring, at the node's own start too, it is
told that there is something to ask for (`dht.records.recall`).
"""

from __future__ import annotations

import trio

from gossipcache.dht.ring import Ring
from gossipcache.errors import GossipcacheError
from gossipcache.ids import NodeId
from gossipcache.messages.graves import GravesHere
from gossipcache.node.services import Services

RETRY_S = 1.0
_LOOKUPS_AT_ONCE = 1000


async def tell_of_graves(services: Services) -> None:
    """Runs for as long as the node."""
    membership = services.membership
    told = Ring()
    owed: dict[NodeId, None] = {}
    while True:
        seen = membership.version
        ring = membership.ring
        if ring.epoch != told.epoch:
            owed |= await _new_keepers(services, told, ring)
            told = ring
        for keeper in list(owed):
            if keeper not in ring.members or await _told(services, keeper):
                del owed[keeper]
        with trio.move_on_after(RETRY_S if owed else float("inf")):
            await membership.wait_change(seen)


async def _new_keepers(services: Services, before: Ring, now: Ring) -> dict[NodeId, None]:
    """The keepers of deleted tasks that were not yet keepers of the same task `before`."""
    count = services.config.records.replicas
    found: dict[NodeId, None] = {}
    for number, task_id in enumerate(sorted(services.store.dead_generations()), start=1):
        known = before.keepers(task_id, count)
        found |= {
            keeper: None
            for keeper in now.keepers(task_id, count)
            if keeper not in known and keeper != services.me
        }
        if number % _LOOKUPS_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    return found


async def _told(services: Services, keeper: NodeId) -> bool:
    try:
        await services.links.notify(keeper, GravesHere())
    except GossipcacheError:
        return False
    return True
