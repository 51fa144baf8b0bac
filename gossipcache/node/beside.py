"""Running something beside a piece of work, and only as long as that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

R = TypeVar("R")


async def beside(companion: Callable[[], Awaitable[object]], work: Callable[[], Awaitable[R]]) -> R:
    """Runs `work` with `companion` beside it, which is cancelled when `work` ends.

    An error of `work` comes out as it is, not in the group that a nursery makes of it, so that
    callers can tell one error from another.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(companion)
        try:
            result = await work()
        except Exception as error:
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return result
