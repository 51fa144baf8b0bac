"""Which entries two keepers share on a ring, as digests by bucket that are kept up to date.

A bucket's digest is the sum of the hashes of its entries (AdHash; Bellare and Micciancio,
1997): adding and taking away cost one hash. Comparing two keepers costs one digest if they hold
the same, else 4 KiB, however many entries there are. A liar can make the sums hide its own
differences, which it could hide anyway.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from gossipcache.dht.records.standing import Standing
from gossipcache.dht.ring import Ring
from gossipcache.ids import NodeId, TaskId
from gossipcache.messages.records import BUCKET_COUNT, BUCKET_DIGEST_BYTES

_MASK = 2 ** (8 * BUCKET_DIGEST_BYTES) - 1
_EMPTY = bytes(BUCKET_COUNT * BUCKET_DIGEST_BYTES)
_MAX_VIEWS = 4
_FILL_STEP = 500


class SharedView:
    """All entries of one keeper, seen by who else keeps them on one ring."""

    def __init__(self, ring: Ring, replicas: int) -> None:
        self.ring = ring
        self.filled = False
        """Whether all entries are in it; until then only what changed is."""
        self._replicas = replicas
        self._buckets: list[dict[TaskId, tuple[bytes, tuple[NodeId, ...]]]] = [
            {} for _ in range(BUCKET_COUNT)
        ]
        self._sums: dict[NodeId, list[int]] = {}
        self._totals: dict[NodeId, int] = {}
        self._lists: dict[tuple[NodeId, ...], tuple[NodeId, ...]] = {}

    def set(self, task_id: TaskId, version: bytes | None) -> None:
        """Says that the entry of `task_id` now has `version`; None: it is gone."""
        bucket = bucket_of(task_id)
        rows = self._buckets[bucket]
        known = rows.pop(task_id, None)
        keepers = known[1] if known else self._keepers(task_id)
        change = (_weight(task_id, version) if version else 0) - (
            _weight(task_id, known[0]) if known else 0
        )
        for keeper in keepers:
            sums = self._sums.get(keeper)
            if sums is None:
                sums = self._sums[keeper] = [0] * BUCKET_COUNT
            sums[bucket] = (sums[bucket] + change) & _MASK
            self._totals[keeper] = (self._totals.get(keeper, 0) + change) & _MASK
        if version is not None:
            rows[task_id] = (version, keepers)

    def keepers(self, task_id: TaskId) -> tuple[NodeId, ...]:
        """Who keeps `task_id`, owner first."""
        known = self._buckets[bucket_of(task_id)].get(task_id)
        return known[1] if known else self._keepers(task_id)

    def digest(self, peer: NodeId) -> bytes:
        """One digest of all that `peer` keeps too; zero if there is nothing."""
        return self._totals.get(peer, 0).to_bytes(BUCKET_DIGEST_BYTES, "big")

    def sharers(self) -> list[NodeId]:
        """The nodes that keep some of these entries too, in the order of their ids."""
        return sorted(node for node, total in self._totals.items() if total)

    def digests(self, peer: NodeId) -> bytes:
        """Digests of what `peer` keeps too, bucket by bucket."""
        sums = self._sums.get(peer)
        if sums is None:
            return _EMPTY
        return b"".join(one.to_bytes(BUCKET_DIGEST_BYTES, "big") for one in sums)

    def rows(self, peer: NodeId, bucket: int) -> dict[TaskId, bytes]:
        """Task and version of every entry in `bucket` that `peer` keeps too, by task id."""
        rows = self._buckets[bucket]
        return {task_id: rows[task_id][0] for task_id in sorted(rows) if peer in rows[task_id][1]}

    def strays(self, me: NodeId) -> list[TaskId]:
        """The tasks that `me` holds but does not keep, by task id."""
        return sorted(
            task_id
            for rows in self._buckets
            for task_id, (_, keepers) in rows.items()
            if me not in keepers
        )

    def _keepers(self, task_id: TaskId) -> tuple[NodeId, ...]:
        keepers = self.ring.keepers(task_id, self._replicas)
        return self._lists.setdefault(keepers, keepers)


class Views:
    """The views of one keeper on the rings of late, each as current as what it holds."""

    def __init__(self, replicas: int, held: Mapping[TaskId, Standing]) -> None:
        self._replicas = replicas
        self._held = held
        self._views: dict[bytes, SharedView] = {}

    def on(self, ring: Ring) -> SharedView:
        """The view on `ring`; `fill` it before it is used, if it is not filled yet."""
        view = self._views.pop(ring.epoch, None) or SharedView(ring, self._replicas)
        self._views[ring.epoch] = view
        while len(self._views) > _MAX_VIEWS:
            del self._views[next(iter(self._views))]
        return view

    def fill(self, view: SharedView) -> Iterator[None]:
        """Enters all that is held in `view`, in steps between which other work may run."""
        for number, task_id in enumerate(list(self._held)):
            if (standing := self._held.get(task_id)) is not None:
                view.set(task_id, standing.version)
            if number % _FILL_STEP == _FILL_STEP - 1:
                yield
        view.filled = True

    def note(self, task_id: TaskId, version: bytes | None) -> None:
        """Says that the entry of `task_id` now has `version`; None: it is gone."""
        for view in self._views.values():
            view.set(task_id, version)


def differing(one: bytes, other: bytes) -> tuple[int, ...]:
    """The buckets whose digests differ; a missing digest differs."""
    return tuple(
        bucket
        for bucket in range(BUCKET_COUNT)
        if _digest_at(one, bucket) != _digest_at(other, bucket)
    )


def bucket_of(task_id: TaskId) -> int:
    """The bucket of a task: the first byte of its id."""
    return task_id[0]


def _digest_at(digests: bytes, bucket: int) -> bytes:
    return digests[bucket * BUCKET_DIGEST_BYTES : (bucket + 1) * BUCKET_DIGEST_BYTES]


def _weight(task_id: TaskId, version: bytes) -> int:
    digest = hashlib.blake2b(task_id + version, digest_size=BUCKET_DIGEST_BYTES).digest()
    return int.from_bytes(digest, "big")
