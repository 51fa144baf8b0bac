"""When a parent that failed or refused may be tried again."""

from __future__ import annotations

from dataclasses import dataclass

from gossipcache.ids import NodeId

_BUSY_S = (0.2, 5.0)
"""First and longest pause; it doubles in between."""
_MAX_BUSY_S = 120.0
_FAILED_S = (1.0, 30.0)
_MAX_DOUBLINGS = 10


@dataclass(slots=True)
class _Pause:
    until: float = 0.0
    in_a_row: int = 0


class Retries:
    """Exponential pauses by parent, and the parents that are never tried again."""

    def __init__(self) -> None:
        self._pauses: dict[NodeId, _Pause] = {}
        self._banned: set[NodeId] = set()

    def may_open(self, node: NodeId, now: float) -> bool:
        """Whether `node` may be dialled now."""
        pause = self._pauses.get(node)
        return node not in self._banned and (pause is None or now >= pause.until)

    def wait_until(self, node: NodeId) -> float | None:
        """When the pause of `node` ends; None if it has none, or is banned."""
        pause = self._pauses.get(node)
        return None if pause is None or node in self._banned else pause.until

    def worked(self, node: NodeId) -> None:
        """`node` gave a piece: the next pause is a short one again."""
        self._pauses.pop(node, None)

    def failed(self, node: NodeId, now: float) -> None:
        """`node` did not serve the task, or no longer does."""
        self._pause(node, now, _FAILED_S)

    def busy(self, node: NodeId, now: float, least_s: float = 0.0) -> float:
        """`node` is at its limit, which is no failure; returns when to ask it again, not before
        `least_s` have passed unless that is too long."""
        self._pause(node, now, _BUSY_S)
        pause = self._pauses[node]
        pause.until = max(pause.until, now + min(least_s, _MAX_BUSY_S))
        return pause.until

    def ban(self, node: NodeId) -> None:
        """`node` lied, or broke the protocol."""
        self._banned.add(node)

    def _pause(self, node: NodeId, now: float, range_s: tuple[float, float]) -> None:
        pause = self._pauses.setdefault(node, _Pause())
        shortest_s, longest_s = range_s
        pause.until = now + min(longest_s, shortest_s * 2 ** min(pause.in_a_row, _MAX_DOUBLINGS))
        pause.in_a_row += 1
