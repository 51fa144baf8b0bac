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
from gossipcache.results import Progress

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


def json_line(value: object) -> bytes:
    """`value`, in which there may be dataclasses, as one line."""
    try:
        return msgspec.json.encode(value) + b"\n"
    except UnicodeEncodeError:  # a path that is no text
        return json.dumps(value, default=asdict).encode() + b"\n"


def error_line(error: GossipcacheError) -> bytes:
    """An error as the command line and the library read it back."""
    fields = {"code": error.code, "message": error.message, "hint": error.hint}
    return json_line({"error": fields})
