"""Everything random, drawn from one seed by named streams.

A stream is named by what draws from it (`node/n1`, `link/10.0.0.1/10.0.0.2`, `workload`), so
that one more draw in one place changes nothing in another. `controlled()` also takes over what
libraries reach for behind our back: `os.urandom` (websocket masks and keys, `uuid4`,
`secrets`), the global `random`, the wall clock and threads. `sim.kernel.guard` refuses the rest.
"""

from __future__ import annotations

import gc
import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar
from unittest import mock

import trio

from sim.kernel.clock import SimClock
from sim.kernel.guard import LeakGuard

R = TypeVar("R")

WALL_EPOCH_S = 1_800_000_000.0
"""The wall clock at virtual time 0."""


class Streams:
    """The named random streams of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._streams: dict[str, random.Random] = {}

    def named(self, name: str) -> random.Random:
        """The stream `name`; the same object at each call."""
        if name not in self._streams:
            self._streams[name] = self.fresh(name)
        return self._streams[name]

    def fresh(self, name: str) -> random.Random:
        """The stream `name` from its beginning."""
        digest = hashlib.blake2b(f"{self.seed}/{name}".encode(), digest_size=32).digest()
        return random.Random(int.from_bytes(digest, "big"))


CURRENT_STREAM: ContextVar[random.Random | None] = ContextVar("current_stream", default=None)
"""Where the running task's `os.urandom` comes from; set at the root task of each process."""


@contextmanager
def controlled(streams: Streams, clock: SimClock, guard: LeakGuard) -> Iterator[None]:
    """Replaces the sources of nondeterminism while the world runs; project code in a node may
    not even ask for them."""
    fallback = streams.named("world/urandom")

    def urandom(count: int) -> bytes:
        guard.check("os.urandom")
        return (CURRENT_STREAM.get() or fallback).randbytes(count)

    def wall_time() -> float:
        guard.check("time.time")
        return WALL_EPOCH_S + clock.now

    def wall_time_ns() -> int:
        guard.check("time.time_ns")
        return int((WALL_EPOCH_S + clock.now) * 1e9)

    async def inline(work: Callable[..., R], *args: Any, **_: Any) -> R:
        guard.check("a thread")
        await trio.lowlevel.checkpoint()
        return work(*args)

    state = random.getstate()
    random.seed(streams.named("world/global").getrandbits(64))
    was_collecting = gc.isenabled()
    gc.disable()  # a finaliser that runs at another point of the run could schedule a task
    try:
        with (
            mock.patch.object(os, "urandom", urandom),
            mock.patch.object(random, "_urandom", urandom),
            mock.patch.object(time, "time", wall_time),
            mock.patch.object(time, "time_ns", wall_time_ns),
            mock.patch.object(trio.to_thread, "run_sync", inline),
            guard.watching(),
        ):
            yield
    finally:
        random.setstate(state)
        if was_collecting:
            gc.enable()
