"""When nothing is left to ask for: what idle parents could take over from slower ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from gossipcache.ids import NodeId
from gossipcache.transfer.download.parent import Parent
from gossipcache.transfer.download.picker import Picker
from gossipcache.transfer.download.requests import Request

LATE_S = 1.0
"""A request is not called late before this age."""
_UNPROVEN_LATE_S = 0.5
"""The same where its parent has given nothing yet, and another one has."""
_GAIN = 2.0
"""A piece in flight is asked for again where it comes this many times sooner."""
_OFFERING_GAIN = 4.0
"""A parent that merely offers its pieces is asked for one after this many times what it takes."""


def late_requests(
    idle: Parent,
    in_flight: Sequence[Request],
    parents: Mapping[NodeId, Parent],
    picker: Picker,
) -> Iterator[tuple[float, Request]]:
    """What `idle` could take over, and from when on that pays; of one parent newest first. No
    piece is asked of more than two."""
    asked = Counter(request.index for request in in_flight)
    for request in reversed(in_flight):
        single = asked[request.index] == 1 and request.parent != idle.node
        offers = picker.is_offering(idle.node)
        if single and (offers or picker.has(idle.node, request.index)):
            yield _late_at(request, parents[request.parent], idle, offers=offers), request


def _late_at(request: Request, owing: Parent, idle: Parent, *, offers: bool) -> float:
    drain_s = owing.drain_s()
    here_s = idle.piece_s(request.size) or owing.piece_s(request.size)
    gain = _OFFERING_GAIN if offers else _GAIN
    if drain_s > gain * here_s > 0:
        return 0.0
    is_unproven = idle.meter.rate is not None and owing.meter.rate is None
    least_s = _UNPROVEN_LATE_S if is_unproven else LATE_S
    return request.asked_at + max(least_s, gain * max(drain_s, here_s))
