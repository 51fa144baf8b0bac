"""What a download has asked for: in flight, or received and being checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gossipcache.ids import NodeId
from gossipcache.transfer.download.picker import Picker


@dataclass(slots=True)
class Request:
    """One piece asked of one parent."""

    request_id: int
    parent: NodeId
    slot: int
    index: int
    size: int
    asked_at: float
    released: bool = False
    """Others may fetch the piece too, for this parent stalls, or makes it wait."""


class Requests:
    """All requests of one download; tells the picker what is still to be asked for."""

    def __init__(self, picker: Picker) -> None:
        self.in_flight: dict[int, Request] = {}
        """By request id, oldest first; so in `checking`."""
        self.checking: dict[int, Request] = {}
        self._picker = picker
        self._last_id = 0

    def __len__(self) -> int:
        return len(self.in_flight) + len(self.checking)

    def begin(self, parent: NodeId, slot: int, index: int, size: int, now: float) -> Request:
        """A piece that the picker has claimed is asked for."""
        self._last_id += 1
        request = Request(self._last_id, parent, slot, index, size, asked_at=now)
        self.in_flight[request.request_id] = request
        return request

    def owes(self, node: NodeId, request_id: int) -> bool:
        """Whether this parent is to answer this request."""
        request = self.in_flight.get(request_id)
        return request is not None and request.parent == node

    def received(self, request: Request) -> None:
        """The piece of a request that was in flight is to be checked."""
        self.checking[request.request_id] = request
        self._picker.reclaim(request.index)
        request.released = False

    def others(self, request: Request) -> list[Request]:
        """What else is in flight for the same piece."""
        index = request.index
        return [one for one in self.in_flight.values() if one.index == index and one != request]

    def release(self, request: Request, *, is_late: bool = False) -> None:
        """Others may be asked for the piece as well, or instead: after pieces that nobody was asked
        for, unless it is late."""
        request.released = True
        index = request.index
        asked = [other for other in self.in_flight.values() if other.index == index]
        checked = [other for other in self.checking.values() if other.index == index]
        if all(other.released for other in (*asked, *checked)):
            self._picker.release(index, is_asked=bool(asked) and not is_late)

    def reclaim(self, requests: Iterable[Request]) -> None:
        """Those who were asked are relied on again, where nobody else was asked meanwhile."""
        for request in requests:
            if request.released and self._picker.reclaim(request.index):
                request.released = False
