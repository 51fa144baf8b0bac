"""What one bare process has of tasks, and the pieces that it serves to others.

As `transfer.server` and `transfer.upload` do it: a child opens a channel, asks for pieces in a
line, and hears on one of its channels what more the parent has: at once if it waits for nothing on
that channel, else at most every `HAVE_INTERVAL_S`. The content of a piece is stood for by a few
bytes that depend on the task and its index; a child compares them before it counts the piece as its
own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from gossipcache.ids import NodeId, TaskId
from gossipcache.manifest import SignedManifest
from gossipcache.messages.pieces import (
    OpenTask,
    Page,
    PieceRefused,
    TaskOpened,
    TaskRefused,
)
from gossipcache.transfer.bitmap import have_messages, pieces_of
from gossipcache.transfer.offering import Offering
from gossipcache.transfer.upload import HAVE_INTERVAL_S, queued
from sim.bare.bulk import BulkChannel, BulkHost, BulkNetwork
from sim.bare.process import Process
from sim.bare.timeline import Timeline

_DIGEST_BYTES = 32
_MAX_PAGE_BYTES = 32 * 1024


def content_of(task_id: TaskId, index: int) -> bytes:
    """What stands for the bytes of a piece."""
    return hashlib.blake2b(task_id + index.to_bytes(4, "big"), digest_size=8).digest()


@dataclass(eq=False)
class Shelf:
    """What a process has of one task."""

    signed: SignedManifest
    present: int = 0
    """Bitmap of the pieces that were verified."""
    contents: dict[int, bytes] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether it has all pieces."""
        return self.present.bit_count() == self.signed.manifest.piece_count

    def fill(self) -> None:
        """It has all pieces from now on."""
        for index in range(self.signed.manifest.piece_count):
            self.put(index, content_of(self.signed.task_id, index))

    def put(self, index: int, content: bytes) -> bool:
        """Takes a piece in if it is what it must be."""
        if content != content_of(self.signed.task_id, index):
            return False
        self.contents[index] = content
        self.present |= 1 << index
        return True


class Slot(Protocol):
    """The child's end of a channel; its methods are steps of the child's process."""

    process: Process
    bulk: BulkHost

    def opened(self, upload: Upload, pieces: int, offers: bool) -> None:
        """The parent serves the task, and has all its pieces; or it will tell (0)."""

    def refused(self, code: str) -> None:
        """The parent does not serve the task."""

    def paged(self) -> None:
        """The digest tree came."""

    def told(self, pieces: int) -> None:
        """The parent has these pieces (bitmap) too."""

    def came(self, request_id: int, content: bytes) -> None:
        """A piece came in whole."""

    def delayed(self, request_id: int, wait_s: float) -> None:
        """The piece waits so long in the parent's line; 0: its turn has come."""

    def piece_refused(self, request_id: int) -> None:
        """The parent has not got the piece."""

    def broke(self) -> None:
        """The parent's process is gone."""


class BareServer:
    """The parent's end of all channels of one process."""

    def __init__(
        self, process: Process, timeline: Timeline, network: BulkNetwork, bulk: BulkHost
    ) -> None:
        self.process = process
        self.timeline = timeline
        self.network = network
        self.bulk = bulk
        self.shelves: dict[TaskId, Shelf] = {}
        self.uploads: dict[Upload, None] = {}
        self.offerings: dict[TaskId, Offering] = {}
        process.on_end.append(self._end)

    def shelf(self, signed: SignedManifest) -> Shelf:
        """Where the pieces of a task are put."""
        return self.shelves.setdefault(signed.task_id, Shelf(signed))

    def gained(self, shelf: Shelf) -> None:
        """A piece was put there: children that follow are told, soon."""
        for upload in self.uploads:
            if upload.shelf is shelf:
                upload.tell_soon()

    def open(self, slot: Slot, request: OpenTask) -> None:
        """A child opens a channel."""
        shelf = self.shelves.get(TaskId(request.task_id))
        if shelf is None or shelf.signed.name != request.manifest_name:
            refusal = TaskRefused(code="not_found")
            self.network.say(self.process, slot.process, refusal, slot.refused, "not_found")
            return
        upload = Upload(self, shelf, slot, follows=request.follow)
        self.uploads[upload] = None
        upload.start()

    def offering(self, shelf: Shelf) -> Offering:
        """How a task is offered."""
        task_id, count = shelf.signed.task_id, shelf.signed.manifest.piece_count
        start = self.bulk.host.rng.randrange(count)
        return self.offerings.setdefault(task_id, Offering(count, start))

    def uploads_to(self, child: NodeId) -> Iterator[Upload]:
        """The channels of one child."""
        return (upload for upload in self.uploads if upload.child == child)

    def _end(self, silent: bool) -> None:
        for upload in list(self.uploads):
            upload.close()
            if not silent:
                self.network.reach(upload.slot.process, upload.slot.broke)


class Upload:
    """The parent's end of one channel; what a child says are steps of the parent's process."""

    def __init__(self, server: BareServer, shelf: Shelf, slot: Slot, *, follows: bool) -> None:
        self.shelf = shelf
        self.slot = slot
        self.server = server
        self.child = slot.process.node_id
        self._channel = BulkChannel(
            server.network,
            server.bulk,
            slot.bulk,
            self.child,
            self._sent,
            self._settled,
            self._tell_wait,
        )
        self._follows = follows
        self._offering = server.offering(shelf) if shelf.is_complete else None
        self._told = 0
        self._tells_at: float | None = None
        self._told_at = float("-inf")

    def start(self) -> None:
        """Says that the task is served, and what there is of it."""
        if self._offering is not None and self._follows:
            self._offering.join(self.child)
        whole = self._offering is not None
        offers = self._offering is not None and not self._offering.is_open
        pieces = self.shelf.present if whole and not offers else 0
        opened = TaskOpened(complete=whole, offers=offers)
        self._say(opened, self.slot.opened, self, pieces, offers)
        self._told = pieces
        if not pieces:
            self.tell_soon()

    def page(self) -> None:
        """The digest tree is asked for: a single page."""
        size = min(_DIGEST_BYTES * self.shelf.signed.manifest.piece_count, _MAX_PAGE_BYTES)
        self._say(Page(level=0, index=0, data=bytes(size)), self.slot.paged)

    def request(self, request_id: int, index: int) -> None:
        """A piece is asked for."""
        if not self.shelf.present >> index & 1:
            refusal = PieceRefused(request_id=request_id, code="not_found")
            self._say(refusal, self.slot.piece_refused, request_id)
            return
        self._channel.ask(request_id, index, self.shelf.signed.manifest.piece_length(index))
        if self._offering is not None and self._offering.asked(self.child, index):
            for upload in list(self.server.uploads_to(self.child)):
                upload.tell_now()

    def spare(self, pieces: int) -> None:
        """The child need not be told of these pieces."""
        if self._offering is not None and self._offering.spared(self.child, pieces):
            self.tell_now()

    def cancel(self, request_id: int) -> None:
        """A request is taken back."""
        if self._channel.cancel(request_id):
            self._settled()

    def close(self) -> None:
        """The channel is over."""
        lost = self._channel.owed
        self._channel.close()
        if self._offering is not None:
            for index in lost:
                self._offering.settled(self.child, index)
        if self.server.uploads.pop(self, self) is None and self._follows and self._offering:
            self._offering.leave(self.child)
            if self._offering.is_idle:
                self.server.offerings.pop(self.shelf.signed.task_id, None)

    @property
    def received_bytes(self) -> int:
        """What has come in at the child."""
        return self._channel.received_bytes

    def tell_soon(self) -> None:
        """There is more than the child knows of."""
        if self._follows and self._tells_at is None:
            is_idle = self._offering is None and self._channel.is_idle
            self._tell_at(self._told_at + (0.0 if is_idle else HAVE_INTERVAL_S))

    def tell_now(self) -> None:
        """The child asked for what it was offered."""
        if self._follows and self._told != self.shelf.present:
            self._send_news()

    def _tell_at(self, at: float) -> None:
        timeline = self.server.timeline
        self._tells_at = max(timeline.now, at)
        timeline.push(self._tells_at, self.server.process.step, self._tell, self._tells_at)

    def _tell(self, at: float) -> None:
        if self._tells_at == at and self in self.server.uploads:
            self._tells_at = None
            self._told_at = at
            self._send_news()
            if self._told != self.shelf.present:
                self.tell_soon()

    def _send_news(self) -> None:
        news = self._news()
        self._told |= news
        count = self.shelf.signed.manifest.piece_count
        for message in have_messages(news, count):
            self._say(message, self.slot.told, pieces_of(message, count))

    def _news(self) -> int:
        if self._offering is None:
            return self.shelf.present & ~self._told
        return self._offering.more(self.child)

    def _settled(self) -> None:
        if self._channel.is_closed:
            return
        if self._offering is not None:
            self._offering.settled(self.child)
        elif self._tells_at is not None and self._channel.is_idle:
            self._tell_at(self.server.timeline.now)

    def _tell_wait(self, request_id: int, wait_s: float) -> None:
        self._say(queued(request_id, wait_s), self.slot.delayed, request_id, wait_s)

    def _sent(self, request_id: int, index: int) -> None:
        self.slot.process.step(self.slot.came, request_id, self.shelf.contents[index])

    def _say(self, *said: object) -> None:
        self.server.network.say(self.server.process, self.slot.process, *said)  # type: ignore
