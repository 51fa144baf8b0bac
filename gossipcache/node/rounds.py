"""Many small imports or exports in one go, with work for many where there was work for each.

What a single import or export promises holds for each one here, and each ends with a result or
an error of its own. Only the waits are shared: a round of files is read in one job, made durable
by a few syncs, and its records and announcements travel together (`import_batches`,
`export_batches`). Whatever is not a small file that is new here (or, to export, complete here or
small enough for a reply) takes the ordinary way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import trio

from gossipcache.errors import GossipcacheError, from_os_error
from gossipcache.requests import ExportRequest, ImportRequest
from gossipcache.results import Outcome

MAX_SMALL_BYTES = 2**20
ROUND = 250
"""Files that are read in one job and share their syncs."""
ROUNDS_AT_ONCE = 3
"""While one waits for the disk and another for the keepers, a third reads."""
SINGLES_AT_ONCE = 8

T = TypeVar("T")
Q = TypeVar("Q", ImportRequest, ExportRequest)
Tell = Callable[[int, Outcome], None]
"""Takes what came of the request of that number."""
Numbered = list[tuple[int, Q]]


async def in_rounds(requests: Sequence[Q], run: Callable[[Numbered[Q]], Awaitable[None]]) -> None:
    numbered = list(enumerate(requests))
    rounds = [numbered[at : at + ROUND] for at in range(0, len(numbered), ROUND)]
    await each(rounds, run, at_once=ROUNDS_AT_ONCE)


async def each(items: Iterable[T], run: Callable[[T], Awaitable[None]], *, at_once: int) -> None:
    waiting: Iterator[T] = iter(items)

    async def some() -> None:
        for item in waiting:
            await run(item)

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(some)


async def settled(work: Callable[[], Awaitable[T]]) -> T | GossipcacheError:
    """What `work` comes to, be it an error."""
    try:
        return await work()
    except GossipcacheError as error:
        return error
    except OSError as error:
        return from_os_error(error)
