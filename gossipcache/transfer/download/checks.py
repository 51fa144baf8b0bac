"""Pieces that came in are verified and written by several workers at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import trio

from gossipcache.env import Workers
from gossipcache.transfer.download.events import CheckPiece
from gossipcache.transfer.download.sink import OnPiece
from gossipcache.transfer.download.store_end import StoreEnd

CHECKS_AT_ONCE = 3
"""One hashes while others wait for the disk: a fast one takes twice as much from several direct
writes at a time as from one. Each more keeps a piece longer in memory."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A piece was written, if it is what it must be; its buffer is free again."""

    check: CheckPiece
    buffer: memoryview
    valid: bool


class Checks:
    """The line of pieces to check. A worker that is done with one takes the next by itself, for
    the event loop may be busy."""

    def __init__(
        self,
        workers: Workers,
        end: StoreEnd,
        on_piece: OnPiece | None,
        done: Callable[[Checked], None],
    ) -> None:
        """`done` is called on the event loop and may not raise."""
        self._workers = workers
        self._end = end
        self._on_piece = on_piece
        self._done = done
        self._queue: deque[Callable[[], Checked]] = deque()
        self._more = trio.lowlevel.ParkingLot()

    def add(self, check: CheckPiece, buffer: memoryview, size: int, *, keep_hot: bool) -> None:
        """The piece stands in the first `size` bytes of `buffer`; for `keep_hot` see `Sink`."""
        self._queue.append(partial(self._check, check, buffer, size, keep_hot))
        self._more.unpark()

    async def run(self) -> None:
        """One worker's part, until it is cancelled. Raises what `Sink.take` raises."""
        while True:
            if not self._queue:
                await self._more.park()
            await self._workers.run_each(self._queue, self._done)

    def clear(self) -> None:
        """Drops what no worker has begun with."""
        self._queue.clear()

    def _check(self, check: CheckPiece, buffer: memoryview, size: int, keep_hot: bool) -> Checked:
        valid = self._end.take(check.index, buffer[:size], self._on_piece, keep_hot=keep_hot)
        return Checked(check, buffer, valid)
