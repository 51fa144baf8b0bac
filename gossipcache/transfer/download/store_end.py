"""The store's end of one download: opened, marked now and then, accepted, settled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

from gossipcache.env import Workers
from gossipcache.errors import GossipcacheError, IntegrityError, TaskNotFound
from gossipcache.manifest import SignedManifest
from gossipcache.transfer.digest_tree import DigestTree
from gossipcache.transfer.download.ledger import Ledger
from gossipcache.transfer.download.sink import OnPiece, Sink
from gossipcache.transfer.pieces import PieceSet
from gossipcache.transfer.store.store import Store


class StoreEnd:
    """Runs a `Sink` in workers, and keeps to what may be claimed after a failure."""

    def __init__(
        self, workers: Workers, store: Store, signed: SignedManifest, ledger: Ledger
    ) -> None:
        self._workers = workers
        self._store = store
        self._signed = signed
        self._ledger = ledger
        self._sink: Sink | None = None
        self._can_mark = True
        self._is_settled = False

    async def known_tree(self) -> DigestTree | None:
        """The digest tree that an earlier download left, if it is of this manifest."""
        store, task_id = self._store, self._signed.task_id
        stored = store.find(task_id)
        if stored is None or stored.signed.manifest.root != self._signed.manifest.root:
            return None
        try:
            return await self._workers.run(lambda: store.tree(task_id))
        except (IntegrityError, TaskNotFound):
            return None

    async def open(
        self, tree: DigestTree, make_buffer: Callable[[int], memoryview], *, check_digest: bool
    ) -> PieceSet:
        """Makes or resumes the partial task; what stood there before. See `Sink`."""
        work = partial(
            Sink, self._store, self._signed, tree, make_buffer, check_digest=check_digest
        )
        self._sink = sink = await self._workers.run(work)
        self._ledger.resumed(sink.resumed)
        return sink.resumed

    def take(
        self, index: int, data: memoryview, on_piece: OnPiece | None, *, keep_hot: bool
    ) -> bool:
        """See `Sink.take`; called in workers."""
        assert self._sink is not None
        return self._sink.take(index, data, on_piece, keep_hot=keep_hot)

    async def mark(self) -> None:
        """Makes durable what came in. Raises `OSError`, `NoSpace`, `TaskNotFound`; nothing is
        marked any more then, as a second sync may succeed where the first one lost pages."""
        pieces = self._ledger.to_mark()
        if self._sink is None or not pieces or not self._can_mark:
            return
        try:
            await self._workers.run(partial(self._sink.mark, pieces))
        except Exception:
            self._can_mark = False
            raise
        self._ledger.marked(pieces)

    async def accept(self) -> None:
        """See `Sink.accept`."""
        assert self._sink is not None
        await self._workers.run(self._sink.accept)

    async def settle(self) -> None:
        """See `Sink.settle`. It is not cancelled midway."""
        assert self._sink is not None
        with trio.CancelScope(shield=True):
            await self._workers.run(self._sink.settle)
        self._is_settled = True

    async def close(self, *, failed: bool) -> None:
        """Keeps what has come in, as far as the task still stands."""
        if self._sink is None:
            return
        try:
            if not self._is_settled:
                await self.mark()
                await self._workers.run(self._sink.withdraw if failed else self._sink.settle)
        except (GossipcacheError, OSError):
            pass
        await self._workers.run(self._sink.close)
