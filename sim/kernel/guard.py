"""The leak guard: project code inside a simulated node may not reach the real world.

Real time, chance, threads, sockets and files, reached past the seams of `gossipcache/env.py`,
are an error where it happens, and a violation of the run even if that error is swallowed.
Libraries are served instead, from the seed and from virtual time: the websocket library draws
its masks, nacl its keys, logging reads the clock. Who asked is told by the stack: the first
frame outside the standard library and Trio.

What C code or a name imported earlier reaches (`from time import monotonic`) is not seen here;
`tests/test_layers.py` forbids those imports.
"""

from __future__ import annotations

import builtins
import io
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any
from unittest import mock

import trio

from sim.kernel.process import PROCESS

PROJECT = "gossipcache"
_SERVED = frozenset({"logging"})
"""Modules of the standard library that work on their own account, whoever calls them."""
_OURS = frozenset({"sim.kernel.guard", "sim.kernel.entropy"})
_REFUSED: tuple[tuple[Any, str, str], ...] = (
    *((time, name, f"time.{name}") for name in ("monotonic", "monotonic_ns", "perf_counter")),
    *((time, name, f"time.{name}") for name in ("perf_counter_ns", "process_time", "sleep")),
    *((random, name, f"random.{name}") for name in ("random", "randint", "randrange", "choice")),
    *((random, name, f"random.{name}") for name in ("shuffle", "sample", "uniform", "choices")),
    *((random, name, f"random.{name}") for name in ("getrandbits", "randbytes", "gauss")),
    (threading.Thread, "start", "a thread"),
    (socket.socket, "__init__", "a real socket"),
    (builtins, "open", "a real file"),
    (io, "open", "a real file"),
    (os, "open", "a real file"),
)
"""What is forbidden to project code and left as it is for all others."""


class LeakedReality(AssertionError):
    """Simulated code reached for the real world."""


class LeakGuard:
    """Counts what project code in simulated nodes reached for."""

    def __init__(self) -> None:
        self.leaks: list[str] = []
        self.on_leak: Callable[[str], None] = lambda leak: None

    def check(self, what: str) -> None:
        """Raises `LeakedReality` if project code in a simulated node wants `what`."""
        process = PROCESS.get()
        asker = None if process is None else _asker()
        if process is not None and asker is not None:
            leak = f"{asker} on {process.name} reached for {what}"
            self.leaks.append(leak)
            self.on_leak(leak)
            raise LeakedReality(leak)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While inside, what is refused is checked; `entropy` asks for what it serves."""
        with ExitStack() as stack:
            for owner, name, what in _REFUSED:
                checked = self._checked(getattr(owner, name), what)
                stack.enter_context(mock.patch.object(owner, name, checked))
            yield

    def _checked(self, real: Callable[..., Any], what: str) -> Callable[..., Any]:
        def checked(*args: Any, **options: Any) -> Any:
            self.check(what)
            return real(*args, **options)

        return checked


def _asker() -> str | None:
    """The module and line of project code that asks; None if somebody else does."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        top = module.partition(".")[0]
        if top == PROJECT:
            return f"{module}:{frame.f_lineno}"
        is_between = module in _OURS or top == "trio" or top in sys.stdlib_module_names
        if top in _SERVED or not is_between:
            return None
        frame = frame.f_back
    return None


class NoSockets(trio.abc.SocketFactory):
    """Refuses to make a socket, whoever asks."""

    def __init__(self, guard: LeakGuard) -> None:
        self._guard = guard

    def socket(self, *_: object, **__: object) -> trio.socket.SocketType:
        """Raises `LeakedReality`."""
        self._guard.check("a real socket")
        raise LeakedReality("simulated code opened a real socket")
