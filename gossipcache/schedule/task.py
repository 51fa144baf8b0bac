"""What a keeper knows of the nodes in a task's swarm."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from gossipcache.errors import NotReady
from gossipcache.ids import NodeId, TaskId
from gossipcache.manifest import SignedManifest, SignedTombstone
from gossipcache.messages.announcements import DeletedTask
from gossipcache.messages.sessions import MAX_RUNS, PieceRun
from gossipcache.swarm import NO_BORDER, Border

MAX_BANS = 64
STARVED_S = 30.0
"""A parent or a gateway that gave a child nothing for so long does not count as its supply."""

_ONES = re.compile("1+")


class RecordView(Protocol):
    """What is needed of a task's record: its manifest, or the tombstone that killed it."""

    @property
    def manifest(self) -> SignedManifest | None:
        """The task's present manifest."""

    @property
    def tombstone(self) -> SignedTombstone | None:
        """The deletion, if the task is deleted."""


class RingView(Protocol):
    """What is needed of the ring (`dht.ring.Ring`)."""

    @property
    def epoch(self) -> bytes:
        """Tells one ring from another."""

    def keepers(self, task_id: TaskId, count: int) -> tuple[NodeId, ...]:
        """The owner of a task and its replicas."""


@dataclass(frozen=True, slots=True)
class View:
    """What other parts of the node know, read but never changed by the scheduler."""

    record_of: Callable[[TaskId], RecordView | None]
    keepers_of: Callable[[TaskId], tuple[NodeId, ...]]
    is_alive: Callable[[NodeId], bool]
    zone_of: Callable[[NodeId], str] = lambda _node: ""
    """Where a node stands; those that name no zone are together in one."""

    def check_member(self, node_id: NodeId) -> None:
        """Only of alive members is anything kept: their number is limited, that of the keys which
        the holder of the cluster's secret can make is not. Raises `NotReady`."""
        if not self.is_alive(node_id):
            raise NotReady("this scheduler does not know the node as an alive member yet")

    def present(self, task_id: TaskId) -> tuple[bytes, int] | None:
        """The name of the task's present manifest and its number of pieces, if its record is
        here."""
        record = self.record_of(task_id)
        if record is None or record.manifest is None:
            return None
        return record.manifest.name, record.manifest.manifest.piece_count

    def deletion(self, task_id: TaskId) -> DeletedTask | None:
        """The proof that the task is deleted, if it is."""
        record = self.record_of(task_id)
        if record is None or record.manifest is not None or record.tombstone is None:
            return None
        tombstone = record.tombstone
        return DeletedTask(
            task_id=task_id, tombstone=tombstone.signed, manifest=tombstone.manifest.signed
        )


@dataclass(slots=True)
class Ban:
    """A child's refusal of one parent: until when (monotonic s), and how often it came to that."""

    until: float
    times: int


@dataclass(slots=True, eq=False)
class Child:
    """One session: a node that downloads a task, and feeds others from what it has by then."""

    node_id: NodeId
    task_id: TaskId
    session: int
    manifest_name: bytes
    piece_count: int
    have: int
    """A bit set: bit i stands for piece i."""
    lease_until: float
    since: float = float("-inf")
    """When the session was opened here."""
    gained_at: float = float("-inf")
    """When it last reported a new piece."""
    zone: str = ""
    claimed: tuple[NodeId, ...] = ()
    """Parents that it had before it came here."""
    parents: tuple[NodeId, ...] = ()
    fed_at: dict[NodeId, float] = field(default_factory=dict)
    """When each of them last gave something, or was assigned."""
    border: Border = NO_BORDER
    """Which of them are in other zones, and what they are for."""
    version: int = 0
    depth: int = 1
    """Hops from a complete holder."""
    done: bool = False
    """It has all pieces and needs no parents; its own announcement is on the way."""
    reviewed_at: float = float("-inf")
    review_at: float = float("inf")
    banned: dict[NodeId, Ban] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        """The bit set of the pieces it lacks."""
        return ~self.have & all_bits(self.piece_count)

    def goes_short_of(self, parent: NodeId, now: float) -> bool:
        """Whether this parent has given it nothing for long."""
        return now >= self.fed_at.get(parent, now) + STARVED_S

    def ban(self, parent: NodeId, until: float, times: int = 1) -> None:
        """It is not to have that parent until then; of many bans the oldest is forgotten."""
        self.banned[parent] = Ban(until, times)
        if len(self.banned) > MAX_BANS:
            del self.banned[next(iter(self.banned))]

    def refuses(self, parent: NodeId, now: float) -> bool:
        """Whether it will not have that parent for a while."""
        ban = self.banned.get(parent)
        return ban is not None and now < ban.until


@dataclass(slots=True)
class Swarm:
    """The sessions of one task."""

    children: dict[NodeId, Child] = field(default_factory=dict)
    givers: dict[NodeId, Child] = field(default_factory=dict)
    """Those that have pieces."""
    givers_in: dict[str, dict[NodeId, Child]] = field(default_factory=dict)
    """The same, by zone."""

    @property
    def is_fed(self) -> bool:
        """Whether any of them has parents."""
        return any(child.parents for child in self.children.values())

    def gives(self, child: Child) -> None:
        """A child has pieces from now on."""
        self.givers[child.node_id] = child
        self.givers_in.setdefault(child.zone, {})[child.node_id] = child

    def remove(self, child: Child) -> None:
        """A child is gone."""
        self.children.pop(child.node_id, None)
        if self.givers.pop(child.node_id, None) is not None:
            in_zone = self.givers_in[child.zone]
            del in_zone[child.node_id]
            if not in_zone:
                del self.givers_in[child.zone]

    def depth(self, node_id: NodeId) -> int:
        """A node's hops from a complete holder."""
        child = self.children.get(node_id)
        return child.depth if child is not None else 0


def all_bits(piece_count: int) -> int:
    """The bit set of a whole task."""
    return (1 << piece_count) - 1


def bits_of(runs: Iterable[PieceRun], piece_count: int) -> int:
    """The bit set of `runs`, which must ascend; what overlaps or exceeds `piece_count` is cut.

    Built as one binary numeral, so that it takes time linear in `piece_count`.
    """
    digits: list[str] = []
    end = 0
    for run in runs:
        first, stop = max(run.first, end), min(run.first + run.count, piece_count)
        if first < stop:
            digits += "0" * (first - end), "1" * (stop - first)
            end = stop
    return int("".join(reversed(digits)) or "0", 2)


def bits_of_pieces(pieces: Collection[int], piece_count: int) -> int:
    """The bit set of single pieces; what is out of range is left out."""
    digits = bytearray(b"0" * piece_count)
    for index in pieces:
        if 0 <= index < piece_count:
            digits[-1 - index] = ord("1")
    return int(digits or b"0", 2)


def runs_of(bits: int) -> list[PieceRun]:
    """A bit set as ascending runs."""
    digits = f"{bits:b}"[::-1]
    return [
        PieceRun(found.start(), found.end() - found.start()) for found in _ONES.finditer(digits)
    ]


def cut_runs(runs: list[PieceRun]) -> tuple[tuple[PieceRun, ...], list[PieceRun]]:
    """What fits in one message, and the rest."""
    return tuple(runs[:MAX_RUNS]), runs[MAX_RUNS:]
