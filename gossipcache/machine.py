"""The real machine as an `Env`: its network, disk, threads, clock and random numbers."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

import trio

from gossipcache.disk import OsDisk
from gossipcache.env import Env
from gossipcache.network import TrioNetwork

R = TypeVar("R")

MIN_WORKERS = 4


class ThreadWorkers:
    """`gossipcache.env.Workers` over threads, at most `limit` at once; further work queues."""

    def __init__(self, limit: int | None = None) -> None:
        self._limiter = trio.CapacityLimiter(limit or max(MIN_WORKERS, 2 * (os.cpu_count() or 1)))

    async def run(self, work: Callable[[], R]) -> R:
        """Runs `work` in a thread. Once it has begun, a cancellation waits for its end."""
        return await trio.to_thread.run_sync(work, limiter=self._limiter)


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
