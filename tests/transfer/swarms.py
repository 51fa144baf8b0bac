"""A download core among parents that run on a list of events instead of a network."""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field

from gossipcache.config import TransferConfig
from gossipcache.ids import NodeId
from gossipcache.transfer.download.core import DownloadCore
from gossipcache.transfer.download.events import (
    CancelPiece,
    CheckPiece,
    DropParent,
    Effect,
    Event,
    FetchPiece,
    Finished,
    OpenParent,
    ParentHas,
    ParentLost,
    ParentProgressed,
    ParentRefused,
    ParentsAssigned,
    PieceChecked,
    PieceDelayed,
    PieceReceived,
    PieceRefusedBy,
    SlotOpened,
    StoreReady,
)
from gossipcache.transfer.promise import REPEAT_S
from tests.transfer.samples import PIECE, content_of, manifest_for

BUDGET = 8


@dataclass
class FakeParent:
    """A parent that answers requests in order."""

    piece_s: float = 0.1
    pieces: int = -1
    """Bitmap; -1: all."""
    lies: bool = False
    dies_at: float = float("inf")
    freezes_at: float = float("inf")
    trickles: bool = False
    """Bytes keep coming while a piece is on its way."""
    busy_until: float = 0.0
    line_s: float = 0.0
    """So long others come first, before each piece, as it says."""
    promises: bool = False
    """It says again and again that others come first, and gives nothing."""
    withholds: frozenset[int] = frozenset()
    """Pieces it says it has, and refuses."""
    free_at: float = 0.0
    requests: dict[int, int] = field(default_factory=dict)
    served: list[int] = field(default_factory=list)
    asked_at: list[float] = field(default_factory=list)


class Swarm:
    """Runs one core against `parents` and checks, at every step, what must always hold."""

    def __init__(self, piece_count: int, parents: dict[NodeId, FakeParent], seed: int = 0) -> None:
        self.manifest = manifest_for(content_of(piece_count * PIECE - 1))
        self.everything = (1 << piece_count) - 1
        self.parents = parents
        self.core = DownloadCore(
            TransferConfig(), self.manifest.manifest, BUDGET, random.Random(seed)
        )
        self.now = 0.0
        self.finished_at: float | None = None
        self.dropped: dict[NodeId, str | None] = {}
        self.fetched: list[int] = []
        self.present = 0
        self._due: list[tuple[float, int, Event]] = []
        self._order = itertools.count()
        self._owed: dict[int, tuple[NodeId, int]] = {}

    def at(self, when: float, event: Event) -> None:
        heapq.heappush(self._due, (when, next(self._order), event))

    def run(self, until: float = 300.0) -> Swarm:
        """Goes on until the download is finished or `until` is reached."""
        for _ in range(20_000):
            timeout = self.core.next_timeout()
            due = self._due[0][0] if self._due else float("inf")
            following = max(self.now, min(due, float("inf") if timeout is None else timeout))
            if self.finished_at is not None or following > until:
                return self
            self.now = following
            if due <= self.now:
                self._deliver(heapq.heappop(self._due)[2])
            else:
                self._apply(self._progress() + self.core.handle_timeout(self.now))
        raise AssertionError("the core spins")

    def start(self, present: int = 0) -> Swarm:
        """The store has `present`; all parents are assigned."""
        self.present = present
        self.at(0.0, StoreReady(present))
        self.at(0.0, ParentsAssigned(tuple(self.parents)))
        return self

    def _progress(self) -> list[Effect]:
        effects: list[Effect] = []
        for node, parent in self.parents.items():
            if parent.trickles and parent.requests:
                effects += self.core.handle(ParentProgressed(node), self.now)
        return effects

    def _deliver(self, event: Event) -> None:
        match event:
            case PieceReceived(request_id):
                if request_id not in self._owed:
                    return
                node, index = self._owed[request_id]
                parent = self.parents[node]
                if self.now >= min(parent.dies_at, parent.freezes_at):
                    return
                del self._owed[request_id]
                del parent.requests[request_id]
                parent.served.append(index)
            case PieceDelayed(node, request_id):
                if request_id not in self._owed or self.now >= self.parents[node].dies_at:
                    return
                if self.parents[node].promises:
                    self.at(self.now + REPEAT_S, event)
            case ParentLost(node):
                self._void(node)
            case SlotOpened(node) | ParentHas(node):
                if self.now >= self.parents[node].dies_at:
                    return
        self._apply(self.core.handle(event, self.now))

    def _apply(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case OpenParent(node, connections):
                    self._open(node, connections)
                case FetchPiece(node, slot, index, request_id):
                    self._fetch(node, slot, index, request_id)
                case CheckPiece(node, index, request_id):
                    valid = not self.parents[node].lies
                    if valid:
                        self.present |= 1 << index
                        self.fetched.append(index)
                    self.at(self.now + 0.001, PieceChecked(request_id, valid))
                case CancelPiece(node, _, request_id):
                    del self._owed[request_id]
                    del self.parents[node].requests[request_id]
                case DropParent(node, fault):
                    self.dropped[node] = fault
                    self._void(node)
                case Finished():
                    assert self.present == self.everything
                    self.finished_at = self.now

    def _open(self, node: NodeId, connections: int) -> None:
        parent = self.parents[node]
        if self.now >= parent.dies_at:
            self.at(self.now, ParentLost(node))
        elif self.now < parent.busy_until:
            self.at(self.now, ParentRefused(node, "busy"))
        else:
            for slot in range(connections):
                self.at(self.now, SlotOpened(node, slot, rtt_s=0.001))
            self.at(self.now, ParentHas(node, parent.pieces & self.everything))
            if parent.dies_at < float("inf"):
                self.at(parent.dies_at, ParentLost(node))

    def _fetch(self, node: NodeId, slot: int, index: int, request_id: int) -> None:
        parent = self.parents[node]
        assert index not in parent.requests.values(), "asked one parent twice at once"
        assert not self.present >> index & 1, "asked for a piece that is there"
        assert parent.pieces >> index & 1, "asked for a piece the parent has not got"
        assert len(self._owed) < BUDGET
        assert slot in (0, 1)
        self._owed[request_id] = (node, index)
        parent.requests[request_id] = index
        parent.asked_at.append(self.now)
        if index in parent.withholds:
            del self._owed[request_id], parent.requests[request_id]
            self.at(self.now, PieceRefusedBy(node, request_id, "not_found"))
            return
        turn_at = max(parent.free_at, self.now) + parent.line_s
        parent.free_at = turn_at + parent.piece_s
        if parent.promises:
            self.at(self.now, PieceDelayed(node, request_id, 1.0 + parent.line_s))
            return
        if parent.line_s:
            self._tell_line(node, request_id, turn_at)
        self.at(parent.free_at, PieceReceived(request_id))

    def _tell_line(self, node: NodeId, request_id: int, turn_at: float) -> None:
        """What a parent says until `turn_at`, in the same line as `transfer.limits`."""
        at = self.now
        while at < turn_at:
            self.at(at, PieceDelayed(node, request_id, turn_at - at))
            at += REPEAT_S
        self.at(turn_at, PieceDelayed(node, request_id, 0.0))

    def _void(self, node: NodeId) -> None:
        for request_id in self.parents[node].requests:
            self._owed.pop(request_id, None)
        self.parents[node].requests.clear()
        self.parents[node].free_at = self.now
