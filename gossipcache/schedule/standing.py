"""How nodes have done as parents of late: load, measured rate, complaints."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from math import inf

from gossipcache.deviation import SLOW_SHARE
from gossipcache.ids import NodeId

RATE_GAIN = 0.3
"""Weight of the newest measurement in the moving average."""
LITTLE = 0.5
"""Of what a child usually gets of a parent: one that gives it less is to blame itself."""
COMPLAINT_MEMORY_S = 60.0
MAX_COMPLAINERS = 16
MAX_NODES = 20_000


@dataclass(slots=True)
class _Record:
    rate_bytes_s: float | None = None
    taken_bytes_s: float | None = None
    """What it gets of one of its own parents, as a child."""
    complaints: dict[NodeId, float] = field(default_factory=dict)
    """Complainer → when it last complained (monotonic s)."""


class Standings:
    """The parents' records, across all tasks of this keeper; the longest unused are forgotten.

    What children say of a parent may be a lie, so complaints count by the number of different
    children that make them.
    """

    def __init__(self) -> None:
        self._records: OrderedDict[NodeId, _Record] = OrderedDict()

    def measured(self, parent: NodeId, child: NodeId, size_bytes: int, elapsed_s: float) -> None:
        """`child` got `size_bytes` from `parent` in `elapsed_s`. That does not count where it gets
        by far less of everybody than `parent` gives to others: its own link is slow."""
        if size_bytes <= 0 or elapsed_s <= 0:
            return
        rate = size_bytes / elapsed_s
        giver, taker = self._record(parent), self._record(child)
        usual = taker.taken_bytes_s or inf
        taker.taken_bytes_s = _average(taker.taken_bytes_s, rate)
        is_slow = usual < SLOW_SHARE * (giver.rate_bytes_s or 0.0)
        if not (is_slow and rate >= LITTLE * usual):
            giver.rate_bytes_s = _average(giver.rate_bytes_s, rate)

    def complained(self, parent: NodeId, child: NodeId, now: float) -> None:
        """A child met failures of `parent`."""
        complaints = self._record(parent).complaints
        complaints.pop(child, None)
        complaints[child] = now
        if len(complaints) > MAX_COMPLAINERS:
            del complaints[next(iter(complaints))]

    def rate_bytes_s(self, parent: NodeId) -> float | None:
        """The moving average of what one child gets from `parent`; None: not measured."""
        record = self._records.get(parent)
        return record.rate_bytes_s if record is not None else None

    def complainers(self, parent: NodeId, now: float) -> int:
        """How many different children complained within the last minute."""
        record = self._records.get(parent)
        if record is None:
            return 0
        return sum(1 for at in record.complaints.values() if now - at < COMPLAINT_MEMORY_S)

    def forget(self, parent: NodeId) -> None:
        """The node is gone; if it comes back it starts anew."""
        self._records.pop(parent, None)

    def _record(self, parent: NodeId) -> _Record:
        record = self._records.setdefault(parent, _Record())
        self._records.move_to_end(parent)
        if len(self._records) > MAX_NODES:
            self._records.popitem(last=False)
        return record


def _average(old: float | None, rate: float) -> float:
    return rate if old is None else old + RATE_GAIN * (rate - old)
