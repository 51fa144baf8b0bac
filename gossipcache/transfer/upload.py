"""One channel to a child, with its task open."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from functools import partial

import trio

from gossipcache.config import TransferConfig
from gossipcache.env import DiskFile, Workers
from gossipcache.errors import IntegrityError, NodeUnreachable, ProtocolError, TaskNotFound
from gossipcache.ids import NodeId, TaskId
from gossipcache.link.interface import PieceChannel
from gossipcache.manifest import Manifest
from gossipcache.messages.pieces import (
    MAX_PAGES_AT_ONCE,
    MAX_REQUESTS_AT_ONCE,
    MAX_WAIT_MS,
    Cancel,
    GetPages,
    Have,
    Page,
    PieceQueued,
    PieceRefused,
    RequestPiece,
    TaskOpened,
    TaskRefused,
)
from gossipcache.metrics import Metrics
from gossipcache.transfer.bitmap import have_messages, pieces_of, to_bitmap
from gossipcache.transfer.digest_tree import DigestTree, page_count
from gossipcache.transfer.limits import TransferLimits
from gossipcache.transfer.offering import Offering
from gossipcache.transfer.store.arrivals import Arrivals
from gossipcache.transfer.store.index import StoredTask
from gossipcache.transfer.store.store import Store
from gossipcache.wire import Message

IDLE_TIMEOUT_S = 300.0
"""A channel on which nothing was asked for and nothing sent this long is closed."""
HAVE_INTERVAL_S = 0.1
"""New pieces are told at most this often, together, unless the child waits for nothing."""
HAVE_POLL_S = 30.0
"""How often a partial task is looked at that no download adds to."""
SLOWEST_BYTES_PER_S = 16 * 1024
"""A child that takes a piece in more slowly than this loses its channel."""


class Offers:
    """An `Offering`, and whom it wakes."""

    def __init__(self, piece_count: int, start: int) -> None:
        self.core = Offering(piece_count, start)
        self._due: dict[NodeId, trio.Event] = {}

    def asked(self, child: NodeId, index: int) -> None:
        """A child asks for a piece."""
        if self.core.asked(child, index):
            self._wake(child)

    def spared(self, child: NodeId, pieces: int) -> None:
        """A child need not be told of these pieces (bitmap)."""
        if self.core.spared(child, pieces):
            self._wake(child)

    async def wait(self, child: NodeId) -> None:
        """Returns when the child should hear of more."""
        due = self._due[child] = trio.Event()
        with trio.move_on_after(HAVE_INTERVAL_S):
            await due.wait()
        if self._due.get(child) is due:
            del self._due[child]

    def _wake(self, child: NodeId) -> None:
        if child in self._due:
            self._due[child].set()


@dataclass(frozen=True, slots=True)
class OpenedTask:
    """The task of one channel."""

    store: Store
    arrivals: Arrivals
    manifest: Manifest
    manifest_name: bytes
    tree: DigestTree
    file: DiskFile

    @property
    def task_id(self) -> TaskId:
        """The task's id."""
        return TaskId(self.manifest.task_id)

    def stored(self) -> StoredTask | None:
        """The task as it stands in the store; None once it was deleted or replaced."""
        stored = self.store.find(self.task_id)
        return stored if stored and stored.manifest_name == self.manifest_name else None

    def pieces(self, stored: StoredTask) -> int:
        """The pieces that can be served now (bitmap)."""
        arrived = self.arrivals.pieces(self.task_id)
        return to_bitmap(stored.have.to_bytes()) if arrived is None else arrived

    def has(self, stored: StoredTask, index: int) -> bool:
        """Whether piece `index` can be served now."""
        arrived = self.arrivals.pieces(self.task_id)
        return index in stored.have if arrived is None else bool(arrived >> index & 1)


class Upload:
    """One channel with its task open. One trio task reads what the child says, one sends; what
    waits to be sent is bounded, for a child that asks for more than it may is cut off."""

    def __init__(
        self,
        channel: PieceChannel,
        task: OpenedTask,
        offers: Offers | None,
        workers: Workers,
        config: TransferConfig,
        limits: TransferLimits,
        metrics: Metrics,
    ) -> None:
        self._channel = channel
        self._task = task
        self._offers = offers
        self._child = channel.peer.node_id
        self._workers = workers
        self._config = config
        self._limits = limits
        self._pace = limits.upload.pace(task.task_id)
        self._metrics = metrics
        self._pages: deque[tuple[int, int]] = deque()
        self._wanted: dict[int, int] = {}
        """Piece index by request id, in the order asked."""
        self._told = 0
        """The pieces that the child knows of (bitmap)."""
        self._work = trio.Event()
        self._idle = trio.Event()
        """Set while the child waits for nothing."""
        self._idle.set()

    async def run(self, *, follow: bool) -> None:
        """Serves until the channel or the task ends."""
        stored = self._task.stored()
        if stored is None:
            await self._channel.send(TaskRefused(code="not_found"))
            return
        whole = stored.have.complete
        offers = whole and self._offers is not None and not self._offers.core.is_open
        await self._channel.send(TaskOpened(complete=whole, offers=offers))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_all, nursery.cancel_scope)
                if follow and (offers or not whole):
                    nursery.start_soon(self._offer_pieces if offers else self._tell_pieces)
                await self._read()
        finally:
            for index in self._wanted.values():
                self._settled(lost=index)

    async def _read(self) -> None:
        while True:
            with trio.move_on_after(IDLE_TIMEOUT_S):
                self._take(await self._channel.receive())
                continue
            if not (self._pages or self._limits.slots.serves(self._child)):
                raise trio.EndOfChannel  # It waits for nothing, on this channel or another.

    def _take(self, message: Message) -> None:
        match message:
            case RequestPiece(request_id=request_id, index=index):
                self._take_request(request_id, index)
            case Cancel(request_id=request_id):
                if self._wanted.pop(request_id, None) is not None:
                    self._settled()
            case Have() as have:
                pieces = pieces_of(have, self._task.manifest.piece_count)
                if self._offers is not None:
                    self._offers.spared(self._child, pieces)
            case GetPages(level=level, first=first, count=count):
                self._take_pages(level, range(first, first + count))
            case _:
                raise ProtocolError(f"{type(message).__name__} has no place on a piece channel")
        self._work.set()

    def _take_request(self, request_id: int, index: int) -> None:
        if index >= self._task.manifest.piece_count or request_id in self._wanted:
            raise ProtocolError("a request for a piece that is not in the task, or a second time")
        if len(self._wanted) >= MAX_REQUESTS_AT_ONCE:
            raise ProtocolError(f"more than {MAX_REQUESTS_AT_ONCE} requests at once")
        self._wanted[request_id] = index
        if self._idle.is_set():
            self._idle = trio.Event()
        if self._offers is not None:
            self._offers.asked(self._child, index)

    def _settled(self, lost: int | None = None) -> None:
        """A request is answered or taken back, unless its piece was `lost` with the channel."""
        if self._offers is not None:
            self._offers.core.settled(self._child, lost)

    def _take_pages(self, level: int, pages: range) -> None:
        tree = self._task.tree
        if level >= tree.levels or pages.stop > page_count(tree.piece_count, level):
            raise ProtocolError("a request for pages that are not in the digest tree")
        if len(self._pages) + len(pages) > MAX_PAGES_AT_ONCE:
            raise ProtocolError(f"more than {MAX_PAGES_AT_ONCE} pages at once")
        self._pages.extend((level, index) for index in pages)

    async def _send_all(self, done: trio.CancelScope) -> None:
        while True:
            self._idle.set()
            await self._work.wait()
            self._work = trio.Event()
            while self._pages or self._wanted:
                stored = self._task.stored()
                if stored is None:
                    await self._channel.send(TaskRefused(code="not_found"))
                    done.cancel()
                    return
                if self._pages:
                    await self._send_page(*self._pages.popleft())
                else:
                    await self._send_next(stored)

    async def _send_page(self, level: int, index: int) -> None:
        data = self._task.tree.page(level, index)
        await self._channel.send(Page(level=level, index=index, data=data))

    async def _send_next(self, stored: StoredTask) -> None:
        async with self._limits.slot(self._child, self._tell_wait):
            if not self._wanted:
                return
            request_id, index = next(iter(self._wanted.items()))
            del self._wanted[request_id]
            lost: int | None = index
            try:
                await self._answer(stored, request_id, index)
                lost = None
            finally:
                self._settled(lost)

    async def _tell_wait(self, wait_s: float) -> None:
        request_id = next(iter(self._wanted), None)
        if request_id is None:
            return
        with trio.move_on_after(self._config.piece_timeout_s) as scope:
            await self._channel.send(queued(request_id, wait_s))
        if scope.cancelled_caught:
            raise NodeUnreachable("a child takes in no message")

    async def _answer(self, stored: StoredTask, request_id: int, index: int) -> None:
        if self._task.has(stored, index) and await self._is_sound(stored):
            await self._send_piece(request_id, index)
        else:
            await self._channel.send(PieceRefused(request_id=request_id, code="not_found"))

    async def _is_sound(self, stored: StoredTask) -> bool:
        """Whether a file shared with the user by a link is what it was when last verified."""
        if stored.linked is None:
            return True
        try:
            await self._workers.run(lambda: self._task.store.open_data(stored.task_id).close())
        except (IntegrityError, TaskNotFound):
            return False
        return True

    async def _send_piece(self, request_id: int, index: int) -> None:
        manifest = self._task.manifest
        offset, count = index * manifest.piece_size, manifest.piece_length(index)
        limit_s = self._config.piece_timeout_s + count / SLOWEST_BYTES_PER_S
        with trio.move_on_after(limit_s) as scope:
            pay = partial(self._pay, scope) if self._pace.is_limited else None
            await self._channel.send_piece(request_id, self._task.file, offset, count, pay)
        if scope.cancelled_caught:
            raise NodeUnreachable("a child took a piece in too slowly")
        self._metrics.count("pieces_sent")
        self._metrics.count("piece_bytes_sent", count)

    async def _pay(self, scope: trio.CancelScope, size_bytes: int) -> None:
        """Waits for this node's own limit, which is not the child's fault."""
        left_s, scope.deadline = scope.deadline - trio.current_time(), math.inf
        await self._limits.pay(self._pace, size_bytes)
        scope.deadline = trio.current_time() + left_s

    async def _tell_pieces(self) -> None:
        """Tells the child what this node has, and what it gets, until it has everything."""
        task_id, total = self._task.task_id, self._task.manifest.piece_count
        while (stored := self._task.stored()) is not None and self._told.bit_count() < total:
            news = self._task.pieces(stored) & ~self._told
            if not news:
                with trio.move_on_after(HAVE_POLL_S):
                    await self._task.arrivals.change(task_id)
                continue
            for message in have_messages(news, total):
                await self._channel.send(message)
            self._told |= news
            if not self._idle.is_set():  # else the loop's next turn would be waited for
                with trio.move_on_after(HAVE_INTERVAL_S):
                    await self._idle.wait()

    async def _offer_pieces(self) -> None:
        """Tells the child of what this node has by and by."""
        offers, total = self._offers, self._task.manifest.piece_count
        assert offers is not None
        while not offers.core.knows_all(self._child) and self._task.stored() is not None:
            for message in have_messages(offers.core.more(self._child), total):
                await self._channel.send(message)
            await offers.wait(self._child)


def queued(request_id: int, wait_s: float) -> PieceQueued:
    """That a piece begins in about `wait_s`."""
    return PieceQueued(request_id=request_id, wait_ms=min(MAX_WAIT_MS, math.ceil(1000 * wait_s)))
