"""How many connections may be open without having proved who they are. Sans-IO.

When there is no room, the longest waiting connection of the address that has most of them
makes way: honest nodes need milliseconds, so a crowd of slow strangers pushes out its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MAX_STRANGERS = 128
MAX_STRANGERS_PER_HOST = 64


@dataclass(eq=False, slots=True)
class Stranger:
    """A connection before its handshake; `evict` ends it."""

    host: str
    evict: Callable[[], None]


class Antechamber:
    """The connections whose handshake is under way, oldest first."""

    def __init__(
        self, limit: int = MAX_STRANGERS, limit_per_host: int = MAX_STRANGERS_PER_HOST
    ) -> None:
        self._limit, self._limit_per_host = limit, limit_per_host
        self._hosts: dict[str, list[Stranger]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def enter(self, stranger: Stranger) -> bool:
        """Lets `stranger` in; whether another one was evicted for it."""
        evicted = False
        if len(self._hosts.get(stranger.host, ())) >= self._limit_per_host:
            self._evict_from(stranger.host)
            evicted = True
        elif self._count >= self._limit:
            self._evict_from(max(self._hosts, key=lambda host: len(self._hosts[host])))
            evicted = True
        self._hosts.setdefault(stranger.host, []).append(stranger)
        self._count += 1
        return evicted

    def leave(self, stranger: Stranger) -> None:
        """`stranger` has proved who it is, or has gone; a second call does nothing."""
        waiting = self._hosts.get(stranger.host, [])
        if stranger in waiting:
            waiting.remove(stranger)
            self._count -= 1
        if not waiting:
            self._hosts.pop(stranger.host, None)

    def _evict_from(self, host: str) -> None:
        oldest = self._hosts[host][0]
        self.leave(oldest)
        oldest.evict()
