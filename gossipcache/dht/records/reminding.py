"""What a node remembers of deletions, brought to the notice of keepers that may have lost them.

When a keeper of a deleted task is new on this node's ring, at the node's own start too, it is
told that there is something to ask for (`recall`).
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from gossipcache.dht.records.graves import Memory
from gossipcache.dht.records.steps import Breathe, Notify, Signal, Steps, clock, wait
from gossipcache.dht.ring import Ring
from gossipcache.errors import GossipcacheError
from gossipcache.ids import NodeId
from gossipcache.messages.graves import GravesHere

RETRY_S = 1.0
_LOOKUPS_AT_ONCE = 1000


class Reminder:
    """The telling side of one node."""

    def __init__(self, me: NodeId, memory: Memory, ring: Callable[[], Ring], replicas: int) -> None:
        self._me = me
        self._memory = memory
        self._ring = ring
        self._replicas = replicas
        self._changed = Signal()

    def on_ring_change(self) -> None:
        """Says that `ring()` may give another ring now."""
        self._changed.set()

    def loop(self) -> Steps[None]:
        """For as long as the node runs."""
        told = Ring()
        owed: dict[NodeId, None] = {}
        while True:
            self._changed.clear()
            ring = self._ring()
            if ring.epoch != told.epoch:
                owed |= yield from self._new_keepers(told, ring)
                told = ring
            for keeper in list(owed):
                if keeper not in ring.members or (yield from self._told(keeper)):
                    del owed[keeper]
            moment = yield from clock()
            yield from wait(self._changed, moment.now + RETRY_S if owed else inf)

    def _new_keepers(self, before: Ring, now: Ring) -> Steps[dict[NodeId, None]]:
        """The keepers of deleted tasks that were not yet keepers of the same task `before`."""
        found: dict[NodeId, None] = {}
        for number, task_id in enumerate(sorted(self._memory.dead_generations()), start=1):
            known = before.keepers(task_id, self._replicas)
            found |= {
                keeper: None
                for keeper in now.keepers(task_id, self._replicas)
                if keeper not in known and keeper != self._me
            }
            if number % _LOOKUPS_AT_ONCE == 0:
                yield Breathe()
        return found

    def _told(self, keeper: NodeId) -> Steps[bool]:
        try:
            yield Notify(keeper, GravesHere())
        except GossipcacheError:
            return False
        return True
