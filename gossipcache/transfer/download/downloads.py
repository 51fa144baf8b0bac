"""One download a task, however many want it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from functools import partial

import trio

from gossipcache.errors import Conflict, Interrupted, TaskNotFound
from gossipcache.ids import TaskId
from gossipcache.manifest import SignedManifest
from gossipcache.swarm import Swarm
from gossipcache.transfer.bitmap import to_bits
from gossipcache.transfer.download.client import Downloader
from gossipcache.transfer.download.outcome import DownloadOutcome, DownloadProgress, OnProgress
from gossipcache.transfer.download.sink import OnPiece
from gossipcache.transfer.pieces import PieceSet

OpenSession = Callable[[SignedManifest, Collection[int]], AbstractAsyncContextManager[Swarm]]
CheckReach = Callable[[SignedManifest], Awaitable[None]]

_log = logging.getLogger(__name__)

STARVED_S = 15.0
"""After this long without progress it is asked whether anybody alive has the rest."""


class Joined:
    """One who takes part in a download. Bitmaps inside; see `Downloads.join`."""

    def __init__(
        self, total: int, on_piece: OnPiece | None, on_progress: OnProgress | None
    ) -> None:
        self._total = total
        self._on_piece = on_piece
        self._on_progress = on_progress
        self._present = 0
        self._done = 0
        """Given to `on_piece` or by `stored`."""
        self._outcome: DownloadOutcome | BaseException | None = None
        self._written: DownloadOutcome | None = None
        self._news = trio.Event()
        self._writers = 0
        """Workers that are inside `on_piece`."""
        self._has_left = False
        self._writer_gone = threading.Condition()

    @property
    def have(self) -> PieceSet:
        """The pieces that can be read from the store now."""
        return PieceSet(to_bits(self._present, self._total), self._total)

    async def stored(self) -> AsyncIterator[PieceSet]:
        """Pieces to be read from the store, until each has come here or through `on_piece`.

        They are those that were there before, and those that came at the moment of joining;
        without an `on_piece` all of them. Raises what ended the download.
        """
        while self._done.bit_count() < self._total:
            ready = self._present & ~self._done
            if ready:
                self._done |= ready
                yield PieceSet(to_bits(ready, self._total), self._total)
            else:
                await self._change()

    async def wait_piece(self, index: int) -> None:
        """Returns when piece `index` can be read from the store. Raises what ended the
        download."""
        while not self._present >> index & 1:
            await self._change()

    async def written(self) -> DownloadOutcome:
        """Returns when the task is complete for all on this machine, if not durable yet. Raises
        what ended the download."""
        while isinstance(self._outcome, BaseException) or self._written is None:
            await self._change()
        return self._written

    async def wait(self) -> DownloadOutcome:
        """Returns when the task is complete and durable. Raises what ended the download."""
        while not isinstance(self._outcome, DownloadOutcome):
            await self._change()
        return self._outcome

    async def _change(self) -> None:
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        await self._news.wait()

    def hand_over(self, index: int, data: memoryview) -> bool:
        """Called in a worker: whether `on_piece` was given the piece. Its failure ends this
        one's part in the download, and nobody else's."""
        if self._on_piece is None or self._outcome is not None:
            return False
        with self._writer_gone:
            if self._has_left:
                return False
            self._writers += 1
        try:
            self._on_piece(index, data)
        except Exception as error:
            self._outcome = error
        finally:
            with self._writer_gone:
                self._writers -= 1
                self._writer_gone.notify_all()
        return True

    def leave(self) -> None:
        """Called in a worker: on return no `on_piece` runs any more, nor ever will."""
        with self._writer_gone:
            self._has_left = True
            self._writer_gone.wait_for(lambda: not self._writers)

    def handed(self, index: int) -> None:
        """`hand_over` of piece `index` has given it."""
        self._done |= 1 << index

    def found(self, present: int, progress: DownloadProgress | None = None) -> None:
        """`present` (bitmap) can be read from the store."""
        self._present |= present
        if progress is not None and self._on_progress is not None:
            self._on_progress(progress)
        self._wake()

    def accepted(self, outcome: DownloadOutcome) -> None:
        """The task is complete, and not durable yet."""
        self._written = outcome
        self._present = (1 << self._total) - 1
        self._wake()

    def end(self, outcome: DownloadOutcome | BaseException) -> None:
        """The download is over."""
        if self._outcome is None:
            self._outcome = outcome
        if isinstance(outcome, DownloadOutcome):
            self.accepted(outcome)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()


class _Shared:
    """A running download and those who joined it."""

    def __init__(self, signed: SignedManifest, *, check_digest: bool) -> None:
        self.signed = signed
        self.check_digest = check_digest
        self.written: DownloadOutcome | None = None
        """Set when only its durability is left to wait for."""
        self.is_begun = False
        """Whether its task is in the store, unless it was removed since."""
        self.joined: tuple[Joined, ...] = ()
        """Replaced, never changed: workers read it."""
        self.present = 0
        self.done_bytes = 0
        self.scope = trio.CancelScope()
        self.over = trio.Event()
        self._handed: deque[tuple[int, Joined]] = deque()

    def hand_over(self, index: int, data: memoryview) -> None:
        """A piece has come in; called in a worker."""
        for one in self.joined:
            if one.hand_over(index, data):
                self._handed.append((index, one))

    def found(self, present: int, progress: DownloadProgress) -> None:
        """`present` (bitmap) is in the store."""
        while self._handed:
            index, one = self._handed.popleft()
            one.handed(index)
        self.present, self.done_bytes, self.is_begun = present, progress.done_bytes, True
        for one in self.joined:
            one.found(present, progress)

    def accepted(self, checked: bool, outcome: DownloadOutcome) -> None:
        """The task is complete; its whole was `checked` if anybody wanted that at the start."""
        if checked or not self.check_digest:
            self.written = outcome
            for one in self.joined:
                one.accepted(outcome)


class Downloads:
    """The downloads of one node. Each goes on as long as anybody who joined it is there, and once
    all is written until it is durable."""

    def __init__(
        self,
        downloader: Downloader,
        session: OpenSession,
        check_reach: CheckReach,
        on_end: Callable[[TaskId], None] = lambda _task_id: None,
    ) -> None:
        """`session(signed, have)` registers with the task's schedulers; `check_reach(signed)`
        raises if the task cannot be had now, which ends a download that does not get on;
        `on_end` hears of each one that is over, whatever it came to."""
        self._downloader = downloader
        self._session = session
        self._check_reach = check_reach
        self._on_end = on_end
        self._running: dict[TaskId, _Shared] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hosts the downloads until it is cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    @asynccontextmanager
    async def join(
        self,
        signed: SignedManifest,
        *,
        on_piece: OnPiece | None = None,
        on_progress: OnProgress | None = None,
        check_digest: bool = False,
    ) -> AsyncIterator[Joined]:
        """Takes part in the download of a task, which begins if none runs.

        Each piece reaches a joiner once: by `on_piece` (in a worker, while it is hot) if it
        comes in later, else by `Joined.stored`. For the rest see `Downloader.download`. Who
        leaves the block early does not disturb the others, and its `on_piece` is not running
        any more when the block has ended; when the last one leaves, the download stops unless
        all is written, and its progress is kept. Raises `Conflict` while another manifest of the
        task is being downloaded.
        """
        me = Joined(signed.manifest.piece_count, on_piece, on_progress)
        shared = await self._shared(signed, check_digest)
        shared.joined += (me,)
        me.found(shared.present)
        if shared.written is not None and not check_digest:
            me.accepted(shared.written)
        try:
            with ExitStack() as reading:
                if on_piece is None:
                    arrivals = self._downloader.arrivals
                    reading.enter_context(arrivals.reading(signed.task_id))
                yield me
        finally:
            shared.joined = tuple(one for one in shared.joined if one is not me)
            if not shared.joined and shared.written is None:
                shared.scope.cancel()
            if on_piece is not None:
                with trio.CancelScope(shield=True):
                    await self._downloader.env.workers.run(me.leave)

    async def _shared(self, signed: SignedManifest, check_digest: bool) -> _Shared:
        while (shared := self._running.get(signed.task_id)) is not None:
            if not (shared.scope.cancel_called or self._is_void(shared)):
                if shared.signed.name != signed.name:
                    raise Conflict(
                        "another generation of this task is being downloaded", "try again later"
                    )
                shared.check_digest |= check_digest
                return shared
            if shared.written is None:
                shared.scope.cancel()
            await shared.over.wait()
        if self._nursery is None:
            raise Interrupted("the node is not running")
        shared = self._running[signed.task_id] = _Shared(signed, check_digest=check_digest)
        self._nursery.start_soon(self._host, shared)
        return shared

    def _was_deleted(self, shared: _Shared) -> bool:
        """Whether what it wrote is gone before it was durable."""
        return shared.is_begun and self._downloader.store.find(shared.signed.task_id) is None

    def _is_void(self, shared: _Shared) -> bool:
        """Whether what it wrote is there no more: it was deleted, or pieces were found bad."""
        stored = self._downloader.store.find(shared.signed.task_id)
        if stored is None:
            return shared.is_begun
        return shared.written is not None and not stored.complete

    async def _host(self, shared: _Shared) -> None:
        outcome: DownloadOutcome | BaseException = Interrupted("the download was stopped")
        try:
            with shared.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._end_out_of_reach, shared)
                    outcome = await self._download(shared)
                    nursery.cancel_scope.cancel()
        except Exception as error:
            outcome = _single(error)
            if shared.written is not None:
                self._downloader.metrics.count("downloads_unsettled")
                fields = {"task": shared.signed.task_id, "cause": str(outcome)}
                _log.warning("a download is not durable", extra={"fields": fields})
        finally:
            if shared.scope.cancelled_caught and self._was_deleted(shared):
                outcome = TaskNotFound("the task was deleted while it was downloaded")
            del self._running[shared.signed.task_id]
            shared.over.set()
            for one in shared.joined:
                one.end(outcome)
            self._on_end(shared.signed.task_id)

    async def _end_out_of_reach(self, shared: _Shared) -> None:
        while shared.written is None:
            seen = shared.done_bytes
            await trio.sleep(STARVED_S)
            if shared.done_bytes == seen and shared.written is None:
                await self._check_reach(shared.signed)

    async def _download(self, shared: _Shared) -> DownloadOutcome:
        signed, store = shared.signed, self._downloader.store
        stored = store.find(signed.task_id)
        have = stored.have if stored and stored.manifest_name == signed.name else ()
        checked = shared.check_digest
        async with self._session(signed, have) as swarm:
            outcome = await self._downloader.download(
                signed,
                swarm,
                on_piece=shared.hand_over,
                on_progress=partial(self._note_progress, shared),
                on_written=partial(shared.accepted, checked),
                check_digest=checked,
            )
        if shared.check_digest and not checked:
            # Somebody who joined later wants to be sure of the whole.
            await self._downloader.env.workers.run(
                lambda: store.finish(signed.task_id, manifest_name=signed.name, check_digest=True)
            )
        return outcome

    def _note_progress(self, shared: _Shared, progress: DownloadProgress) -> None:
        present = self._downloader.arrivals.pieces(shared.signed.task_id)
        shared.found(present or 0, progress)


def _single(error: BaseException) -> BaseException:
    """What really went wrong, out of the groups that nurseries make of it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
