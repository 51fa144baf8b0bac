"""Exporting a task that is complete here: every piece is verified on its way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import cycle
from pathlib import PurePath

from blake3 import blake3

from gossipcache.env import Disk, Lanes, inline_lane
from gossipcache.errors import IntegrityError
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
from gossipcache.transfer.store.store import Store


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
    with store.using(task_id), closing(store.open_data(task_id)) as data:
        output = OutputFile(
            disk,
            target,
            size=data.size(),
            token=token,
            ledger=store,
            umask=umask,
            overwrite=overwrite,
            source=store.data_path(task_id),
            sparse=True,
        )
        try:
            if output.cloned:
                _verify(disk, store, task_id, progress)
            else:
                _verified_copy(disk, store, task_id, output, lanes, progress)
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
    progress: OnProgress = ignore_progress,
) -> None:
    """Puts a read-only hard link of the store's file at `target`, after verifying it, unless
    the caller says that every piece was `verified` as it came in, just now.

    Raises as `export_file`, and `UsageError` across file systems.
    """
    if not verified:
        _verify(disk, store, task_id, progress)
    store.share(
        task_id,
        lambda data: link_out(
            disk, data, target, token=token, ledger=store, overwrite=overwrite, sync=sync
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
            disk, target, token=token, ledger=store, umask=umask, overwrite=overwrite
        )
        try:
            output.unpack(data, manifest, progress)
            output.commit(sync=sync)
        finally:
            output.abort()


def _verify(disk: Disk, store: Store, task_id: TaskId, progress: OnProgress) -> None:
    """Hashes all pieces. Raises `IntegrityError`."""
    for _offset, _chunk in _verified_chunks(disk, store, task_id, progress):
        pass


def _verified_copy(
    disk: Disk,
    store: Store,
    task_id: TaskId,
    output: OutputFile,
    lanes: Lanes,
    progress: OnProgress,
) -> None:
    """Reads each chunk once: hashes it, and has it written beside. A bad piece may have been
    written by then; nothing is committed when this raises."""
    several = store.require(task_id).signed.manifest.size >= SEVERAL_LANES_BYTES
    with (lanes if several else inline_lane)() as writing:
        for offset, chunk in _verified_chunks(disk, store, task_id, progress):
            writing.do(partial(output.write_sparse, offset, chunk))
        writing.finish()


def _verified_chunks(
    disk: Disk, store: Store, task_id: TaskId, progress: OnProgress
) -> Iterator[tuple[int, memoryview]]:
    """All chunks by their offset; each stays as it is until the next but one is asked for.

    Raises `IntegrityError` at the end of a bad piece.
    """
    with closing(store.open_data(task_id)) as data:
        manifest, tree = store.require(task_id).signed.manifest, store.tree(task_id)
        chunk_bytes = min(LARGE_CHUNK_BYTES, max(manifest.size, 1))
        buffers = cycle((disk.buffer(chunk_bytes), disk.buffer(chunk_bytes)))
        offset = 0
        for index in range(manifest.piece_count):
            state = blake3()
            end = offset + manifest.piece_length(index)
            while offset < end:
                size = min(chunk_bytes, end - offset)
                (chunk,) = chunks(data, offset, size, next(buffers))
                yield offset, chunk
                state.update(chunk)
                offset += size
            if state.digest() != tree.piece(index):
                raise IntegrityError(
                    f"piece {index} of task {task_id.hex()} has rotted on the disk",
                    "run `gossipcache verify`, which gets it again from another holder",
                )
            progress(offset)
