"""Work on many tasks, a few at a time: what waits is an entry in a queue, no trio task."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import trio

from gossipcache.errors import GossipcacheError
from gossipcache.ids import TaskId

Work = Callable[[], Awaitable[None]]


class Repairs:
    """One kind of work; each task has it done once at a time."""

    def __init__(self, at_once: int, on_failure: Callable[[], None]) -> None:
        """`on_failure` is told of work that ended in a `GossipcacheError`."""
        self._at_once, self._on_failure = at_once, on_failure
        self._running = 0
        self._queue: deque[tuple[TaskId, Work]] = deque()
        self._known: set[TaskId] = set()
        """The tasks that wait, or are worked on."""

    def add(self, nursery: trio.Nursery, task_id: TaskId, work: Work) -> None:
        """Has `work` done for the task, unless the same is under way for it already."""
        if task_id in self._known:
            return
        self._known.add(task_id)
        self._queue.append((task_id, work))
        if self._running < self._at_once:
            self._running += 1
            nursery.start_soon(self._run)

    async def _run(self) -> None:
        try:
            while self._queue:
                task_id, work = self._queue.popleft()
                try:
                    await work()
                except GossipcacheError:
                    self._on_failure()
                finally:
                    self._known.discard(task_id)
        finally:
            self._running -= 1
