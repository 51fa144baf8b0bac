"""How nodes have done as parents of late: load, measured rate, complaints."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from gossipcache.ids import NodeId

RATE_GAIN = 0.3
"""Weight of the newest measurement in the moving average."""
COMPLAINT_MEMORY_S = 60.0
MAX_COMPLAINERS = 16
MAX_NODES = 20_000


@dataclass(slots=True)
class _Record:
    rate_bytes_s: float | None = None
    complaints: dict[NodeId, float] = field(default_factory=dict)
    """Complainer → when it last complained (monotonic s)."""


class Standings:
    """The parents' records, across all tasks of this keeper; the longest unused are forgotten.

    What children say of a parent may be a lie, so complaints count by the number of different
    children that make them.
    """

    def __init__(self) -> None:
        self._records: OrderedDict[NodeId, _Record] = OrderedDict()

    def measured(self, parent: NodeId, size_bytes: int, elapsed_s: float) -> None:
        """A child got `size_bytes` from `parent` in `elapsed_s`."""
        if size_bytes <= 0 or elapsed_s <= 0:
            return
        record = self._record(parent)
        rate, old = size_bytes / elapsed_s, record.rate_bytes_s
        record.rate_bytes_s = rate if old is None else old + RATE_GAIN * (rate - old)

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
