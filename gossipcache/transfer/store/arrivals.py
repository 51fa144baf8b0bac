"""Pieces that stand in the store now, ahead of what its durable bitmap says.

A running download makes its progress durable about once a second; a piece can be read, and
served, as soon as it is verified and written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from gossipcache.ids import TaskId
from gossipcache.transfer.bitmap import to_bitmap
from gossipcache.transfer.pieces import PieceSet


class Arrivals:
    """The pieces of running downloads, by task; read and changed on the event loop only."""

    def __init__(self) -> None:
        self._pieces: dict[TaskId, int] = {}
        self._changed: dict[TaskId, trio.Event] = {}
        self._readers: Counter[TaskId] = Counter()

    def begin(self, task_id: TaskId, present: PieceSet) -> None:
        """A download of `task_id` runs from now on."""
        self._pieces[task_id] = to_bitmap(present.to_bytes())
        self._wake(task_id)

    def add(self, task_id: TaskId, index: int) -> None:
        """Piece `index` is verified and written."""
        self._pieces[task_id] |= 1 << index
        self._wake(task_id)

    def end(self, task_id: TaskId) -> None:
        """The download is over: what it got is in the store's own bitmap."""
        self._pieces.pop(task_id, None)
        self._wake(task_id)

    def pieces(self, task_id: TaskId) -> int | None:
        """The pieces present (bitmap), or None if no download of the task runs."""
        return self._pieces.get(task_id)

    @contextmanager
    def reading(self, task_id: TaskId) -> Iterator[None]:
        """A user reads the task's pieces from the store, as they come in. (Children do not count:
        most pieces go to few of them, and are read ahead for these.)"""
        self._readers[task_id] += 1
        try:
            yield
        finally:
            self._readers[task_id] -= 1
            self._readers += Counter()

    def are_read(self, task_id: TaskId) -> bool:
        """Whether anybody does."""
        return self._readers[task_id] > 0

    async def change(self, task_id: TaskId) -> None:
        """Returns when the answer of `pieces` has changed."""
        await self._changed.setdefault(task_id, trio.Event()).wait()

    def _wake(self, task_id: TaskId) -> None:
        event = self._changed.pop(task_id, None)
        if event is not None:
            event.set()
