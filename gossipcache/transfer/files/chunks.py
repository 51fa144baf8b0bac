"""Reading and writing files in chunks that stay hot in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gossipcache.env import DiskFile
from gossipcache.errors import IntegrityError

CHUNK_BYTES = 2**20
_ZEROS = bytes(CHUNK_BYTES)

OnProgress = Callable[[int], None]
"""Told how many bytes are done, from the worker. What it raises ends the work."""


def ignore_progress(_done_bytes: int) -> None:
    """For callers that do not want to know."""


def chunks(file: DiskFile, offset: int, count: int, buffer: memoryview) -> Iterator[memoryview]:
    """`count` bytes from `offset` through `buffer`, whose content the next step overwrites.

    Raises `IntegrityError` if the file ends early.
    """
    while count:
        wanted = buffer[: min(count, len(buffer))]
        if file.read_into(offset, wanted) != len(wanted):
            raise IntegrityError("a file is shorter than it was")
        yield wanted
        offset += len(wanted)
        count -= len(wanted)


def write_sparse(write: Callable[[int, memoryview], None], offset: int, chunk: memoryview) -> None:
    """Writes `chunk` (at most `CHUNK_BYTES`) where the file holds zeros; zeros are left out."""
    # Memoryviews are compared item by item: the first byte decides, or else a copy.
    if chunk[0] or bytes(chunk) != _ZEROS[: len(chunk)]:
        write(offset, chunk)
