"""What nodes tell keepers of the deletions that they remember, for keepers that lost them.

    node that remembers                keeper
    GravesHere                ->                    (a notification)

    keeper                             node that remembers
    AskGraves                 ->
                              <-       GravesPage
    AskProofs                 ->
                              <-       ProofsPage

A *grave* is what is remembered of a deletion beside the keepers' records: by former holders and
by whoever deleted. The proofs are checked by the keeper like any tombstone.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from gossipcache.manifest import Generation, TaskIdBytes
from gossipcache.messages.records import Entries
from gossipcache.wire import CompactRecord, Message

MAX_GRAVES = 1000
"""Of one page."""
MAX_PROOFS_ASKED = 100


class GravesHere(Message, frozen=True, kw_only=True, tag="graves_here"):
    """A node that came back, or that sees a new keeper: I remember deletions of tasks you keep.
    A notification; the keeper then asks."""


class AskGraves(Message, frozen=True, kw_only=True, tag="ask_graves"):
    """Keeper to any node: which deletions do you remember of tasks that I keep, from behind the
    task `after` on? Answered by `GravesPage`."""

    after: Annotated[bytes, Meta(max_length=32)] = b""


class GraveRow(CompactRecord, frozen=True):
    """A task, and the highest generation of it that was deleted."""

    task_id: TaskIdBytes
    generation: Generation


class GravesPage(Message, frozen=True, kw_only=True, tag="graves_page"):
    """Rows by task id; `more`: ask on from the last."""

    graves: Annotated[tuple[GraveRow, ...], Meta(max_length=MAX_GRAVES)]
    more: bool


class AskProofs(Message, frozen=True, kw_only=True, tag="ask_proofs"):
    """Keeper to the same node: the proofs of these. Answered by `ProofsPage`."""

    task_ids: Annotated[tuple[TaskIdBytes, ...], Meta(max_length=MAX_PROOFS_ASKED)]


class ProofsPage(Message, frozen=True, kw_only=True, tag="proofs_page"):
    """Tombstones with the manifests they delete, in the order asked for, as many as fit; `done`
    of the ids were looked at. Of old deletions only the generation is left, and no proof."""

    entries: Entries
    done: Annotated[int, Meta(ge=0, le=MAX_PROOFS_ASKED)]
