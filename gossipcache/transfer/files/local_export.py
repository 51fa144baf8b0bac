"""Exporting a task that is complete here: every piece is verified on its way out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import PurePath

from blake3 import blake3

from gossipcache.env import Disk
from gossipcache.errors import IntegrityError
from gossipcache.ids import TaskId
from gossipcache.transfer.files.chunks import CHUNK_BYTES, OnProgress, chunks, ignore_progress
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
    progress: OnProgress = ignore_progress,
) -> None:
    """Puts the content at `target`: a clone where the file system can, else a copy.

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
            write = None if output.cloned else output.write_sparse
            _verified_copy(disk, store, task_id, write, progress)
            output.commit()
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
    verified: bool = False,
    progress: OnProgress = ignore_progress,
) -> None:
    """Puts a read-only hard link of the store's file at `target`, after verifying it, unless
    the caller says that every piece was `verified` as it came in, just now.

    Raises as `export_file`, and `UsageError` across file systems.
    """
    if not verified:
        _verified_copy(disk, store, task_id, None, progress)
    store.share(
        task_id,
        lambda data: link_out(disk, data, target, token=token, ledger=store, overwrite=overwrite),
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
            output.commit()
        finally:
            output.abort()


def _verified_copy(
    disk: Disk,
    store: Store,
    task_id: TaskId,
    write: Callable[[int, memoryview], None] | None,
    progress: OnProgress,
) -> None:
    """Reads each chunk once: hashes it, and hands it to `write` while it is hot. A bad piece
    may have been written by then; nothing is committed when this raises."""
    with closing(store.open_data(task_id)) as data:
        manifest, tree = store.require(task_id).signed.manifest, store.tree(task_id)
        buffer = disk.buffer(CHUNK_BYTES)
        offset = 0
        for index in range(manifest.piece_count):
            state = blake3()
            for chunk in chunks(data, offset, manifest.piece_length(index), buffer):
                state.update(chunk)
                if write is not None:
                    write(offset, chunk)
                offset += len(chunk)
            if state.digest() != tree.piece(index):
                raise IntegrityError(
                    f"piece {index} of task {task_id.hex()} has rotted on the disk",
                    "run `gossipcache verify`, which gets it again from another holder",
                )
            progress(offset)
