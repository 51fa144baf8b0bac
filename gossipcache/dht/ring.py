"""The consistent-hash ring: which schedulers keep the record of a task.

Each scheduler stands at 320 points, ordered by (64-bit hash, node id). A task's keepers are the
first distinct nodes met clockwise from the first 64 bits of its id (Karger et al., 1997). So many
points keep the largest arc share of ten nodes below 1.10 times the mean; `python -m sim ring`
measures it.

The points are two packed arrays, hashes and owners, so that a change copies memory instead of
objects: a join or a leave at 500 nodes takes about a millisecond.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator
from functools import cached_property, lru_cache
from itertools import chain

from gossipcache.ids import NodeId, TaskId

POINTS_PER_NODE = 320
EPOCH_BYTES = 16
_HASH_BYTES = 8
_BLOCK = struct.Struct(">8Q")
_SLOT_BITS = 32
_MAX_RECENT = 1024
"""Keepers that are remembered: a task's are asked for some ten times within a moment."""
_FULL_TURN = 2**64
_FREE = NodeId(b"")
"""Stands in the slot of a node that left, until another takes it."""


class Ring:
    """An immutable ring of nodes; two rings of the same nodes give the same answers.

    Its points are placed when first asked for: while a cluster forms, most rings are followed by
    the next before anyone looks a task up.
    """

    def __init__(self, members: Iterable[NodeId] = (), *, near: _Points | None = None) -> None:
        """`near`: points of a similar ring, which those of this one are made from."""
        self.members: tuple[NodeId, ...] = tuple(sorted(set(members)))
        self._near = near
        self._recent: dict[tuple[TaskId, int], tuple[NodeId, ...]] = {}

    @cached_property
    def epoch(self) -> bytes:
        """16 bytes that name this set of members."""
        joined = b"".join(self.members)
        return hashlib.blake2b(joined, digest_size=EPOCH_BYTES, person=b"gossipcache/epch").digest()

    @cached_property
    def _points(self) -> _Points:
        near, self._near = self._near, None
        return _Points.of(self.members) if near is None else near.changed_to(self.members)

    def keepers(self, task_id: TaskId, count: int) -> tuple[NodeId, ...]:
        """The owner of `task_id` and its replicas: `count` distinct nodes, or all if fewer."""
        found = self._recent.get((task_id, count))
        if found is None:
            found = self._keepers_at(int.from_bytes(task_id[:_HASH_BYTES], "big"), count)
            if len(self._recent) == _MAX_RECENT:
                self._recent.clear()
            self._recent[task_id, count] = found
        return found

    def _keepers_at(self, position: int, count: int) -> tuple[NodeId, ...]:
        points = self._points
        owners, slots = points.owners, points.slots
        wanted = min(count, len(self.members))
        found: list[int] = []
        index = bisect_left(points.hashes, position)
        while len(found) < wanted:
            if index == len(owners):
                index = 0
            if owners[index] not in found:
                found.append(owners[index])
            index += 1
        return tuple([slots[slot] for slot in found])

    def sharing_gains(
        self, node: NodeId, before: Ring, count: int, lost: Container[NodeId] = ()
    ) -> list[NodeId]:
        """Who of this ring keeps some task that `node`, a member, keeps on this ring, and on the
        ring `before` did not keep, or kept with one of the `lost`; by id. All of this ring's nodes
        are on `before`, so that who kept such a task there and is here still keeps it."""
        found: set[NodeId] = set()
        present = frozenset(self.members)
        for index in before._points.gained_by(node, present, count, whole=bool(lost)):
            kept = before._points.distinct_from(index, count)
            if node not in kept or any(keeper in lost for keeper in kept):
                found.update(before._points.distinct_from(index, count, among=present))
        return sorted(found - {node})

    def place(self) -> None:
        """Places the points now, not when they are first asked for."""
        _ = self._points

    def shares(self) -> dict[NodeId, float]:
        """The part of all task ids that each member owns; the parts add up to 1."""
        if len(self.members) == 1:
            return {self.members[0]: 1.0}
        points = self._points
        arcs = dict.fromkeys(self.members, 0)
        previous = points.hashes[-1] if points.hashes else 0
        for position, slot in zip(points.hashes, points.owners, strict=True):
            arcs[points.slots[slot]] += (position - previous) % _FULL_TURN
            previous = position
        return {node: arc / _FULL_TURN for node, arc in arcs.items()}

    def with_members(self, members: Iterable[NodeId]) -> Ring:
        """The ring of `members`, made from this one by merging in only what changed."""
        wanted = set(members)
        if len(wanted) == len(self.members) and wanted.issuperset(self.members):
            return self
        placed = "_points" in self.__dict__
        return Ring(wanted, near=self._points if placed else self._near)


class _Points:
    """Where the nodes of a ring stand: packed, and never altered once made."""

    def __init__(self, slots: list[NodeId], hashes: array[int], owners: array[int]) -> None:
        self.slots, self.hashes, self.owners = slots, hashes, owners

    @classmethod
    @lru_cache(maxsize=2)
    def of(cls, members: tuple[NodeId, ...]) -> _Points:
        """The points of `members`, which are sorted. Nodes of one process share them."""
        # Slots in the order of ids, so that points of equal hash are sorted by node id.
        points = sorted(
            point << _SLOT_BITS | slot
            for slot, node in enumerate(members)
            for point in _hashes_of(node)
        )
        return cls(
            list(members),
            array("Q", (point >> _SLOT_BITS for point in points)),
            array("I", (point & (1 << _SLOT_BITS) - 1 for point in points)),
        )

    def changed_to(self, members: tuple[NodeId, ...]) -> _Points:
        """The points of `members`, made from these if most stay."""
        wanted, present = set(members), set(self.slots) - {_FREE}
        joined, gone = sorted(wanted - present), sorted(present - wanted)
        if 4 * (len(joined) + len(gone)) >= len(wanted):
            return _Points.of(members)
        changed = _Points(self.slots, self.hashes, self.owners)
        changed._remove(gone)
        changed._insert(joined)
        return changed

    def gained_by(
        self, node: NodeId, present: frozenset[NodeId], count: int, *, whole: bool
    ) -> Iterator[int]:
        """The points up to which `node` is among the first `count` of those `present`, and not
        among the first of all; with `whole` also those where it is among the first of all."""
        slot = self.slots.index(node)
        gone = {number for number, each in enumerate(self.slots) if each not in present}
        for point in _hashes_of(node):
            index = self._index_of(point, slot)
            between: set[int] = set()
            while len(between - gone if gone else between) < count:
                if whole or len(between) >= count:
                    yield index % len(self.owners)
                index -= 1
                if self.owners[index] == slot:
                    break
                between.add(self.owners[index])

    def distinct_from(
        self, index: int, count: int, among: frozenset[NodeId] | None = None
    ) -> list[NodeId]:
        """The first `count` distinct nodes from a point on, of those `among`, or all if fewer."""
        found: list[NodeId] = []
        met: set[int] = set()
        for place in chain(range(index, len(self.owners)), range(index)):
            owner = self.owners[place]
            if owner not in met:
                met.add(owner)
                if among is None or self.slots[owner] in among:
                    found.append(self.slots[owner])
                    if len(found) == count:
                        break
        return found

    def _index_of(self, point: int, slot: int) -> int:
        index = bisect_left(self.hashes, point)
        while self.owners[index] != slot:
            index += 1
        return index

    def _remove(self, gone: list[NodeId]) -> None:
        slots = list(self.slots)
        slot_of = {node: slot for slot, node in enumerate(slots)}
        places = []
        for node in gone:
            slot = slot_of[node]
            slots[slot] = _FREE
            places += [self._index_of(point, slot) for point in _hashes_of(node)]
        hashes, owners = array("Q"), array("I")
        start = 0
        for index in sorted(places):
            hashes += self.hashes[start:index]
            owners += self.owners[start:index]
            start = index + 1
        self.slots = slots
        self.hashes = hashes + self.hashes[start:]
        self.owners = owners + self.owners[start:]

    def _insert(self, joined: list[NodeId]) -> None:
        slots = list(self.slots)
        free = [slot for slot, node in enumerate(slots) if node == _FREE]
        additions: list[tuple[int, NodeId, int]] = []
        for node in joined:
            if free:
                slot = free.pop()
                slots[slot] = node
            else:
                slot = len(slots)
                slots.append(node)
            additions += [(point, node, slot) for point in _hashes_of(node)]
        hashes, owners = array("Q"), array("I")
        start = 0
        for point, node, slot in sorted(additions):
            index = self._place(point, node, start)
            hashes += self.hashes[start:index]
            owners += self.owners[start:index]
            hashes.append(point)
            owners.append(slot)
            start = index
        self.slots = slots
        self.hashes = hashes + self.hashes[start:]
        self.owners = owners + self.owners[start:]

    def _place(self, point: int, node: NodeId, start: int) -> int:
        index = bisect_left(self.hashes, point, start)
        while (
            index < len(self.hashes)
            and self.hashes[index] == point
            and self.slots[self.owners[index]] < node
        ):
            index += 1
        return index


def _hashes_of(node: NodeId) -> list[int]:
    hashes: list[int] = []
    for block in range(POINTS_PER_NODE * _HASH_BYTES // _BLOCK.size):
        digest = hashlib.blake2b(
            node + block.to_bytes(2, "big"), digest_size=64, person=b"gossipcache/ring"
        ).digest()
        hashes += _BLOCK.unpack(digest)
    return hashes
