"""Announcements: signed, sequenced, expiring statements of what a node holds.

A holder sends *batches* of what changed to each keeper, and in between a *heartbeat* over the
hash of all it has announced there, which renews the whole at the price of one signature. Both
are statements: kept opaque until the signature over their exact bytes has been checked.

The set hash is additive (AdHash, Bellare and Micciancio 1997), so that both sides keep it up
entry by entry. It finds differences between two honest sides; it need not resist an attacker,
since a node can only misstate its own set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from msgspec import Meta

from gossipcache.errors import IntegrityError, ProtocolError
from gossipcache.identity import Identity, Signed, verify
from gossipcache.ids import NodeId, TaskId
from gossipcache.manifest import ClusterIdBytes, Count, Digest, TaskIdBytes
from gossipcache.messages.announcements import (
    MAX_BATCH_ENTRIES,
    DropReason,
    PieceCount,
    TaskIds,
)
from gossipcache.wire import CompactRecord, Record, decode, encode

BATCH_DOMAIN = b"gossipcache/announcement/1"
HEARTBEAT_DOMAIN = b"gossipcache/heartbeat/1"
MAX_STATEMENT_BYTES = 64 * 1024 - 256
MAX_LIFETIME_S = 24 * 3600
SET_DIGEST_BYTES = 16
_SET_DIGEST_MASK = (1 << 8 * SET_DIGEST_BYTES) - 1


class Held(CompactRecord, frozen=True):
    """ "I hold this many pieces of this manifest of this task"."""

    task_id: TaskIdBytes
    manifest_name: Digest
    pieces: PieceCount
    piece_count: PieceCount

    @property
    def complete(self) -> bool:
        """Whether all pieces are there."""
        return self.pieces == self.piece_count


class Statement(Record, frozen=True, kw_only=True):
    """What batches and heartbeats share. Times in seconds since 1970."""

    version: Literal[1] = 1
    cluster_id: ClusterIdBytes
    sequence: Count
    """Higher than in any statement of this node to the same keeper before."""
    issued_at: Count
    expires_at: Count
    """At most 24 h after `issued_at`."""


class AnnouncementBatch(Statement, frozen=True, kw_only=True):
    """What a node now holds, and no longer holds, of some tasks (at most 800 in all)."""

    fresh: bool
    """Nothing that was announced to this keeper before holds any more."""
    held: Annotated[tuple[Held, ...], Meta(max_length=MAX_BATCH_ENTRIES)]
    withdrawn: TaskIds

    @property
    def task_ids(self) -> tuple[TaskId, ...]:
        """Every task it speaks of."""
        return tuple(TaskId(held.task_id) for held in self.held) + tuple(
            TaskId(task_id) for task_id in self.withdrawn
        )


class LeaseHeartbeat(Statement, frozen=True, kw_only=True):
    """All that was announced to this keeper still holds."""

    entries: Count
    set_digest: Annotated[bytes, Meta(min_length=SET_DIGEST_BYTES, max_length=SET_DIGEST_BYTES)]


Check = Callable[[Signed, bytes], bytes]
"""The payload of what is signed for a domain. Raises `IntegrityError`; see `identity.verify`."""

S = TypeVar("S", AnnouncementBatch, LeaseHeartbeat)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A statement that was not used, and why."""

    reason: DropReason


@dataclass(frozen=True, slots=True)
class Verifier:
    """What a keeper knows when it judges a statement that `sender` sent.

    `floor` is the highest sequence number taken from it, `wall_time` in seconds since 1970.
    """

    sender: NodeId
    cluster_id: bytes
    floor: int
    wall_time: float
    clock_skew_s: float
    check: Check = verify
    """Checks signatures."""

    def open_batch(self, signed: Signed) -> AnnouncementBatch | Dropped:
        """The batch in `signed`, if it holds in every respect."""
        batch = self._open(signed, BATCH_DOMAIN, AnnouncementBatch)
        if isinstance(batch, Dropped):
            return batch
        task_ids = batch.task_ids
        if len(task_ids) > MAX_BATCH_ENTRIES or len(set(task_ids)) != len(task_ids):
            return Dropped("malformed")
        if any(held.pieces > held.piece_count for held in batch.held):
            return Dropped("malformed")
        return batch

    def open_heartbeat(self, signed: Signed) -> LeaseHeartbeat | Dropped:
        """The heartbeat in `signed`, if it holds in every respect."""
        return self._open(signed, HEARTBEAT_DOMAIN, LeaseHeartbeat)

    def _open(self, signed: Signed, domain: bytes, kind: type[S]) -> S | Dropped:
        if len(signed.payload) > MAX_STATEMENT_BYTES:
            return Dropped("oversized")
        if signed.signer != self.sender:
            return Dropped("forged")
        try:
            statement = decode(self.check(signed, domain), kind)
        except IntegrityError:
            return Dropped("altered")
        except ProtocolError:
            return Dropped("malformed")
        reason = self._judge(statement)
        return statement if reason is None else Dropped(reason)

    def _judge(self, statement: Statement) -> DropReason | None:
        if statement.cluster_id != self.cluster_id:
            return "foreign"
        if statement.sequence <= self.floor:
            return "replayed"
        if not 0 <= statement.expires_at - statement.issued_at <= MAX_LIFETIME_S:
            return "malformed"
        earliest = statement.issued_at - self.clock_skew_s
        latest = statement.expires_at + self.clock_skew_s
        return None if earliest <= self.wall_time <= latest else "expired"


def sign_batch(batch: AnnouncementBatch, identity: Identity) -> Signed:
    """`batch` signed by its holder."""
    return identity.sign(BATCH_DOMAIN, encode(batch))


def sign_heartbeat(heartbeat: LeaseHeartbeat, identity: Identity) -> Signed:
    """`heartbeat` signed by its holder."""
    return identity.sign(HEARTBEAT_DOMAIN, encode(heartbeat))


class HeldSet:
    """What one node has announced to one keeper, with its running hash; kept on both sides."""

    def __init__(self) -> None:
        self._held: dict[TaskId, Held] = {}
        self._sum = 0

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[TaskId]:
        return iter(self._held)

    def __contains__(self, task_id: TaskId) -> bool:
        return task_id in self._held

    def get(self, task_id: TaskId) -> Held | None:
        """What is held of a task, or None."""
        return self._held.get(task_id)

    def put(self, held: Held) -> None:
        """Adds an entry in place of the task's earlier one."""
        task_id = TaskId(held.task_id)
        self.remove(task_id)
        self._held[task_id] = held
        self._sum += _entry_hash(held)

    def remove(self, task_id: TaskId) -> None:
        """Takes the task's entry out, if there is one."""
        held = self._held.pop(task_id, None)
        if held is not None:
            self._sum -= _entry_hash(held)

    @property
    def digest(self) -> bytes:
        """The hash of the whole set (16 bytes), whatever the order it was built in."""
        return (self._sum & _SET_DIGEST_MASK).to_bytes(SET_DIGEST_BYTES, "big")


def _entry_hash(held: Held) -> int:
    numbers = held.pieces.to_bytes(8, "big") + held.piece_count.to_bytes(8, "big")
    entry = held.task_id + held.manifest_name + numbers
    return int.from_bytes(hashlib.blake2b(entry, digest_size=SET_DIGEST_BYTES).digest(), "big")
