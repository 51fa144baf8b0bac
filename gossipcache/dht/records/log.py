"""The keeper's journal behind the event loop: writers that meet share one sync."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePath

import trio

from gossipcache.env import Env
from gossipcache.errors import GossipcacheError, IntegrityError, NotReady
from gossipcache.journal import Change, Journal
from gossipcache.metrics import Metrics


@dataclass(eq=False)
class _Batch:
    changes: list[Change] = field(default_factory=list)
    error: OSError | GossipcacheError | None = None


class RecordLog:
    """Group commit over one `Journal`, which it owns."""

    def __init__(
        self,
        env: Env,
        path: PurePath,
        metrics: Metrics,
        on_written: Callable[[Change], None] = lambda _change: None,
    ) -> None:
        """`on_written` hears of each change when it is durable, on the event loop."""
        self._on_written = on_written
        self._env = env
        self._path = path
        self._metrics = metrics
        self._journal: Journal | None = None
        self._gathering = _Batch()
        self._lock = trio.Lock()

    async def open(self, load: Callable[[bytes, bytes], None]) -> None:
        """Opens the journal and gives every entry to `load`, in a worker.

        A damaged journal is set aside: the other keepers and the holders have the records.
        """
        try:
            await self._env.workers.run(lambda: self._open(load))
        except IntegrityError:
            self._metrics.count("record_journals_damaged")
            await self._env.workers.run(lambda: self._open(load))

    def _open(self, load: Callable[[bytes, bytes], None]) -> None:
        journal = Journal.open(self._env.disk, self._path)
        for key, value in journal.items():
            load(key, value)
        self._journal = journal

    async def write(self, changes: Iterable[Change]) -> None:
        """Returns when `changes` are durable; the order of the calls is the order on disk.

        Raises `NoSpace`, `OSError`. Not cancelled half-way: what the core knows gets written.
        """
        batch = self._gathering
        before = len(batch.changes)
        batch.changes.extend(changes)
        if len(batch.changes) == before:
            return
        with trio.CancelScope(shield=True):
            async with self._lock:
                if batch is self._gathering:
                    self._gathering = _Batch()
                    await self._write(batch)
        if batch.error is not None:
            raise batch.error

    async def _write(self, batch: _Batch) -> None:
        journal = self._journal
        if journal is None:
            batch.error = NotReady("this keeper's journal is closed")
            return
        try:
            await self._env.workers.run(lambda: journal.write(batch.changes))
        except (OSError, GossipcacheError) as error:
            self._metrics.count("record_journal_failures")
            batch.error = error
            return
        for change in batch.changes:
            self._on_written(change)

    async def close(self) -> None:
        """Releases the journal once the last write has ended."""
        with trio.CancelScope(shield=True):
            async with self._lock:
                journal, self._journal = self._journal, None
                if journal is not None:
                    await self._env.workers.run(journal.close)
