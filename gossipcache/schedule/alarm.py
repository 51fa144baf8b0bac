"""Lets the loop that drives a core sleep until its deadline, or until its state changes."""

from __future__ import annotations

import math

import trio


class Alarm:
    """One loop waits, anybody may ring."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        """Ends the present wait, or the next one at once."""
        self._rung.set()

    async def wait_until(self, deadline: float | None) -> bool:
        """Waits for a ring until `deadline` (monotonic s; None: for ever); whether it rang."""
        with trio.move_on_at(math.inf if deadline is None else deadline):
            await self._rung.wait()
        was_rung = self._rung.is_set()
        self._rung = trio.Event()
        return was_rung
