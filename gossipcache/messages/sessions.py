"""One *session*: a child's membership in the swarm of a task, held at one of its keepers.

    child                              keeper
    RegisterPeer              ->
                              <-       SessionReply
    ReportPieces (repeated)   ->
                              <-       SessionReply
                              <-       AssignParents (whenever better parents are known)
    LeaveTask                 ->

All travel on the authenticated control connection and speak only of the sender itself, so
nothing here is signed. A keeper forgets a session that is silent for a lease; a child that
gets no answer registers with the next keeper, with all the pieces it has by then.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gossipcache.manifest import Count, Digest, NodeIdBytes, TaskIdBytes
from gossipcache.messages.announcements import DeletedTask, Keepers, PieceCount
from gossipcache.messages.pieces import MAX_PIECES, PieceIndex
from gossipcache.swarm import SHARES
from gossipcache.wire import CompactRecord, Message

MAX_RUNS = 4096
"""Runs of pieces in one message; a child sends further ones in the next report."""
MAX_PARENTS = 32
MAX_REPORTS = 64

SessionNumber = Annotated[int, Meta(ge=1, le=2**63 - 1)]


class PieceRun(CompactRecord, frozen=True):
    """`count` pieces in a row from `first` on."""

    first: PieceIndex
    count: Annotated[int, Meta(ge=1, le=MAX_PIECES)]


class ParentReport(CompactRecord, frozen=True):
    """What one parent gave the child since the last report."""

    parent: NodeIdBytes
    size_bytes: Count
    elapsed_ms: Count
    failures: Annotated[int, Meta(ge=0, le=2**32 - 1)]


class ParentFailure(CompactRecord, frozen=True):
    """The child will not use this parent for a while."""

    parent: NodeIdBytes
    reason: Annotated[str, Meta(max_length=200)]


PieceRuns = Annotated[tuple[PieceRun, ...], Meta(max_length=MAX_RUNS)]
Parents = Annotated[tuple[NodeIdBytes, ...], Meta(max_length=MAX_PARENTS)]
Shares = Annotated[int, Meta(ge=0, le=2**SHARES - 1)]
SessionStatus = Literal["assigned", "unregistered", "not_keeper", "deleted"]


class RegisterPeer(Message, frozen=True, kw_only=True, tag="register_peer"):
    """Child: opens a session, or moves a running one here from another keeper."""

    task_id: TaskIdBytes
    manifest_name: Digest
    session: SessionNumber
    """The child's own number; another one replaces its earlier session of the task."""
    piece_count: PieceCount
    have: PieceRuns
    parents: Parents
    """Who feeds the child at the moment; a keeper that knows no better leaves it so."""


class ReportPieces(Message, frozen=True, kw_only=True, tag="report_pieces"):
    """Child, each report interval while pieces come in, else each lease interval."""

    task_id: TaskIdBytes
    session: SessionNumber
    have: PieceRuns
    """Pieces that are new since the last report."""
    reports: Annotated[tuple[ParentReport, ...], Meta(max_length=MAX_REPORTS)]
    failed: Annotated[tuple[ParentFailure, ...], Meta(max_length=MAX_PARENTS)]


class SessionReply(Message, frozen=True, kw_only=True, tag="session_reply"):
    """Keeper: how the session stands, with the assignment now in force, best parent first."""

    status: SessionStatus
    version: Count = 0
    """Grows with each assignment of a session; an older one is void."""
    parents: Parents = ()
    far: Parents = ()
    """Those of them that are in other zones: they are asked for `shares`, and for what they offer,
    unless a parent in the child's own zone has it."""
    shares: Shares = 0
    """Bit `i` stands for the pieces whose index is `i` modulo 8."""
    keepers: Keepers = ()
    """With `not_keeper`: who keeps the task, by this node's view of the ring."""
    deleted: DeletedTask | None = None
    """With `deleted`: the proof."""


class AssignParents(Message, frozen=True, kw_only=True, tag="assign_parents"):
    """Keeper, unasked: from now on these parents, or with `deleted`: there is no such task."""

    task_id: TaskIdBytes
    session: SessionNumber
    version: Count
    parents: Parents
    far: Parents = ()
    shares: Shares = 0
    deleted: DeletedTask | None = None


class LeaveTask(Message, frozen=True, kw_only=True, tag="leave_task"):
    """Child, as a notification: the session ends. `complete`: it now has every piece."""

    task_id: TaskIdBytes
    session: SessionNumber
    complete: bool
