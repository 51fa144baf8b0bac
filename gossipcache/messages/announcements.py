"""What holders tell the keepers of their tasks, and what anyone may ask about it.

    holder                             keeper
    Announce                  ->
                              <-       AnnounceReply
    Heartbeat                 ->
                              <-       HeartbeatReply

    any node                           keeper
    AskHolders                ->
                              <-       HoldersReply

    holder                             keeper
    AskRelease                ->
                              <-       ReleaseReply

The statements inside `Announce` and `Heartbeat` are signed and opaque here:
`gossipcache.schedule.announcement` says what is in them and how they are verified.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gossipcache.identity import Signed
from gossipcache.manifest import Count, NodeIdBytes, TaskIdBytes
from gossipcache.messages.pieces import MAX_PIECES
from gossipcache.wire import CompactRecord, Message, Record

MAX_BATCH_ENTRIES = 800
"""Entries of one batch: as many as surely fit in one control message."""
MAX_TOMBSTONES = 32
"""Tombstones in one reply; further ones follow with the next."""
MAX_HOLDERS = 1000
MAX_KEEPERS = 16

DropReason = Literal[
    "oversized", "forged", "altered", "malformed", "foreign", "replayed", "expired"
]
"""Why a statement was dropped: too large · signed by another than the sender · signature void ·
content outside the protocol · of another cluster · sequence not newer · not valid at this time."""

PieceCount = Annotated[int, Meta(ge=0, le=MAX_PIECES)]
TaskIds = Annotated[tuple[TaskIdBytes, ...], Meta(max_length=MAX_BATCH_ENTRIES)]
Keepers = Annotated[tuple[NodeIdBytes, ...], Meta(max_length=MAX_KEEPERS)]


class DeletedTask(Record, frozen=True, kw_only=True):
    """The proof that a task was deleted; whoever gets it checks both statements itself."""

    task_id: TaskIdBytes
    tombstone: Signed
    manifest: Signed


DeletedTasks = Annotated[tuple[DeletedTask, ...], Meta(max_length=MAX_TOMBSTONES)]


class Announce(Message, frozen=True, kw_only=True, tag="announce"):
    """Holder, to each keeper of the tasks in it: when what it has changes, and on ring changes.

    `batch` is an `AnnouncementBatch`, signed by the sender.
    """

    batch: Signed


class AnnounceReply(Message, frozen=True, kw_only=True, tag="announce_reply"):
    """Keeper: what became of a batch. Tasks named in no list were taken."""

    dropped: DropReason | None = None
    """The whole batch was dropped, for this reason; the lists are then empty."""
    sequence_seen: Count = 0
    """The highest sequence number known of the sender, so that it can go on above it."""
    refused: TaskIds = ()
    """Not kept here, or no room: worth another try later or elsewhere."""
    unknown: TaskIds = ()
    """Taken, but their record is missing here: the holder restores it."""
    mismatched: TaskIds = ()
    """Not taken: the record here names another manifest, or it has another number of pieces."""
    deleted: DeletedTasks = ()


class Heartbeat(Message, frozen=True, kw_only=True, tag="heartbeat"):
    """Holder, each lease interval to each keeper it has announced to: all of it still holds.

    `statement` is a `LeaseHeartbeat`, signed by the sender.
    """

    statement: Signed


class HeartbeatReply(Message, frozen=True, kw_only=True, tag="heartbeat_reply"):
    """Keeper: the lease is renewed, or with `resync` everything must be announced anew."""

    dropped: DropReason | None = None
    sequence_seen: Count = 0
    resync: bool = False
    deleted: DeletedTasks = ()


class AskHolders(Message, frozen=True, kw_only=True, tag="ask_holders"):
    """Any node, to a keeper: who has pieces of this task?"""

    task_id: TaskIdBytes


class HolderEntry(CompactRecord, frozen=True):
    """One alive node that has pieces of a task."""

    node_id: NodeIdBytes
    pieces: PieceCount
    complete: bool


class HoldersReply(Message, frozen=True, kw_only=True, tag="holders_reply"):
    """Keeper: the alive holders it knows, complete ones first (at most `MAX_HOLDERS`)."""

    holders: Annotated[tuple[HolderEntry, ...], Meta(max_length=MAX_HOLDERS)]
    covered: bool = False
    """Whether the alive holders known here have every piece between them."""
    keepers: Keepers = ()
    """If the task is not kept here: who keeps it, by this node's view of the ring."""


class AskRelease(Message, frozen=True, kw_only=True, tag="ask_release"):
    """Complete holder, to each keeper, before it drops its copy for want of room or on request."""

    task_id: TaskIdBytes
    others: Annotated[int, Meta(ge=1, le=1000)] = 1
    """How many copies must be left: as many as the task's publisher asked for, where it is only
    that there are more."""


class ReleaseReply(Message, frozen=True, kw_only=True, tag="release_reply"):
    """Keeper: `granted` if enough complete, alive holders are left that have no grant themselves.

    A grant stands for 30 s, within which the holder drops its copy or keeps it. It takes the
    grants of more than half of the task's keepers, so that two holders cannot both get leave
    from different ones.
    """

    granted: bool
