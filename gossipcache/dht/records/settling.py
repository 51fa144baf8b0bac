"""Whether a keeper may say "absent": has it all that it should have of a task's range?

It has once it compared its entries, on the present ring, with every other alive scheduler. Nodes
that leave take nothing along that a keeper had, and move it only forward in the lists of
keepers; so for tasks that it kept already it stays settled. Nodes that come may bring records.
Where a task lost all its keepers at once, holders are given some seconds to rebuild the record.
"""

from __future__ import annotations

from gossipcache.config import RecordConfig
from gossipcache.dht.ring import Ring
from gossipcache.ids import NodeId, TaskId

_MAX_PAST_RINGS = 8


class Settling:
    """The ring as the records see it, always with `me` on it, and how far it is synced."""

    def __init__(self, me: NodeId, ring: Ring, config: RecordConfig, now: float) -> None:
        self._me = me
        self._config = config
        self.ring = self._with_me(ring)
        self._settled: Ring | None = None
        self._unsettled_since = now
        self._past: list[tuple[Ring, float]] = []
        """Rings of the last seconds, with the time until which they matter."""
        self.settle_if_alone()

    def _with_me(self, ring: Ring) -> Ring:
        return ring if self._me in ring.members else ring.with_members((*ring.members, self._me))

    @property
    def settled(self) -> bool:
        """Whether the whole present ring is synced."""
        return self._settled is not None and self._settled.epoch == self.ring.epoch

    def set_ring(self, ring: Ring, now: float) -> None:
        """Takes the ring of the ACTIVE schedulers."""
        ring = self._with_me(ring)
        if ring.epoch == self.ring.epoch:
            return
        if self.settled:
            self._unsettled_since = now
        if set(ring.members) - set(self.ring.members):
            self._settled = None
        self._past.append((self.ring, now + self._config.recovery_s))
        del self._past[:-_MAX_PAST_RINGS]
        self.ring = ring
        self.settle_if_alone()

    def settle_if_alone(self) -> None:
        """A lone keeper has nobody to ask."""
        if self.ring.members == (self._me,):
            self._settled = self.ring

    def settle(self, epoch: bytes) -> None:
        """Says that all alive schedulers were compared with on the ring `epoch`."""
        if epoch == self.ring.epoch:
            self._settled = self.ring

    def gives_up_at(self) -> float:
        """When it settles even though some scheduler could not be compared with."""
        return self._unsettled_since + self._config.recovery_s

    def is_settled(self, task_id: TaskId, now: float) -> bool:
        """Whether the keeper has what there is of `task_id`."""
        count = self._config.replicas
        if self._settled is None or self._me not in self._settled.keepers(task_id, count):
            return False
        present = self.ring.members
        return not any(
            now < until and not any(node in present for node in past.keepers(task_id, count))
            for past, until in self._past
        )
