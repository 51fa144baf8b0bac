"""What keepers of task records, and those who ask them, say to each other.

Statements inside are `Signed` and opened by whoever receives them; the sender's word counts
only for what is said about the sender itself (that it holds, lacks or keeps something).
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gossipcache.identity import Signed
from gossipcache.manifest import Count, NodeIdBytes, TaskIdBytes
from gossipcache.wire import Message, Record

MAX_FORK = 3
"""Manifests of one generation that are told apart after a partition."""
BUCKET_COUNT = 256
BUCKET_DIGEST_BYTES = 16
VERSION_BYTES = 16
MAX_ROWS = 1000
MAX_ENTRIES = 128
"""Of one message; the limit of 64 KiB allows some 100 usual entries."""
MAX_KEEPERS = 16

Epoch = Annotated[bytes, Meta(max_length=32)]
Version = Annotated[bytes, Meta(min_length=VERSION_BYTES, max_length=VERSION_BYTES)]
Digest = Annotated[bytes, Meta(min_length=BUCKET_DIGEST_BYTES, max_length=BUCKET_DIGEST_BYTES)]
Bucket = Annotated[int, Meta(ge=0, lt=BUCKET_COUNT)]
Keepers = Annotated[tuple[NodeIdBytes, ...], Meta(max_length=MAX_KEEPERS)]
Introductions = Annotated[tuple[Signed, ...], Meta(max_length=MAX_KEEPERS)]


class RecordEntry(Record, frozen=True, kw_only=True):
    """What a keeper holds of one task: the manifest of its last generation (several only of a
    fork), or the tombstone of that generation with the manifest it deletes."""

    manifests: Annotated[tuple[Signed, ...], Meta(min_length=1, max_length=MAX_FORK)]
    tombstone: Signed | None = None


Entries = Annotated[tuple[RecordEntry, ...], Meta(max_length=MAX_ENTRIES)]


class ReadRecord(Message, frozen=True, kw_only=True, tag="read_record"):
    """Anyone to a keeper: what do you hold of this task? Answered by `RecordAnswer`.

    `reconcile`: compare with the other keepers first, because answers differed. `epoch`: the ring
    by which the sender asks.
    """

    task_id: TaskIdBytes
    reconcile: bool = False
    epoch: Epoch = b""


class RecordAnswer(Message, frozen=True, kw_only=True, tag="record_answer"):
    """`held` comes with the entry; `settled`: the keeper would know of a newer one.
    `recovering`: nothing held, but that proves nothing yet. `not_keeper`: ask `keepers`, the
    sender's view of who keeps the task. They are also named to who asks by another ring.
    `introductions` are their own member records, for an asker that has not heard of them.
    `hearsay`: the sender was told by one keeper alone, and vouches for nothing."""

    state: Literal["held", "absent", "recovering", "not_keeper"]
    entry: RecordEntry | None = None
    settled: bool = False
    hearsay: bool = False
    keepers: Keepers = ()
    introductions: Introductions = ()


class WriteRecord(Message, frozen=True, kw_only=True, tag="write_record"):
    """Anyone to the keeper that shall coordinate: publish this manifest, or bury it if a
    tombstone is with it. Answered by `RecordWritten`.

    `restore`: the manifest had been committed; its keepers may have lost it.
    """

    entry: RecordEntry
    restore: bool = False


class RecordWritten(Message, frozen=True, kw_only=True, tag="record_written"):
    """`written`: committed on `copies` keepers. `stands`: `entry` stands already, with the same
    content. `generation`: the manifest must be signed for `generation`. `not_keeper`: ask
    `keepers`, with `introductions` as in `RecordAnswer`. Conflicts, missing rights and a missed
    quorum are answered as errors."""

    outcome: Literal["written", "stands", "generation", "not_keeper"]
    copies: Annotated[int, Meta(ge=0, le=MAX_KEEPERS)] = 0
    generation: Count = 0
    entry: RecordEntry | None = None
    keepers: Keepers = ()
    introductions: Introductions = ()


class PrepareRecord(Message, frozen=True, kw_only=True, tag="prepare_record"):
    """Coordinator to the other keepers: hold this provisionally, durably, for some seconds.
    Answered by `RecordPrepared`."""

    entry: RecordEntry
    restore: bool = False


class RecordPrepared(Message, frozen=True, kw_only=True, tag="record_prepared"):
    """`ready`: durable. `refused`: `entry` stands against it (none: nothing does, the generation
    is too high). `not_ready`: another write is under way, or the keeper is recovering."""

    verdict: Literal["ready", "refused", "not_ready"]
    entry: RecordEntry | None = None


class CommitRecord(Message, frozen=True, kw_only=True, tag="commit_record"):
    """Coordinator to the keepers that prepared: it stands. Answered by `RecordsTaken`."""

    entry: RecordEntry


class WithdrawRecord(Message, frozen=True, kw_only=True, tag="withdraw_record"):
    """Coordinator to the keepers that prepared: forget it. A notification."""

    task_id: TaskIdBytes
    version: Version


class PushRecords(Message, frozen=True, kw_only=True, tag="push_records"):
    """Keeper to keeper: committed entries that the other lacks or has older.
    Answered by `RecordsTaken` once they are durable."""

    entries: Entries


class RecordsTaken(Message, frozen=True, kw_only=True, tag="records_taken"):
    """How many of the entries now stand, or are outdone by something newer."""

    count: Annotated[int, Meta(ge=0, le=MAX_ENTRIES)]


class CompareShared(Message, frozen=True, kw_only=True, tag="compare_shared"):
    """Keeper to keeper: one digest over all that both of us keep on the ring `epoch`. Opens
    every comparison, and mostly ends it. Answered by `SharedCompared`.

    `graves`, here and there: the sum of the generations whose deletion the sender remembers
    outside its records, so that it differs after each.
    """

    epoch: Epoch
    digest: Digest
    graves: Count


class SharedCompared(Message, frozen=True, kw_only=True, tag="shared_compared"):
    """Whether the sender's own digest, on the ring `epoch`, is the same.

    `recovering_ms`: for how long some "absent" of the sender proves nothing yet, because records
    were lost with all their keepers.
    """

    epoch: Epoch
    equal: bool
    graves: Count
    recovering_ms: Count


class CompareBuckets(Message, frozen=True, kw_only=True, tag="compare_buckets"):
    """Keeper to keeper, once the one digest differs: digests of the same by bucket. Answered by
    `BucketsDiffer`."""

    digests: Annotated[bytes, Meta(max_length=BUCKET_COUNT * BUCKET_DIGEST_BYTES)]


class BucketsDiffer(Message, frozen=True, kw_only=True, tag="buckets_differ"):
    """The buckets whose digests differ."""

    buckets: Annotated[tuple[Bucket, ...], Meta(max_length=BUCKET_COUNT)]


class ListBucket(Message, frozen=True, kw_only=True, tag="list_bucket"):
    """Keeper to keeper: which versions of our shared tasks are in this bucket, from behind the
    task `after` on? Answered by `BucketPage`."""

    bucket: Bucket
    after: Annotated[bytes, Meta(max_length=32)] = b""


class BucketRow(Record, frozen=True, array_like=True):
    """A task and the version of its entry."""

    task_id: TaskIdBytes
    version: Version


class BucketPage(Message, frozen=True, kw_only=True, tag="bucket_page"):
    """Rows by task id; `more`: ask on from the last."""

    rows: Annotated[tuple[BucketRow, ...], Meta(max_length=MAX_ROWS)]
    more: bool


class FetchRecords(Message, frozen=True, kw_only=True, tag="fetch_records"):
    """Keeper to keeper: the entries of these tasks. Answered by `RecordPage`."""

    task_ids: Annotated[tuple[TaskIdBytes, ...], Meta(max_length=MAX_ROWS)]


class RecordPage(Message, frozen=True, kw_only=True, tag="record_page"):
    """Entries in the order asked for, as many as fit; `done` of the ids were looked at."""

    entries: Entries
    done: Annotated[int, Meta(ge=0, le=MAX_ROWS)]
