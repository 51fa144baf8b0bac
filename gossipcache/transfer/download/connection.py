"""The child's end of the piece channels to one parent."""

from __future__ import annotations

from collections.abc import Callable

import trio

from gossipcache.errors import IntegrityError, NodeUnreachable, ProtocolError, TimedOut
from gossipcache.ids import NodeId
from gossipcache.link.interface import Links, PieceChannel
from gossipcache.manifest import SignedManifest
from gossipcache.messages.pieces import (
    MAX_PAGES_AT_ONCE,
    Cancel,
    GetPages,
    Have,
    OpenTask,
    Page,
    PieceQueued,
    PieceRefused,
    RequestPiece,
    TaskOpened,
    TaskRefused,
)
from gossipcache.transfer.bitmap import have_messages, pieces_of
from gossipcache.transfer.digest_tree import DigestTree, TreeAssembly
from gossipcache.transfer.download.events import (
    Event,
    ParentHas,
    ParentLost,
    ParentOffers,
    ParentRefused,
    PieceDelayed,
    PieceReceived,
    PieceRefusedBy,
    SlotOpened,
)
from gossipcache.wire import Message

Emit = Callable[[Event], None]


class TreePages:
    """The digest tree of one download, put together from any parents' pages."""

    def __init__(self, signed: SignedManifest) -> None:
        self._assembly = TreeAssembly(signed.manifest.root, signed.manifest.piece_count)
        self._tree = self._assembly.tree
        self.complete = trio.Event()
        """Set as soon as `tree` may be used."""
        if self._tree is not None:
            self.complete.set()

    @property
    def tree(self) -> DigestTree:
        """The whole tree."""
        assert self._tree is not None
        return self._tree

    def take(self, tree: DigestTree) -> None:
        """The tree is known: no pages are wanted any more."""
        self._tree = tree
        self.complete.set()

    def wanted(self, turn: int) -> tuple[int, int, int] | None:
        """The next pages (level, first, count) to ask a parent for; None if there are none.

        Parents with different `turn` begin at different places, so that they share the work;
        whoever is done first helps with the rest.
        """
        wanted = self._assembly.wanted()
        if self._tree is not None or not wanted:
            return None
        start = turn * MAX_PAGES_AT_ONCE % len(wanted)
        level, first = wanted[start]
        count = 1
        for other in wanted[start + 1 : start + MAX_PAGES_AT_ONCE]:
            if other != (level, first + count):
                break
            count += 1
        return level, first, count

    def add(self, page: Page) -> None:
        """Takes in a page. Raises `IntegrityError` if it is not in the tree."""
        self._assembly.add(page.level, page.index, page.data)
        if self._tree is None and self._assembly.tree is not None:
            self.take(self._assembly.tree)


class _Slot:
    """One channel, and what is said on it without waiting."""

    def __init__(self, channel: PieceChannel) -> None:
        self.channel = channel
        self._unsent = trio.Event()
        self._spared = 0
        """Pieces (bitmap) of which the parent is yet to hear that it need not offer them."""

    def post(self, message: Message) -> None:
        """Sends a message now or soon. One a request and one a cancellation: the download's budget
        bounds what waits."""
        if not self.channel.post(message):
            self._unsent.set()

    def spare(self, pieces: int) -> None:
        """Says soon, together with what waits to be said, that these need not be offered."""
        self._spared |= pieces
        self._unsent.set()

    async def keep_flushing(self, total: int) -> None:
        """Sends what could not be sent at once, of a task of `total` pieces."""
        while True:
            await self._unsent.wait()
            self._unsent = trio.Event()
            spared, self._spared = self._spared, 0
            for message in have_messages(spared, total):
                await self.channel.send(message)
            await self.channel.flush()


class _RefusedError(Exception):
    def __init__(self, refusal: TaskRefused) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


class ParentConnection:
    """Several channels to one parent for one download. What happens is told by `emit`; the last
    event is `ParentLost` or `ParentRefused`, unless `close` ended it."""

    def __init__(
        self, links: Links, node: NodeId, signed: SignedManifest, pages: TreePages, emit: Emit
    ) -> None:
        self._links = links
        self._node = node
        self._signed = signed
        self._pages = pages
        self._emit = emit
        self._slots: dict[int, _Slot] = {}
        self._scope = trio.CancelScope()

    @property
    def received_bytes(self) -> int:
        """Bytes that have come in so far, on all channels."""
        return sum(slot.channel.received_bytes for slot in self._slots.values())

    async def run(self, connections: int, turn: int) -> None:
        """Opens `connections` channels and serves them until they break, or `close`."""
        ending: Event = ParentLost(self._node)
        with self._scope:
            try:
                await self._run(connections, turn)
            except* (ProtocolError, IntegrityError):
                ending = ParentLost(self._node, hostile=True)
            except* _RefusedError as refused:
                refusal = _refusal(refused)
                ending = ParentRefused(self._node, refusal.code, refusal.retry_after_ms / 1000)
            except* trio.EndOfChannel:
                ending = ParentLost(self._node, in_order=True)
            except* (NodeUnreachable, TimedOut):
                pass
            if not self._scope.cancel_called:
                self._emit(ending)

    def close(self) -> None:
        """Ends `run`, without a further event."""
        self._scope.cancel()

    def fetch(self, slot: int, request_id: int, index: int, buffer: memoryview) -> None:
        """Asks for piece `index`, to be received into `buffer`."""
        opened = self._slots[slot]
        received = PieceReceived(request_id)
        opened.channel.expect(request_id, buffer, lambda: self._emit(received))
        opened.post(RequestPiece(request_id=request_id, index=index))

    def cancel(self, slot: int, request_id: int) -> None:
        """Takes a request back. The buffer may be written to for a moment yet."""
        opened = self._slots[slot]
        opened.channel.forget(request_id)
        opened.post(Cancel(request_id=request_id))

    def spare(self, pieces: int) -> None:
        """Says that these (bitmap) need not be offered."""
        self._slots[0].spare(pieces)

    async def _run(self, connections: int, turn: int) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._serve_slot, 0, turn)
            for slot in range(1, connections):
                nursery.start_soon(self._serve_extra, slot, turn)

    async def _serve_extra(self, slot: int, turn: int) -> None:
        try:
            channel = await self._links.open_channel(self._node)
        except (NodeUnreachable, TimedOut):
            return  # The first connection does the work alone.
        await self._serve_channel(channel, slot, turn, trio.TASK_STATUS_IGNORED)

    async def _serve_slot(
        self, slot: int, turn: int, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        channel = await self._links.open_channel(self._node)
        await self._serve_channel(channel, slot, turn, task_status)

    async def _serve_channel(
        self, channel: PieceChannel, slot: int, turn: int, task_status: trio.TaskStatus[None]
    ) -> None:
        self._slots[slot] = _Slot(channel)
        try:
            opened, rtt_s = await self._open(channel, follow=slot == 0)
            await self._fetch_pages(channel, turn)
            self._emit(SlotOpened(self._node, slot, rtt_s))
            if opened.offers:
                self._emit(ParentOffers(self._node))
            elif opened.complete:
                self._emit(ParentHas(self._node, self._everything))
            task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._slots[slot].keep_flushing, self._piece_count)
                while True:
                    self._take(await channel.receive())
        finally:
            with trio.move_on_after(1.0, shield=True):
                await channel.aclose()

    async def _open(self, channel: PieceChannel, *, follow: bool) -> tuple[TaskOpened, float]:
        asked_at = trio.current_time()
        name = self._signed.name
        await channel.send(
            OpenTask(task_id=self._signed.task_id, manifest_name=name, follow=follow)
        )
        match await channel.receive():
            case TaskOpened() as opened:
                return opened, trio.current_time() - asked_at
            case TaskRefused() as refusal:
                raise _RefusedError(refusal)
            case other:
                raise ProtocolError(f"{type(other).__name__} as the answer to OpenTask")

    async def _fetch_pages(self, channel: PieceChannel, turn: int) -> None:
        while (wanted := self._pages.wanted(turn)) is not None:
            level, first, count = wanted
            await channel.send(GetPages(level=level, first=first, count=count))
            for index in range(first, first + count):
                page = await self._receive_page(channel)
                if (page.level, page.index) != (level, index):
                    raise ProtocolError("a page that was not asked for")
                self._pages.add(page)

    async def _receive_page(self, channel: PieceChannel) -> Page:
        while True:
            message = await channel.receive()
            if isinstance(message, Page):
                return message
            self._take(message)

    def _take(self, message: Message) -> None:
        match message:
            case PieceRefused(request_id=request_id, code=code):
                self._emit(PieceRefusedBy(self._node, request_id, code))
            case PieceQueued(request_id=request_id, wait_ms=wait_ms):
                self._emit(PieceDelayed(self._node, request_id, wait_ms / 1000))
            case Have() as have:
                self._emit(ParentHas(self._node, pieces_of(have, self._piece_count)))
            case TaskRefused() as refusal:
                raise _RefusedError(refusal)
            case _:
                raise ProtocolError(f"{type(message).__name__} has no place here")

    @property
    def _everything(self) -> int:
        return (1 << self._piece_count) - 1

    @property
    def _piece_count(self) -> int:
        return self._signed.manifest.piece_count


def _refusal(group: BaseExceptionGroup[_RefusedError]) -> TaskRefused:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error.refusal if isinstance(error, _RefusedError) else TaskRefused(code="not_found")
