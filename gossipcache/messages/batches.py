"""Many small tasks by one message: their records, and their content.

        any node                           keeper
        ReadRecords               ->
                                  <-       RecordsRead
        WriteRecords              ->
                                  <-       RecordsWritten

        coordinator                        keeper
        PrepareRecords            ->
                                  <-       RecordsJudged
        CommitRecords             ->
                                  <-       RecordsJudged

        any node                           holder or keeper
        GetContents               ->
                                  <-       Contents

Each entry fares as it would alone; these messages only settle the plain ones. What an answer
leaves open is asked for by the messages for single tasks, whose answers say why.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from gossipcache.manifest import Digest, NodeIdBytes, TaskIdBytes
from gossipcache.messages.records import (
    MAX_ENTRIES,
    MAX_KEEPERS,
    BucketRow,
    Entries,
    RecordEntry,
)
from gossipcache.wire import CompactRecord, Message

MAX_CONTENT_BYTES = 64 * 1024
"""Of content that travels in an answer, all contents of one answer together."""
MAX_NAMED_HOLDERS = 4

Tasks = Annotated[tuple[TaskIdBytes, ...], Meta(max_length=MAX_ENTRIES)]
Judged = Annotated[tuple[bool, ...], Meta(max_length=MAX_ENTRIES)]
Copies = Annotated[int, Meta(ge=0, le=MAX_KEEPERS)]


class ReadRecords(Message, frozen=True, kw_only=True, tag="read_records"):
    """Anyone to a keeper: what do you hold of these tasks?"""

    task_ids: Tasks


class KnownRecord(CompactRecord, frozen=True):
    """What the keeper holds of one task; `settled`, `hearsay`: as in `RecordAnswer`. Without an
    entry: settled, there is none; else it cannot say."""

    entry: RecordEntry | None
    settled: bool
    hearsay: bool


class RecordsRead(Message, frozen=True, kw_only=True, tag="records_read"):
    """Keeper: the first tasks asked for, in their order, as many as fit."""

    records: Annotated[tuple[KnownRecord, ...], Meta(max_length=MAX_ENTRIES)]


class WriteRecords(Message, frozen=True, kw_only=True, tag="write_records"):
    """Anyone to the keeper that shall coordinate: publish these manifests."""

    entries: Entries


class RecordsWritten(Message, frozen=True, kw_only=True, tag="records_written"):
    """Coordinator: on how many keepers each entry is committed, in the order of the request. 0: it
    was not written by this request; `WriteRecord` tells why, or does it."""

    copies: Annotated[tuple[Copies, ...], Meta(max_length=MAX_ENTRIES)]


class PrepareRecords(Message, frozen=True, kw_only=True, tag="prepare_records"):
    """Coordinator to another keeper: hold these manifests provisionally, durably, for some
    seconds."""

    entries: Entries


class CommitRecords(Message, frozen=True, kw_only=True, tag="commit_records"):
    """Coordinator to a keeper that prepared these: they stand."""

    rows: Annotated[tuple[BucketRow, ...], Meta(max_length=MAX_ENTRIES)]


class RecordsJudged(Message, frozen=True, kw_only=True, tag="records_judged"):
    """Keeper: which of the request's entries it did, durably, in their order."""

    done: Judged


class GetContents(Message, frozen=True, kw_only=True, tag="get_contents"):
    """Anyone to a keeper or holder: the content of these tasks, if it is small."""

    task_ids: Tasks


class Content(CompactRecord, frozen=True):
    """The whole content of one task, under the manifest of that name, as its holder has it; to be
    verified by the root in the manifest. Without `data` it is not here, or not small; a keeper
    then names some that have all of it."""

    manifest_name: Digest | None
    data: Annotated[bytes, Meta(max_length=MAX_CONTENT_BYTES)] | None
    holders: Annotated[tuple[NodeIdBytes, ...], Meta(max_length=MAX_NAMED_HOLDERS)]


class Contents(Message, frozen=True, kw_only=True, tag="contents"):
    """The first tasks asked for, in their order, as many as fit."""

    contents: Annotated[tuple[Content, ...], Meta(max_length=MAX_ENTRIES)]
