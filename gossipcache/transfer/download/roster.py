"""Which parents a download has, and which it could have."""

from __future__ import annotations

from collections.abc import Iterator

from gossipcache.config import TransferConfig
from gossipcache.ids import NodeId
from gossipcache.transfer.download.endgame import LATE_S
from gossipcache.transfer.download.events import OpenParent
from gossipcache.transfer.download.parent import Parent
from gossipcache.transfer.download.retries import Retries


class Roster:
    """The parents of one download that are open or being opened, and the assigned ones."""

    def __init__(self, config: TransferConfig) -> None:
        self.parents: dict[NodeId, Parent] = {}
        self._assigned: tuple[NodeId, ...] = ()
        """Best first."""
        self.retries = Retries()
        self._config = config

    def assign(self, parents: tuple[NodeId, ...]) -> None:
        """These and no others are assigned from now on, best first."""
        self._assigned = parents
        for parent in self.parents.values():
            parent.draining = False

    @property
    def is_settled(self) -> bool:
        """Whether the assigned parents, and no others, are open or being opened: until that or the
        assignment changes there is nobody to open, to close, or to wait for."""
        return self.parents.keys() == set(self._assigned)

    def retry_times(self) -> Iterator[float]:
        """When the pauses of assigned parents end that there is room for."""
        if len(self.parents) < self._most:
            for node in self._assigned:
                until = None if node in self.parents else self.retries.wait_until(node)
                if until is not None:
                    yield until

    def replaceable(self, now: float) -> list[Parent]:
        """Parents to be closed now. Those no longer assigned work on, unless assigned ones wait for
        their places: then they give what they owe, if that comes soon."""
        surplus = len(self.parents) - self._most
        surplus += sum(self._may_open(node, now) for node in self._assigned)
        for parent in self.parents.values():
            parent.draining = surplus > 0 and parent.node not in self._assigned
            surplus -= parent.draining
        draining = [parent for parent in self.parents.values() if parent.draining]
        return [one for one in draining if not one.requests or not one.gives_within(LATE_S)]

    def open(self, missing: int, now: float) -> Iterator[OpenParent]:
        """Opens assigned parents, as many as there is room for; so many pieces are `missing`."""
        # Two connections make the most of a single parent. Where several give, each has other
        # children too, and a piece takes the longer the more connections share an uplink.
        few = missing <= self._config.pipeline_depth or len(self._assigned) > 1
        connections = 1 if few else self._config.connections_per_parent
        for node in self._assigned:
            if len(self.parents) >= self._most:
                break
            if self._may_open(node, now):
                window = self._config.pipeline_depth * connections
                self.parents[node] = Parent(node, window, progress_at=now)
                yield OpenParent(node, connections)

    @property
    def _most(self) -> int:
        """How many may be open: the owner may assign more where a download has fallen behind."""
        return max(self._config.max_active_parents, len(self._assigned))

    def _may_open(self, node: NodeId, now: float) -> bool:
        return node not in self.parents and self.retries.may_open(node, now)
