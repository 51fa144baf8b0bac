"""Workers that have no threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

import trio

from gossipcache.env import Lane, inline_lane

R = TypeVar("R")


class InlineWorkers:
    """`gossipcache.env.Workers`: runs work at once, after letting others run."""

    async def run(self, work: Callable[[], R]) -> R:
        """Runs `work`."""
        await trio.lowlevel.checkpoint()
        return work()

    async def run_each(self, queue: deque[Callable[[], R]], done: Callable[[R], None]) -> None:
        """Runs all that stands in `queue`."""
        while queue:
            done(await self.run(queue.popleft()))

    def lane(self) -> AbstractContextManager[Lane]:
        """Nothing runs beside anything."""
        return inline_lane()
