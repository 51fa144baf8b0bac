"""Exporting a task that is complete here: every piece is verified on its way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import PurePath
from threading import Lock

from blake3 import blake3

from gossipcache.env import Disk, DiskFile, Lanes, inline_lane
from gossipcache.ids import TaskId
from gossipcache.transfer.files.chunks import (
    LARGE_CHUNK_BYTES,
    OnProgress,
    chunks,
    ignore_progress,
)
from gossipcache.transfer.files.ingest import SEVERAL_LANES_BYTES
from gossipcache.transfer.files.output import OutputFile, link_out
from gossipcache.transfer.files.tree_output import OutputTree
from gossipcache.transfer.store.scrub import rotten
from gossipcache.transfer.store.store import Store

HOT_BYTES = 2**18
"""Read, hashed and written at a time: with larger steps each of them waits for memory."""
CACHE_BYTES = 2 * 2**30
"""How much of an output waits in the page cache, where a write costs a copy alone. The rest of a
larger one goes straight to the disk, so as not to drive out all else that the cache holds."""


def export_file(
    disk: Disk,
    store: Store,
    task_id: TaskId,
    target: PurePath,
    *,
    token: str,
    umask: int,
    overwrite: bool = False,
    sync: bool = False,
    lanes: Lanes = inline_lane,
    progress: OnProgress = ignore_progress,
) -> None:
    """Puts the content at `target`: a clone where the file system can, else a copy. It is
    durable on return with `sync`, and as for `OutputFile.commit` without.

    Raises `IntegrityError` if a piece is bad (`Store.verify` then finds them all), `Conflict`,
    `NoSpace`, `UsageError`.
    """
    with store.using(task_id):
        stored = store.require(task_id)
        output = OutputFile(
            disk,
            target,
            size=stored.size,
            token=token,
            ledger=store.outputs,
            umask=umask,
            overwrite=overwrite,
            source=None if stored.packed else store.data_path(task_id),
            sparse=True,
            cache_bytes=CACHE_BYTES,
        )
        try:
            into = None if output.cloned else output
            _verify(_Pieces(disk, store, task_id, progress, into), stored.size, lanes)
            output.commit(sync=sync)
        finally:
            output.abort()


def export_link(
    disk: Disk,
    store: Store,
    task_id: TaskId,
    target: PurePath,
    *,
    token: str,
    overwrite: bool = False,
    sync: bool = False,
    verified: bool = False,
    lanes: Lanes = inline_lane,
    progress: OnProgress = ignore_progress,
) -> None:
    """Puts a read-only hard link of the store's file at `target`, after verifying it, unless
    the caller says that every piece was `verified` as it came in, just now.

    Raises as `export_file`, and `UsageError` across file systems.
    """
    if not verified:
        size = store.require(task_id).size
        _verify(_Pieces(disk, store, task_id, progress), size, lanes)
    store.share(
        task_id,
        lambda data: link_out(
            disk, data, target, token=token, ledger=store.outputs, overwrite=overwrite, sync=sync
        ),
    )


def export_tree(
    disk: Disk,
    store: Store,
    task_id: TaskId,
    target: PurePath,
    *,
    token: str,
    umask: int,
    overwrite: bool = False,
    sync: bool = False,
    progress: OnProgress = ignore_progress,
) -> None:
    """Unpacks a tree at `target`. Raises as `export_file`."""
    with store.using(task_id), closing(store.open_data(task_id)) as data:
        manifest = store.require(task_id).signed.manifest
        output = OutputTree(
            disk, target, token=token, ledger=store.outputs, umask=umask, overwrite=overwrite
        )
        try:
            output.unpack(data, manifest, progress)
            output.commit(sync=sync)
        finally:
            output.abort()


class _Pieces:
    """All pieces of a complete task, each read and hashed a few hundred KiB at a time, while these
    are hot in a processor's own cache. Several lanes may `work` on them at once."""

    def __init__(
        self,
        disk: Disk,
        store: Store,
        task_id: TaskId,
        progress: OnProgress,
        output: OutputFile | None = None,
    ) -> None:
        """With an `output` they are copied there; zeros are left out."""
        self._disk = disk
        self._store = store
        self._task_id = task_id
        self._progress = progress
        self._output = output
        self._manifest = store.require(task_id).signed.manifest
        self._tree = store.tree(task_id)
        self._left: Iterator[int] = iter(range(self._manifest.piece_count))
        self._done_bytes = 0
        self._counting = Lock()

    def work(self) -> None:
        """Verifies pieces until none is left, for any lane, or one failed.

        Raises `IntegrityError` for a bad piece, of which some may have been written by then.
        """
        size = min(LARGE_CHUNK_BYTES, max(self._manifest.size, 1))
        buffer = self._disk.buffer(size)
        try:
            with closing(self._store.open_data(self._task_id)) as data:
                for index in self._left:
                    self._verify(data, index, buffer)
        except BaseException:
            self._left = iter(())
            raise

    def _verify(self, data: DiskFile, index: int, buffer: memoryview) -> None:
        state, size = blake3(), self._manifest.piece_length(index)
        offset = index * self._manifest.piece_size
        is_cached = self._output is None or self._output.has_room_in_cache
        part = buffer[:HOT_BYTES] if is_cached else buffer
        for chunk in chunks(data, offset, size, part):
            state.update(chunk)
            if self._output is not None:
                self._output.write_sparse(offset, chunk)
            offset += len(chunk)
        if state.digest() != self._tree.piece(index):
            raise rotten(f"piece {index} of task {self._task_id.hex()}")
        with self._counting:
            self._done_bytes += size
            self._progress(self._done_bytes)


def _verify(pieces: _Pieces, size: int, lanes: Lanes) -> None:
    """Has all pieces verified, by two lanes if that is worth it. Raises what `work` raises."""
    with (lanes if size >= SEVERAL_LANES_BYTES else inline_lane)() as beside:
        beside.do(pieces.work)
        pieces.work()
        beside.finish()
