"""Reading and writing files in chunks that stay hot in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gossipcache.env import DiskFile
from gossipcache.errors import IntegrityError

CHUNK_BYTES = 2**20
LARGE_CHUNK_BYTES = 4 * 2**20
"""Of what is written past the cache: the disk takes a few large writes faster than many small."""
_HOLE_BYTES = 2**20
_ZEROS = bytes(_HOLE_BYTES)

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
    """Writes `chunk` where the file holds zeros; each whole MiB of zeros, or the last part of
    one, is left out."""
    start = 0
    for at in range(0, len(chunk), _HOLE_BYTES):
        part = chunk[at : at + _HOLE_BYTES]
        # Memoryviews are compared item by item: the first byte decides, or else a copy.
        if not part[0] and bytes(part) == _ZEROS[: len(part)]:
            if start < at:
                write(offset + start, chunk[start:at])
            start = at + len(part)
    if start < len(chunk):
        write(offset + start, chunk[start:])
