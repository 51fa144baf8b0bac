"""Progress of a running verb as NDJSON lines, at most ten a second."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TypeVar

import msgspec
import trio

from gossipcache.control.backend import OnProgress
from gossipcache.errors import GossipcacheError
from gossipcache.results import Outcome, Progress

R = TypeVar("R")

NDJSON = ("content-type", "application/x-ndjson")
INTERVAL_S = 0.1


class ProgressLines:
    """Writes the latest progress now and then, however often it is noted."""

    def __init__(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._write = write
        self._latest: Progress | None = None
        self._news = trio.Event()
        self._finished = trio.Event()

    def note(self, progress: Progress) -> None:
        """The newest state; it replaces one that has not been written yet."""
        self._latest = progress
        self._news.set()

    async def around(self, verb: Callable[[OnProgress], Awaitable[R]]) -> R:
        """The result of `verb`, with its progress written meanwhile; raises what it raises."""
        failed: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_lines)
            try:
                result = await verb(self.note)
            except Exception as error:
                failed = error
            self._finished.set()
            self._news.set()
        if failed is not None:
            raise failed
        return result

    async def _write_lines(self) -> None:
        while True:
            await self._news.wait()
            self._news = trio.Event()
            progress, self._latest = self._latest, None
            if progress is not None:
                try:
                    await self._write(json_line({"progress": progress}))
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return
            if self._finished.is_set():
                return
            with trio.move_on_after(INTERVAL_S):
                await self._finished.wait()


class OutcomeLines:
    """Writes what comes of the entries of a batch, many lines at once where many are ready."""

    def __init__(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._write = write
        self._ready: list[bytes] = []
        self._news = trio.Event()
        self.count = 0
        self.failed = 0

    def note(self, number: int, outcome: Outcome) -> None:
        """The entry of that number has ended."""
        self.count += 1
        if isinstance(outcome, GossipcacheError):
            self.failed += 1
            self._ready.append(json_line({"entry": number, "error": _error_fields(outcome)}))
        else:
            self._ready.append(json_line({"entry": number, "result": outcome}))
        self._news.set()

    async def around(
        self, verb: Callable[[Callable[[int, Outcome], None]], Awaitable[None]]
    ) -> None:
        """Runs `verb`, and writes what it notes."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_lines)
            await verb(self.note)
            nursery.cancel_scope.cancel()
        await self._write_ready()

    async def _write_lines(self) -> None:
        while True:
            await self._news.wait()
            self._news = trio.Event()
            with trio.CancelScope(shield=True):
                await self._write_ready()

    async def _write_ready(self) -> None:
        ready, self._ready = self._ready, []
        await self._write(b"".join(ready))


def json_line(value: object) -> bytes:
    """`value`, in which there may be dataclasses, as one line."""
    try:
        return msgspec.json.encode(value) + b"\n"
    except UnicodeEncodeError:  # a path that is no text
        return json.dumps(value, default=asdict).encode() + b"\n"


def error_line(error: GossipcacheError) -> bytes:
    """An error as the command line and the library read it back."""
    return json_line({"error": _error_fields(error)})


def _error_fields(error: GossipcacheError) -> dict[str, str]:
    return {"code": error.code, "message": error.message, "hint": error.hint}
