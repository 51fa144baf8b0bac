"""Reading stored bytes back, to find what rotted or was edited: of which task, and which."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Collection, Iterable

from blake3 import blake3

from gossipcache.env import DiskFile
from gossipcache.errors import IntegrityError
from gossipcache.ids import TaskId
from gossipcache.manifest import Manifest
from gossipcache.transfer.digest_tree import DigestTree
from gossipcache.transfer.files.chunks import CHUNK_BYTES, OnProgress, chunks, ignore_progress
from gossipcache.transfer.files.tree import read_listing
from gossipcache.transfer.store.index import StoredTask


def longest_unread(
    tasks: Iterable[StoredTask], before: float, skip: Collection[TaskId]
) -> TaskId | None:
    """See `Store.next_to_verify`."""
    waiting = [
        task
        for task in tasks
        if (task.suspect or task.entry.verified_at < before) and task.task_id not in skip
    ]
    oldest = min(waiting, key=lambda task: (not task.suspect, task.entry.verified_at), default=None)
    return None if oldest is None else oldest.task_id


def bad_pieces(
    file: DiskFile,
    manifest: Manifest,
    tree: DigestTree,
    pieces: Iterable[int],
    progress: OnProgress = ignore_progress,
) -> tuple[int, ...]:
    """Those of `pieces` whose bytes in `file` are not the ones in `tree`, or cannot be read."""
    buffer = memoryview(bytearray(CHUNK_BYTES))
    bad, done = [], 0
    for index in pieces:
        state, length = blake3(), manifest.piece_length(index)
        try:
            for chunk in chunks(file, index * manifest.piece_size, length, buffer):
                state.update(chunk)
            sound = state.digest() == tree.piece(index)
        except (IntegrityError, OSError) as error:
            check_is_damage(error)
            sound = False
        if not sound:
            bad.append(index)
        done += length
        progress(done)
    return tuple(bad)


def check_is_damage(error: IntegrityError | OSError) -> None:
    """Raises `error`, unless it says that the disk does not give back what was written to it."""
    if isinstance(error, OSError) and error.errno != errno.EIO:
        raise error


def rotten(what: str) -> IntegrityError:
    """That `what`, which was complete and verified, is not so any more."""
    return IntegrityError(
        f"{what} has rotted on the disk",
        "run `gossipcache verify`, which gets it again from another holder",
    )


def read_piece(file: DiskFile, manifest: Manifest, tree: DigestTree, index: int) -> bytes:
    """Piece `index` out of `file`. Raises `IntegrityError` unless it is the one in `tree`."""
    piece = file.read_at(index * manifest.piece_size, manifest.piece_length(index))
    if not tree.matches(index, piece):
        raise IntegrityError(
            f"piece {index} of {manifest.cid!r} is damaged in this node's store",
            "run `gossipcache verify`, then try again",
        )
    return piece


def check_whole(file: DiskFile, manifest: Manifest, progress: OnProgress = ignore_progress) -> None:
    """Checks the content in `file` against the manifest's digest of the whole.

    A verified piece is what the publisher committed to; this finds a publisher whose pieces do
    not add up to the digest it names. Raises `IntegrityError`.
    """
    scheme, _, expected = manifest.digest.partition(":")
    buffer = memoryview(bytearray(CHUNK_BYTES))
    if scheme == "tree":
        _check_tree(file, manifest, buffer, progress)
        return
    state = hashlib.sha256() if scheme == "sha256" else blake3()
    done = 0
    for chunk in chunks(file, 0, manifest.size, buffer):
        state.update(chunk)
        done += len(chunk)
        progress(done)
    if state.hexdigest() != expected:
        raise IntegrityError(
            f"the content is not {manifest.digest}, which its manifest says it is",
            "its publisher made a false statement; name another with --publisher",
        )


def _check_tree(
    file: DiskFile, manifest: Manifest, buffer: memoryview, progress: OnProgress
) -> None:
    listing = read_listing(file, manifest)
    offset = manifest.listing_size
    for entry in listing.files():
        state = blake3()
        for chunk in chunks(file, offset, entry.size, buffer):
            state.update(chunk)
        if state.digest() != entry.digest:
            raise IntegrityError(f"a file in the tree is not what the listing says: {entry.path!r}")
        offset += entry.size
        progress(offset)
