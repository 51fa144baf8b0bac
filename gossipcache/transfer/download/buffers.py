"""Reused buffers that pieces are received into.

Fresh buffers of this size cost more in page faults than the hash of what they hold, so they
are kept while any download runs. All downloads of a node share one limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

LIMIT_BYTES = 64 * 2**20
MAX_PIECES_AT_ONCE = 32


class Buffers:
    """Buffers by size, used on the event loop only."""

    def __init__(self, make: Callable[[int], memoryview], limit_bytes: int = LIMIT_BYTES) -> None:
        """`make` gives a new buffer of so many bytes."""
        self._make = make
        self._limit_bytes = limit_bytes
        self._downloads = 0
        self._free: dict[int, list[memoryview]] = {}

    @contextmanager
    def download(self) -> Iterator[None]:
        """Counts one running download; the buffers go with the last."""
        self._downloads += 1
        try:
            yield
        finally:
            self._downloads -= 1
            if not self._downloads:
                self._free.clear()

    def share(self, piece_size: int) -> int:
        """How many pieces one download may hold at present; at least one."""
        share_bytes = self._limit_bytes // max(1, self._downloads)
        return max(1, min(MAX_PIECES_AT_ONCE, share_bytes // piece_size))

    def take(self, piece_size: int) -> memoryview:
        """A buffer of `piece_size` bytes with anything in it; the last one given back first,
        for it may still be in the processor's cache."""
        free = self._free.get(piece_size)
        return free.pop() if free else self._make(piece_size)

    def give(self, buffer: memoryview) -> None:
        """Takes back a buffer that nobody writes to any more."""
        free = self._free.setdefault(len(buffer), [])
        if len(free) < self.share(len(buffer)):
            free.append(buffer)
