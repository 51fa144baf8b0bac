"""The real machine as an `Env`: its network, disk, threads, clock and random numbers."""

from __future__ import annotations

import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TypeVar

import trio

from gossipcache.disk import OsDisk
from gossipcache.env import Env, Lane
from gossipcache.network import TrioNetwork
from gossipcache.threads import in_thread

R = TypeVar("R")

MIN_WORKERS = 4


class ThreadWorkers:
    """`gossipcache.env.Workers` over threads, at most `limit` at once; further work queues."""

    def __init__(self, limit: int | None = None) -> None:
        self._waiting = 0
        """How many wait for a thread."""
        self._limiter = trio.CapacityLimiter(limit or max(MIN_WORKERS, 2 * (os.cpu_count() or 1)))

    async def run(self, work: Callable[[], R]) -> R:
        """Runs `work` in a thread. Once it has begun, a cancellation waits for its end."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._limiter.acquire_nowait()  # else each would first wait for the loop's next turn
        except trio.WouldBlock:
            self._waiting += 1
            try:
                await self._limiter.acquire()
            finally:
                self._waiting -= 1
        try:
            return await in_thread(work)
        finally:
            self._limiter.release()

    async def run_each(self, queue: deque[Callable[[], R]], done: Callable[[R], None]) -> None:
        """Runs what stands in `queue` in one thread. A cancellation waits for the last."""
        token = trio.lowlevel.current_trio_token()

        def work() -> None:
            while True:
                try:
                    step = queue.popleft()
                except IndexError:
                    return
                token.run_sync_soon(done, step())
                if self._waiting:
                    return

        await self.run(work)

    @contextmanager
    def lane(self) -> Iterator[Lane]:
        """A thread beside the one that asks."""
        with closing(ThreadLane()) as lane:
            yield lane


class ThreadLane:
    """`gossipcache.env.Lane` on a thread of its own, which begins with the first step."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._step: Future[object] | None = None

    def do(self, work: Callable[[], object]) -> None:
        """Begins `work` when the step before has ended. Raises what that one raised."""
        self.finish()
        self._step = self._thread.submit(work)

    def finish(self) -> None:
        """Waits for the last step. Raises what it raised."""
        step, self._step = self._step, None
        if step is not None:
            step.result()

    def close(self) -> None:
        """Waits for the last step, and ends the thread."""
        self._thread.shutdown()


def real_env() -> Env:
    """The seams of a node that runs as a process of its own."""
    return Env(
        network=TrioNetwork(),
        disk=OsDisk(),
        workers=ThreadWorkers(),
        wall_time=time.time,
        entropy=os.urandom,
        rng=random.Random(os.urandom(32)),
    )
