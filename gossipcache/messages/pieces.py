"""What a child and a parent say on a piece channel.

The child dials, and the channel serves one task for one child:

    child                              parent
    OpenTask                  ->
                              <-       TaskOpened, then Have… | TaskRefused
    GetPages                  ->
                              <-       Page (as many as asked for, in order)
    RequestPiece              ->
                              <-       PieceQueued…, if the piece has to wait
                              <-       the piece itself (`PieceChannel.send_piece`) | PieceRefused
    Cancel                    ->
                              <-       Have, as the parent gets or offers more pieces
    Have, of what others give ->

A parent that meets anything else, or more requests at once than the limits below, closes the
channel. Nothing here needs a signature: the channel is authenticated, the manifest is signed,
pages are proven by its root and pieces by the pages.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gossipcache.manifest import Digest, TaskIdBytes
from gossipcache.wire import Message

MAX_PIECES = 2**22
"""Of one task: 16 TiB in 4 MiB pieces, 64 TiB in 16 MiB pieces; bounds what a bitmap takes."""
MAX_PAGE_BYTES = 32 * 1024
MAX_HAVE_BYTES = 32 * 1024
MAX_PAGES_AT_ONCE = 16
MAX_REQUESTS_AT_ONCE = 64
"""Requests of one channel that wait for an answer, cancelled ones not counted."""
MAX_WAIT_MS = 3600 * 1000

RequestId = Annotated[int, Meta(ge=1, le=2**32 - 1)]
PieceIndex = Annotated[int, Meta(ge=0, le=MAX_PIECES - 1)]
RefusalCode = Literal["not_found", "busy"]
WaitMs = Annotated[int, Meta(ge=0, le=MAX_WAIT_MS)]


class OpenTask(Message, frozen=True, kw_only=True, tag="open_task"):
    """Child, first on every channel: which task, and which manifest of it, is wanted."""

    task_id: TaskIdBytes
    manifest_name: Digest
    follow: bool
    """Whether `Have` is wanted on this channel; a child asks for it on one of its channels."""


class TaskOpened(Message, frozen=True, kw_only=True, tag="task_opened"):
    """Parent: pages and pieces may be asked for. `complete`: it has all pieces.

    `offers`: it tells by `Have` of those that this child should ask it for, different ones than
    others, so that the children have something to swap. It gives any other piece as well; a child
    asks it for one where nobody else would bring anything soon.
    """

    complete: bool
    offers: bool = False


class TaskRefused(Message, frozen=True, kw_only=True, tag="task_refused"):
    """Parent, instead of `TaskOpened` or any time later: it does not serve this task (any more).

    It closes the channel after it. When it is `busy`, the child may come back after
    `retry_after_ms`, not all children at the same moment; 0: it does not say.
    """

    code: RefusalCode
    retry_after_ms: WaitMs = 0


class Have(Message, frozen=True, kw_only=True, tag="have"):
    """Pieces that one has, as a slice of its bitmap. Only ever adds to what was said before.

    In the bit order of BEP 3: the highest bit of the first byte is piece `first`. The parent sends
    it after `TaskOpened`, and again, with what is new, while it is downloading itself, or offers
    its pieces by and by. The child sends it to a parent that offers, on the channel on which it
    follows, when it has or awaits from others what it was offered: of these it need not be told.
    """

    first: Annotated[int, Meta(ge=0, le=MAX_PIECES - 8, multiple_of=8)]
    bits: Annotated[bytes, Meta(min_length=1, max_length=MAX_HAVE_BYTES)]


class GetPages(Message, frozen=True, kw_only=True, tag="get_pages"):
    """Child: `count` pages of one level of the digest tree, from page `first` on."""

    level: Annotated[int, Meta(ge=0, le=7)]
    first: PieceIndex
    count: Annotated[int, Meta(ge=1, le=MAX_PAGES_AT_ONCE)]


class Page(Message, frozen=True, kw_only=True, tag="page"):
    """Parent: one page asked for by `GetPages`."""

    level: Annotated[int, Meta(ge=0, le=7)]
    index: PieceIndex
    data: Annotated[bytes, Meta(max_length=MAX_PAGE_BYTES)]


class RequestPiece(Message, frozen=True, kw_only=True, tag="request_piece"):
    """Child: send piece `index`. `request_id` is the child's choice, not used twice on a channel.

    At most `MAX_REQUESTS_AT_ONCE` may be unanswered.
    """

    request_id: RequestId
    index: PieceIndex


class PieceQueued(Message, frozen=True, kw_only=True, tag="piece_queued"):
    """Parent: so many others come first that the piece will not begin before about `wait_ms`.

    Those asked for after it on the same channel wait behind it. Said again when it proves wrong,
    once a second at most, and every ten seconds in any case; once more, with 0, when the turn has
    come. A child keeps its place if it cancels the request and makes another.
    """

    request_id: RequestId
    wait_ms: WaitMs


class PieceRefused(Message, frozen=True, kw_only=True, tag="piece_refused"):
    """Parent, instead of the piece: it has not got it, or cannot give it now."""

    request_id: RequestId
    code: RefusalCode


class Cancel(Message, frozen=True, kw_only=True, tag="cancel"):
    """Child: the piece is not wanted any more. Not answered; the piece may come all the same."""

    request_id: RequestId


PieceMessage = (
    OpenTask
    | TaskOpened
    | TaskRefused
    | Have
    | GetPages
    | Page
    | RequestPiece
    | PieceQueued
    | PieceRefused
    | Cancel
)
"""All that is allowed on a piece channel."""
