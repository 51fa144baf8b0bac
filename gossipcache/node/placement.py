"""Where copies of a task belong: in different zones first, then spread by a hash. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping

from gossipcache.ids import NodeId, TaskId


def next_places(
    task_id: TaskId, able: Mapping[NodeId, str], holders: Iterable[str]
) -> list[NodeId]:
    """The nodes of `able` (with their zones) in the order in which to ask them for a copy, where
    `holders` are the zones of those who have one.

    First the zones with the fewest copies; within a zone by a hash over task and node, so that
    tasks spread.
    """
    counts = Counter(holders)
    left = sorted(able, key=lambda node: _rank(task_id, node))
    chosen: list[NodeId] = []
    while left:
        node = min(left, key=lambda node: counts[able[node]])
        left.remove(node)
        counts[able[node]] += 1
        chosen.append(node)
    return chosen


def is_spare(zone: str, others: Iterable[str], copies: int) -> bool:
    """Whether a copy in `zone` may go where `others` (their zones) have one, so that `copies` are
    left and stand in as many zones as before, or as many as there are to be copies."""
    zones = list(others)
    return len(zones) >= copies and (zone in zones or len(set(zones)) >= copies)


def _rank(task_id: TaskId, node: NodeId) -> bytes:
    return hashlib.blake2b(task_id + node, digest_size=8).digest()
