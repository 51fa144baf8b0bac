"""Exceptions in nodes: what they log that nobody expected is a violation; how they are told."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from gossipcache.errors import NoSpace
from sim.kernel.process import PROCESS

LOGGER = "gossipcache"
ALLOWED: tuple[tuple[str, str], ...] = (
    (r"OSError: \[Errno (5|30|28)\]", "a disk that fails, is read-only or full"),
    (r"NoSpace", "a disk that is full"),
    (r"DiskCrashed", "a process that dies in the midst of its work"),
)
"""Exceptions (as a pattern) that a node may meet in a handler, and of what they come."""


class ErrorLog(logging.Handler):
    """Reports each error that a simulated node logs, unless it is on the list."""

    def __init__(self, report: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        """Judges one record."""
        process = PROCESS.get()
        if process is None:
            return
        error = record.exc_info[1] if record.exc_info is not None else None
        what = record.getMessage()
        if error is not None:
            what += f": {type(error).__name__}: {error}"
        if not any(re.search(pattern, what) for pattern, _ in ALLOWED):
            self._report(f"{process.name} logged an error: {what}")


@contextmanager
def errors_reported(report: Callable[[str], None]) -> Iterator[None]:
    """Meanwhile all that nodes log as errors is judged, whatever the level of logging."""
    logger, handler = logging.getLogger(LOGGER), ErrorLog(report)
    level, propagate = logger.level, logger.propagate
    if logger.getEffectiveLevel() > logging.ERROR:
        logger.setLevel(logging.ERROR)
        logger.propagate = False  # only judged, not shown
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def is_of_the_disk(error: BaseException) -> bool:
    """Whether nothing but the system's errors made a node end: it may, when its disk fails."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_of_the_disk(each) for each in error.exceptions)
    return isinstance(error, OSError | NoSpace | trio.Cancelled)


def told(error: BaseException) -> str:
    """An exception, with those inside a group."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(told(each) for each in error.exceptions)
    return f"{type(error).__name__}: {error}"
