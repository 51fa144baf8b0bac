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

    def report(self, have: Collection[int], reports: tuple[PieceReport, ...]) -> None:
        """Hands over what came in since the last report; batched and sent by the session."""

    def failed(self, parent: NodeId, reason: str) -> None:
        """Says that `parent` lied, refused or broke off, so that another may be assigned."""
