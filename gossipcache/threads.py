"""Work in threads of the operating system, for the real machine's seams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import trio

R = TypeVar("R")


async def in_thread(work: Callable[[], R]) -> R:
    """Runs `work` in a thread; a cancellation waits for its end.

    As `trio.to_thread.run_sync`, without its limit, its names for threads and copies of contexts:
    they hand the interpreter's lock to and fro more often than the work itself.
    """
    task, token = trio.lowlevel.current_task(), trio.lowlevel.current_trio_token()

    def deliver(result: Any) -> None:
        token.run_sync_soon(trio.lowlevel.reschedule, task, result)

    trio.lowlevel.start_thread_soon(work, deliver)
    done: R = await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
    return done
