"""What a download sees of the schedulers: a feed of parents, and where to report to."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from gossipcache.ids import NodeId


@dataclass(frozen=True, slots=True)
class PieceReport:
    """Pieces that one parent gave since the last report."""

    parent: NodeId
    pieces: tuple[int, ...]
    size_bytes: int
    elapsed_s: float
    failures: int


SHARES = 8
"""Into so many a task is divided where nodes of one zone fetch it from others: share `i` are the
pieces whose index is `i` modulo this."""


@dataclass(frozen=True, slots=True)
class Border:
    """What a download fetches from other zones than its own, so that each piece crosses once."""

    parents: tuple[NodeId, ...] = ()
    """Those of its parents that are in others."""
    shares: int = 0
    """The shares that it fetches there (bit set)."""

    def pieces(self, piece_count: int) -> int:
        """The same as pieces (bitmap)."""
        return pieces_of_shares(self.shares, piece_count)


NO_BORDER = Border()
"""Of a download all of whose parents are in its own zone."""


def pieces_of_shares(shares: int, piece_count: int) -> int:
    """The pieces (bitmap) of a bit set of shares."""
    rows = -(-piece_count // SHARES)
    return int.from_bytes(bytes([shares]) * rows, "little") & (1 << piece_count) - 1


class Swarm(Protocol):
    """One peer's membership in the swarm of one task (a *session*).

    It survives the death of the task's owner by moving to the next one, by itself.
    """

    async def parents(self) -> tuple[NodeId, ...]:
        """Waits for the next assignment and returns it, best parent first.

        The first call returns as soon as any scheduler has answered. An assignment replaces
        the one before; an empty one means that nobody is known to have pieces at the moment.
        Raises `TaskNotFound` when the task has been deleted.
        """

    @property
    def border(self) -> Border:
        """Which of the parents returned last are in other zones, and what they are for."""

    def report(self, have: Collection[int], reports: tuple[PieceReport, ...]) -> None:
        """Hands over what came in since the last report; batched and sent by the session."""

    def failed(self, parent: NodeId, reason: str) -> None:
        """Says that `parent` lied, refused or broke off, so that another may be assigned."""
