"""How far apart two nodes' clocks are: for `gossipcache doctor`, nothing hangs on it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from gossipcache.wire import Message


class AskClock(Message, frozen=True, kw_only=True, tag="ask_clock"):
    """From any node to any other: what time is it? Answered by `ClockReading` at once."""


class ClockReading(Message, frozen=True, kw_only=True, tag="clock_reading"):
    """The wall clock of the node that was asked, as it stood when it answered."""

    wall_time_ms: Annotated[int, Meta(ge=0, lt=2**53)]
    """Milliseconds since 1970."""
