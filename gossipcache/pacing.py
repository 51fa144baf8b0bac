"""Token buckets, and what they let through.

A bucket is filled at a rate and holds so much; who takes from it may overdraw it, and waits
until his debt is paid (the "debt" form of the token bucket of RFC 2697). Debts are paid in the
order they were made, so that whoever shares a bucket gets his turn. Sans-IO: times are
monotonic seconds.
"""

from __future__ import annotations

from weakref import WeakValueDictionary

from gossipcache.ids import TaskId

BURST_S = 0.25
"""What a limited direction may catch up of the time in which nobody used it."""
SLICE_BYTES = 64 * 1024
"""A piece that is sent under a limit goes out in slices of this size, so that a child sees a slow
parent and not a stalled one."""


class TokenBucket:
    """`rate` tokens a second (None: as many as you like), `burst` at most."""

    def __init__(self, rate: float | None, burst: float) -> None:
        self.rate = rate
        self.taken = 0.0
        """All that was ever taken: the debt that one taker has made ends here."""
        self._burst = burst
        self._earned = burst
        self._earned_at: float | None = None

    def take(self, amount: float, now: float) -> float:
        """Takes `amount`; returns the seconds until the bucket is no longer overdrawn."""
        self._earn(now)
        self.taken += amount
        if self.rate is None:
            self._earned = max(self._earned, self.taken)
        return max(0.0, self.paid_at(self.taken) - now)

    def paid_at(self, mark: float) -> float:
        """When all that was taken up to `mark` (a former `taken`) is paid for."""
        owed = mark - self._earned
        if owed < 1e-6 or self.rate is None or self._earned_at is None:
            return float("-inf")
        return self._earned_at + owed / self.rate

    def change(self, rate: float | None, burst: float, now: float) -> None:
        """Another rate from now on. What is owed is paid by it; no limit forgives it."""
        self._earn(now)
        self.rate, self._burst = rate, burst
        if rate is None:
            self._earned = max(self._earned, self.taken)

    def _earn(self, now: float) -> None:
        if self._earned_at is not None and self.rate is not None:
            self._earned += (now - self._earned_at) * self.rate
        self._earned_at = now
        self._earned = min(self._earned, self.taken + self._burst)


class Pace:
    """How fast one transfer may go: as the slowest of its buckets says."""

    def __init__(self, *buckets: TokenBucket) -> None:
        self._buckets = buckets
        self._marks = [0.0] * len(buckets)

    @property
    def is_limited(self) -> bool:
        """Whether any bucket has a rate."""
        return any(bucket.rate is not None for bucket in self._buckets)

    def take(self, size_bytes: int, now: float) -> None:
        """Takes `size_bytes` from every bucket."""
        for position, bucket in enumerate(self._buckets):
            bucket.take(size_bytes, now)
            self._marks[position] = bucket.taken

    def paid_at(self) -> float:
        """When what this transfer has taken is paid for; later if a limit falls meanwhile."""
        marked = zip(self._buckets, self._marks, strict=True)
        return max((bucket.paid_at(mark) for bucket, mark in marked), default=float("-inf"))


class Direction:
    """What a node sends, or what it receives: a bucket for all, and one for each task.

    Rates are bytes a second, None for no limit.
    """

    def __init__(self, rate: int | None = None, task_rate: int | None = None) -> None:
        """`task_rate`: of every task for which `set_task_rate` has said nothing else."""
        self.task_rates: dict[TaskId, int | None] = {}
        """What was said of single tasks."""
        self.rate = rate
        """Of all tasks together. Set it by `set_rate`; so for the next."""
        self.task_rate = task_rate
        """Of a task by itself, unless `task_rates` says something else."""
        self._all = TokenBucket(rate, _burst(rate))
        self._tasks: WeakValueDictionary[TaskId, TokenBucket] = WeakValueDictionary()

    def pace(self, task_id: TaskId) -> Pace:
        """The pace of one more transfer of `task_id`."""
        bucket = self._tasks.get(task_id)
        if bucket is None:
            rate = self.rate_of(task_id)
            bucket = self._tasks[task_id] = TokenBucket(rate, _burst(rate))
        return Pace(self._all, bucket)

    def set_rate(self, rate: int | None, now: float) -> None:
        """Another rate for all tasks together; transfers under way follow it."""
        self.rate = rate
        self._all.change(rate, _burst(rate), now)

    def set_default(self, task_rate: int | None, now: float) -> None:
        """Another rate for every task of which nothing else was said."""
        self.task_rate = task_rate
        for task_id in list(self._tasks):
            self._apply(task_id, now)

    def set_task_rate(self, task_id: TaskId, rate: int | None, now: float) -> None:
        """Another rate for one task; None: no limit of its own."""
        self.task_rates[task_id] = rate
        self._apply(task_id, now)

    def forget_task_rate(self, task_id: TaskId, now: float) -> None:
        """What holds for every task holds for this one again."""
        self.task_rates.pop(task_id, None)
        self._apply(task_id, now)

    def rate_of(self, task_id: TaskId) -> int | None:
        """What holds for one task by itself."""
        return self.task_rates.get(task_id, self.task_rate)

    def _apply(self, task_id: TaskId, now: float) -> None:
        bucket = self._tasks.get(task_id)
        if bucket is not None:
            rate = self.rate_of(task_id)
            bucket.change(rate, _burst(rate), now)


def _burst(rate: int | None) -> float:
    return 0.0 if rate is None else max(SLICE_BYTES, rate * BURST_S)
