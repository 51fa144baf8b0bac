"""Downloads: the shell around `DownloadCore`."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from gossipcache.config import TransferConfig
from gossipcache.env import Env
from gossipcache.errors import IntegrityError
from gossipcache.ids import NodeId
from gossipcache.link.interface import Links
from gossipcache.manifest import SignedManifest
from gossipcache.messages.pieces import MAX_PIECES
from gossipcache.metrics import Metrics
from gossipcache.swarm import Swarm
from gossipcache.transfer.bitmap import to_bitmap
from gossipcache.transfer.download.buffers import Buffers
from gossipcache.transfer.download.checks import CHECKS_AT_ONCE, Checked, Checks
from gossipcache.transfer.download.connection import ParentConnection, TreePages
from gossipcache.transfer.download.core import DownloadCore
from gossipcache.transfer.download.events import (
    BudgetChanged,
    CancelPiece,
    CheckPiece,
    DropParent,
    Effect,
    Event,
    FetchPiece,
    Finished,
    OpenParent,
    PaceChanged,
    ParentLost,
    ParentProgressed,
    ParentRefused,
    ParentsAssigned,
    PieceChecked,
    SpareParent,
    StoreReady,
)
from gossipcache.transfer.download.ledger import Ledger
from gossipcache.transfer.download.outcome import DownloadOutcome, OnProgress, OnWritten
from gossipcache.transfer.download.sink import OnPiece
from gossipcache.transfer.download.store_end import StoreEnd
from gossipcache.transfer.limits import TransferLimits
from gossipcache.transfer.store.arrivals import Arrivals
from gossipcache.transfer.store.store import Store

REPORT_INTERVAL_S = 0.25


class Downloader:
    """Downloads any number of tasks; one download of a task at a time (see `Downloads`)."""

    def __init__(
        self,
        env: Env,
        config: TransferConfig,
        links: Links,
        store: Store,
        metrics: Metrics,
        limits: TransferLimits,
    ) -> None:
        self.env = env
        self.config = config
        self.links = links
        self.store = store
        self.metrics = metrics
        self.limits = limits
        self.arrivals = Arrivals()
        """What running downloads have got; for this node's `PieceServer`."""
        self.buffers = Buffers(env.disk.buffer)

    async def download(
        self,
        signed: SignedManifest,
        swarm: Swarm,
        *,
        on_piece: OnPiece | None = None,
        on_progress: OnProgress | None = None,
        on_written: OnWritten | None = None,
        check_digest: bool = False,
    ) -> DownloadOutcome:
        """Brings the task into the store, complete, and returns when it is durable.

        It takes up where an earlier download ended, waits for parents as long as there are
        none, and keeps its progress when it is cancelled. `on_piece` is called for each piece
        that comes in, not for those that were there; `on_progress` on the event loop, first
        when the store's end is open; `on_written` when the task is complete for all on this
        machine, and only its durability is left to wait for. The digest of the whole is verified if
        the cid is that digest, or on `check_digest`.

        Raises `TaskNotFound` if the task is deleted meanwhile, `NoSpace`, `OSError`, and
        `IntegrityError` if the content is not what its publisher says; what parents send
        wrongly is fetched from others.
        """
        if signed.manifest.piece_count > MAX_PIECES:
            raise IntegrityError(
                f"the task has {signed.manifest.piece_count} pieces, the limit is {MAX_PIECES}",
                "its publisher must cut it into larger pieces",
            )
        with self.store.using(signed.task_id), self.buffers.download():
            run = _Run(self, signed, swarm, on_piece, on_progress, on_written, check_digest)
            return await run.run()


class _Run:
    """One download. What happens goes to the core by `_tell`, in whatever trio task it happens."""

    def __init__(
        self,
        downloader: Downloader,
        signed: SignedManifest,
        swarm: Swarm,
        on_piece: OnPiece | None,
        on_progress: OnProgress | None,
        on_written: OnWritten | None,
        check_digest: bool,
    ) -> None:
        self._downloader = downloader
        self._workers = downloader.env.workers
        self._config = downloader.config
        self._metrics = downloader.metrics
        self._signed = signed
        self._manifest = signed.manifest
        self._swarm = swarm
        self._on_progress = on_progress
        self._on_written = on_written
        self._check_digest = check_digest
        self._buffers = downloader.buffers
        self._budget = self._buffers.share(self._manifest.piece_size)
        pace = downloader.limits.download.pace(signed.task_id)
        rng = downloader.env.rng
        self._core = DownloadCore(self._config, self._manifest, self._budget, rng, pace)
        self._pages = TreePages(signed)
        self._ledger = Ledger(self._manifest)
        self._end = StoreEnd(self._workers, downloader.store, signed, self._ledger)
        self._connections: dict[NodeId, ParentConnection] = {}
        self._seen_bytes: dict[NodeId, int] = {}
        self._opened = 0
        self._receiving: dict[int, tuple[NodeId, memoryview]] = {}
        """The buffer of each request in flight, and whom it was asked of."""
        self._checks = Checks(self._workers, self._end, on_piece, self._checked)
        self._alarm = trio.CancelScope()
        """Ends when the core's next timeout is due."""
        self._nursery: trio.Nursery | None = None
        self._error: BaseException | None = None

    async def run(self) -> DownloadOutcome:
        """See `Downloader.download`."""
        try:
            async with trio.open_nursery() as saving:
                # A sync may take long, and whoever waits for the last piece not for that.
                saving.start_soon(self._guard, self._save_progress)
                await self._guard(self._bring)
                saving.cancel_scope.cancel()
            if self._error is not None:
                raise self._error
            await self._end.settle()
        finally:
            with trio.CancelScope(shield=True):
                await self._close()
        return self._outcome()

    async def _bring(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._start(self._follow_assignments)
            self._start(self._follow_limits)
            self._start(self._prepare)
            self._start(self._report_progress)
            for _ in range(CHECKS_AT_ONCE):
                self._start(self._checks.run)
            self._start(self._keep_time)
        if self._error is None:
            await self._accept()

    # Tasks of the nursery

    def _start(self, job: Callable[[], Awaitable[None]]) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(self._guard, job)

    async def _guard(self, job: Callable[[], Awaitable[None]]) -> None:
        """Runs `job`; the first failure of any ends the download, and is what it raises."""
        try:
            await job()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._stop()

    def _stop(self) -> None:
        self._checks.clear()
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    async def _follow_assignments(self) -> None:
        while True:
            parents = await self._swarm.parents()
            self._tell(ParentsAssigned(parents, self._swarm.border))

    async def _follow_limits(self) -> None:
        while True:
            await self._downloader.limits.wait_change()
            self._tell(PaceChanged())

    async def _prepare(self) -> None:
        """Opens the store's end as soon as the digest tree is known."""
        tree = await self._end.known_tree()
        if tree is not None:
            self._pages.take(tree)
        await self._pages.complete.wait()
        make_buffer = self._downloader.env.disk.buffer
        resumed = await self._end.open(
            self._pages.tree, make_buffer, check_digest=self._check_digest
        )
        self._downloader.arrivals.begin(self._signed.task_id, resumed)
        self._tell_progress()
        self._tell(StoreReady(to_bitmap(resumed.to_bytes())))

    # The core

    async def _keep_time(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._next_timeout()) as self._alarm:
                await trio.sleep_forever()
            self._carry_out(self._handle_timeout(trio.current_time()))

    def _tell(self, event: Event) -> None:
        try:
            self._carry_out(self._handle(event, trio.current_time()))
        except Exception as error:
            self._fail(error)

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Finished):
                self._stop()
                return
            self._apply(effect)
        self._alarm.deadline = self._next_timeout()

    def _next_timeout(self) -> float:
        deadline = self._core.next_timeout()
        return math.inf if deadline is None else deadline

    def _handle(self, event: Event, now: float) -> list[Effect]:
        if isinstance(event, ParentLost | ParentRefused):
            self._parent_gone(event)
        share = self._buffers.share(self._manifest.piece_size)
        if share == self._budget:
            return self._core.handle(event, now)
        self._budget = share
        # The event first: it may say that a parent is gone, whom nothing more is asked for then.
        return self._core.handle(event, now) + self._core.handle(BudgetChanged(share), now)

    def _handle_timeout(self, now: float) -> list[Effect]:
        """Whoever has sent so much as a byte since the last timeout has not stalled."""
        effects: list[Effect] = []
        for node, connection in self._connections.items():
            if (received := connection.received_bytes) != self._seen_bytes.get(node):
                self._seen_bytes[node] = received
                effects += self._core.handle(ParentProgressed(node), now)
        return effects + self._core.handle_timeout(now)

    def _apply(self, effect: Effect) -> None:
        match effect:
            case OpenParent(parent, connections):
                self._open_parent(parent, connections)
            case FetchPiece(parent, slot, index, request_id):
                buffer = self._buffers.take(self._manifest.piece_size)
                self._receiving[request_id] = (parent, buffer)
                view = buffer[: self._manifest.piece_length(index)]
                self._connections[parent].fetch(slot, request_id, index, view)
            case CheckPiece(request_id=request_id):
                self._check(effect, self._receiving.pop(request_id)[1])
            case CancelPiece(parent, slot, request_id):
                # The piece may be under way into the buffer, which is therefore not used again.
                del self._receiving[request_id]
                self._connections[parent].cancel(slot, request_id)
            case SpareParent(parent, pieces):
                self._connections[parent].spare(pieces)
            case DropParent(parent, fault):
                self._close_parent(parent, fault)

    # Parents

    def _open_parent(self, node: NodeId, connections: int) -> None:
        links = self._downloader.links
        connection = ParentConnection(links, node, self._signed, self._pages, self._tell)
        self._connections[node] = connection
        self._opened += 1
        self._start(partial(connection.run, connections, self._opened))

    def _parent_gone(self, event: ParentLost | ParentRefused) -> None:
        self._connections.pop(event.parent, None)
        self._abandon_buffers(event.parent)
        match event:
            case ParentRefused(code="busy") | ParentLost(in_order=True):
                return
            case ParentRefused():
                fault = "it has not got the task"
            case ParentLost(hostile=True):
                fault = "it broke the protocol"
            case ParentLost():
                fault = "the connection broke"
        self._ledger.failed(event.parent)
        self._swarm.failed(event.parent, fault)

    def _close_parent(self, node: NodeId, fault: str | None) -> None:
        self._connections.pop(node).close()
        self._abandon_buffers(node)
        if fault is not None:
            self._metrics.count("parents_dropped")
            self._ledger.failed(node)
            self._swarm.failed(node, fault)

    def _abandon_buffers(self, node: NodeId) -> None:
        for request_id in [key for key, value in self._receiving.items() if value[0] == node]:
            del self._receiving[request_id]

    # Pieces

    def _check(self, check: CheckPiece, buffer: memoryview) -> None:
        size = self._manifest.piece_length(check.index)
        is_read = self._downloader.arrivals.are_read(self._signed.task_id)
        self._checks.add(check, buffer, size, keep_hot=is_read)

    def _checked(self, checked: Checked) -> None:
        check = checked.check
        self._buffers.give(checked.buffer)
        try:
            if checked.valid:
                self._note_piece(check)
            else:
                self._metrics.count("pieces_bad")
        except Exception as error:
            self._fail(error)
        self._tell(PieceChecked(check.request_id, checked.valid))

    def _note_piece(self, check: CheckPiece) -> None:
        length = self._manifest.piece_length(check.index)
        self._metrics.count("pieces_received")
        self._metrics.count("piece_bytes_received", length)
        is_first = not self._ledger.done_bytes
        self._ledger.came(check.parent, check.index, check.elapsed_s)
        self._downloader.arrivals.add(self._signed.task_id, check.index)
        if is_first:
            self._report()
        self._tell_progress()

    def _tell_progress(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self._ledger.progress())

    # Progress and the end

    async def _save_progress(self) -> None:
        while True:
            await trio.sleep(self._config.bitmap_interval_s)
            await self._end.mark()

    async def _report_progress(self) -> None:
        while True:
            await trio.sleep(REPORT_INTERVAL_S)
            self._report()

    def _report(self) -> None:
        if reports := self._ledger.take_reports():
            have = [index for report in reports for index in report.pieces]
            self._swarm.report(have, reports)

    async def _accept(self) -> None:
        await self._end.accept()
        self._report()
        if self._on_written is not None:
            self._on_written(self._outcome())

    def _outcome(self) -> DownloadOutcome:
        return DownloadOutcome(self._ledger.bytes_by_source, self._ledger.resumed_bytes)

    async def _close(self) -> None:
        try:
            await self._end.close(failed=self._error is not None)
        finally:
            self._downloader.arrivals.end(self._signed.task_id)
