"""How evenly the ring spreads tasks, what a change of members moves, and what both cost.

No cluster is run: rings are made of random node ids. Times are processor time, so that they
hold on a busy machine too.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass

from gossipcache.dht.ring import Ring
from gossipcache.ids import NODE_ID_BYTES, TASK_ID_BYTES, NodeId, TaskId

PEAK_BOUNDS = {10: 1.10, 100: 1.18, 500: 1.21}
"""Schedulers → the largest arc share that is allowed, over the mean share."""
LOOKUP_BOUND_US = 5.0
CHANGE_BOUND_MS = 5.0
_REPLICAS = 3
_TASKS = 100


@dataclass(frozen=True, slots=True)
class Balance:
    """What was measured over many rings of as many schedulers each."""

    schedulers: int
    rings: int
    peak_over_mean: float
    """The mean, over the rings, of the largest share over the mean share."""
    strayed: int
    """Tasks, or arc shares, that a join or a leave moved between nodes that stayed."""
    lookup_us: float
    change_ms: float
    """One join or leave (median)."""

    @property
    def missed(self) -> list[str]:
        """Which bounds do not hold."""
        bound = PEAK_BOUNDS.get(self.schedulers, float("inf"))
        found = {
            f"peak/mean {self.peak_over_mean:.3f} > {bound}": self.peak_over_mean > bound,
            f"{self.strayed} moved between nodes that stayed": self.strayed > 0,
            f"lookup {self.lookup_us:.1f} µs > {LOOKUP_BOUND_US}": self.lookup_us > LOOKUP_BOUND_US,
            f"change {self.change_ms:.1f} ms > {CHANGE_BOUND_MS}": self.change_ms > CHANGE_BOUND_MS,
        }
        return [what for what, holds in found.items() if holds]


def measure(schedulers: int, rings: int, seed: int) -> Balance:
    """Draws `rings` rings from `seed`; of each one node leaves, and comes back."""
    rng = random.Random(seed)
    peaks: list[float] = []
    changes_s: list[float] = []
    lookups_s: list[float] = []
    strayed = 0
    for _ in range(rings):
        ring = Ring(NodeId(rng.randbytes(NODE_ID_BYTES)) for _ in range(schedulers))
        tasks = [TaskId(rng.randbytes(TASK_ID_BYTES)) for _ in range(_TASKS)]
        gone = rng.choice(ring.members)
        peaks.append(max(ring.shares().values()) * schedulers)
        started = time.process_time()
        without = _changed(ring, [node for node in ring.members if node != gone])
        left = time.process_time()
        back = _changed(without, ring.members)
        changes_s += [left - started, time.process_time() - left]
        strayed += _strayed(ring, without, gone, tasks) + _strayed(back, without, gone, tasks)
        started = time.process_time()
        for task_id in tasks:
            ring.keepers(task_id, _REPLICAS)
        lookups_s.append((time.process_time() - started) / len(tasks))
    return Balance(
        schedulers,
        rings,
        statistics.mean(peaks),
        strayed,
        1e6 * statistics.median(lookups_s),
        1e3 * statistics.median(changes_s),
    )


def _changed(ring: Ring, members: Iterable[NodeId]) -> Ring:
    """The ring after a change, its points placed, which the first look-up does."""
    changed = ring.with_members(members)
    changed.keepers(TaskId(bytes(TASK_ID_BYTES)), _REPLICAS)
    return changed


def _strayed(larger: Ring, smaller: Ring, node: NodeId, tasks: list[TaskId]) -> int:
    """What differs between the two rings though `node`, the only one that is not on both, does
    not explain it."""
    shares = larger.shares()
    shrunk = sum(share < shares[member] for member, share in smaller.shares().items())
    moved = 0
    for task_id in tasks:
        stayed = [keeper for keeper in larger.keepers(task_id, _REPLICAS) if keeper != node]
        moved += stayed != list(smaller.keepers(task_id, len(stayed)))
    return shrunk + moved
