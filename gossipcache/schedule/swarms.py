"""The sessions of all tasks of a keeper, and how many one peer may have."""

from __future__ import annotations

from gossipcache.errors import Busy
from gossipcache.ids import NodeId, TaskId
from gossipcache.schedule.task import Child, Swarm

MAX_SESSIONS_PER_PEER = 1024
MAX_PIECES_PER_PEER = 2**26
"""Pieces of all sessions of one peer; their bit sets then take at most 8 MiB."""
MAX_PIECES_IN_ALL = 2**29
"""Pieces of all sessions; their bit sets then take at most 64 MiB."""


class Swarms:
    """By task, and by peer."""

    def __init__(self) -> None:
        self._of_task: dict[TaskId, Swarm] = {}
        self._of_peer: dict[NodeId, dict[TaskId, Child]] = {}
        self._piece_count = 0
        """Of all sessions."""

    def of_task(self, task_id: TaskId) -> Swarm:
        """A task's swarm; an empty one if nobody downloads the task."""
        return self._of_task.get(task_id) or Swarm()

    def of_peer(self, node_id: NodeId) -> tuple[Child, ...]:
        """All sessions of a peer."""
        return tuple(self._of_peer.get(node_id, {}).values())

    def child(self, node_id: NodeId, task_id: TaskId) -> Child | None:
        """A peer's session of a task."""
        return self._of_peer.get(node_id, {}).get(task_id)

    def check_room(self, node_id: NodeId, piece_count: int) -> None:
        """Raises `Busy` unless a peer may open one more session, of so many pieces."""
        sessions = self.of_peer(node_id)
        pieces = sum(child.piece_count for child in sessions) + piece_count
        if len(sessions) >= MAX_SESSIONS_PER_PEER or pieces > MAX_PIECES_PER_PEER:
            raise Busy("too many downloads of one node at this scheduler")
        if self._piece_count + piece_count > MAX_PIECES_IN_ALL:
            raise Busy("too many downloads at this scheduler")

    def add(self, child: Child) -> None:
        """A session that was opened; its peer has no other one of the task."""
        self._piece_count += child.piece_count
        swarm = self._of_task.setdefault(child.task_id, Swarm())
        swarm.children[child.node_id] = child
        self._of_peer.setdefault(child.node_id, {})[child.task_id] = child
        if child.have:
            swarm.gives(child)

    def remove(self, child: Child) -> None:
        """A session that ended."""
        self._piece_count -= child.piece_count
        swarm = self._of_task[child.task_id]
        swarm.remove(child)
        if not swarm.children:
            del self._of_task[child.task_id]
        sessions = self._of_peer[child.node_id]
        del sessions[child.task_id]
        if not sessions:
            del self._of_peer[child.node_id]
