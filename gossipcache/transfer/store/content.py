"""The bytes of stored tasks: opened, verified, and shared with the user by hard links.

A linked file can be written to by the user at any time. It is trusted while its inode, size
and times are those of its last verification; else the task becomes *suspect*: no piece of it
counts until `verify` has read it again.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Collection
from contextlib import closing, suppress
from pathlib import PurePath

from msgspec.structs import replace

from gossipcache.env import Disk, DiskFile, FileStamp, OpenMode
from gossipcache.errors import IntegrityError
from gossipcache.ids import TaskId
from gossipcache.transfer.digest_tree import DigestTree
from gossipcache.transfer.files.chunks import OnProgress
from gossipcache.transfer.pieces import PieceSet
from gossipcache.transfer.store.catalogue import Catalogue
from gossipcache.transfer.store.index import Entry, LinkStamp, StoredTask
from gossipcache.transfer.store.layout import Layout
from gossipcache.transfer.store.packs import OpenPacks, Part
from gossipcache.transfer.store.scrub import bad_pieces, check_is_damage

_VERIFY = "run `gossipcache verify`"


class Content:
    """See `Store`, whose calls of the same names come here."""

    def __init__(
        self,
        disk: Disk,
        layout: Layout,
        catalogue: Catalogue,
        moving: threading.RLock,
        wall_time: Callable[[], float],
    ) -> None:
        self._disk = disk
        self._layout = layout
        self._catalogue = catalogue
        self._moving = moving
        self._wall_time = wall_time

    def tree(self, task_id: TaskId) -> DigestTree:
        """The task's digest tree. Raises `IntegrityError` if its file was damaged."""
        with self._moving:
            task = self._catalogue.require(task_id)
            sealed = self._layout.sealed_of(task)
        tree = DigestTree(sealed.digests)
        if tree.root != task.signed.manifest.root:
            raise IntegrityError(f"the piece digests of {task_id.hex()} are damaged", _VERIFY)
        return tree

    def data_path(self, task_id: TaskId) -> PurePath:
        """The file that holds the content of a task; if it is packed, somewhere in it."""
        return self._layout.data(self._catalogue.require(task_id))

    def _stamp(self, task: StoredTask) -> FileStamp | None:
        """That of the content: a packed one ends before its file does."""
        stamp = self._disk.stamp(self._layout.data(task))
        if stamp is None or not task.packed:
            return stamp
        there = max(0, stamp.size - task.start)
        return dataclasses.replace(stamp, size=min(there, task.size))

    def _opened(self, task: StoredTask, mode: OpenMode) -> DiskFile:
        file = self._disk.open(self._layout.data(task), mode)
        return Part(file, task) if task.packed else file

    def open_data(self, task_id: TaskId) -> DiskFile:
        """The task's content, for the caller to close; to be read, and while the task is
        partial to be written too.

        Raises `IntegrityError` if the bytes are suspect: the file is gone, has another length,
        or is linked and was touched from outside. `verify` then tells what is still good.
        """
        with self._moving:
            task = self._catalogue.require(task_id)
            if not task.suspect and not self._is_as_left(task):
                task = self._distrust(task_id)
            if task.suspect:
                raise IntegrityError(
                    f"the content of task {task_id.hex()} was changed from outside", _VERIFY
                )
            writable = not task.complete and task.linked is None
            return self._opened(task, "write" if writable else "read")

    def read_whole(self, task_id: TaskId, packs: OpenPacks) -> bytes:
        """See `Store.read_whole`."""
        task = self._catalogue.require(task_id)
        if task.place is not None and not task.suspect:
            with suppress(FileNotFoundError):
                return packs.read(task.place, task.size)
        with closing(self.open_data(task_id)) as file:
            return file.read_at(0, task.size)

    def _is_as_left(self, task: StoredTask) -> bool:
        stamp = self._stamp(task)
        if stamp is None or stamp.kind != "file" or stamp.size != task.size:
            return False
        return task.linked is None or task.linked == LinkStamp.of(stamp)

    def _distrust(self, task_id: TaskId) -> StoredTask:
        def distrusted(task: StoredTask) -> Entry:
            nothing = PieceSet.empty(task.entry.piece_count).to_bytes()
            return replace(task.entry, suspect=True, finished=False, written=False, have=nothing)

        return self._catalogue.update(task_id, distrusted)

    def verify(self, task_id: TaskId, progress: OnProgress) -> tuple[int, ...]:
        """Hashes the pieces that are there, and of a suspect task all of them; returns the bad.

        Bad pieces leave the bitmap, which makes the task partial: `begin` and a download mend
        it. Raises `IntegrityError` if the file changes meanwhile.
        """
        task = self._catalogue.require(task_id)
        pieces = range(task.entry.piece_count) if task.suspect else task.have
        before = self._stamp(task)
        bad = self._bad_pieces(task, pieces, before, progress)
        after = self._stamp(task)
        if task.linked is not None and before != after:
            raise IntegrityError(f"the linked file of task {task_id.hex()} is being written to")
        self._catalogue.update(task_id, lambda now: self._verified(now, task, bad, after))
        return bad

    def _bad_pieces(
        self,
        task: StoredTask,
        pieces: Collection[int],
        stamp: FileStamp | None,
        progress: OnProgress,
    ) -> tuple[int, ...]:
        if stamp is None or stamp.kind != "file":
            return tuple(pieces)
        try:
            # Without its digests no piece can be told good; `begin` brings new ones.
            tree = self.tree(task.task_id)
            with closing(self._opened(task, "read")) as file:
                return bad_pieces(file, task.signed.manifest, tree, pieces, progress)
        except (IntegrityError, OSError) as error:
            check_is_damage(error)
            return tuple(pieces)

    def _verified(
        self, now: StoredTask, seen: StoredTask, bad: Collection[int], stamp: FileStamp | None
    ) -> Entry:
        entry, manifest = now.entry, seen.signed.manifest
        if now.manifest_name != seen.manifest_name or now.suspect != seen.suspect:
            return entry
        sizes_fit = stamp is not None and stamp.size == manifest.size
        if entry.written and sizes_fit and not bad:
            return replace(entry, verified_at=self._wall_time())
        have = (PieceSet.full(entry.piece_count) if now.suspect else now.durable).without(bad)
        accepted = entry.digest_checked or not manifest.is_content_addressed
        was_whole = entry.finished or (now.suspect and accepted)
        finished = have.complete and sizes_fit and was_whole
        return replace(
            entry,
            suspect=False,
            finished=finished,
            written=False,
            have=None if finished else have.to_bytes(),
            verified_at=self._wall_time(),
            linked=LinkStamp.of(stamp) if stamp is not None and entry.linked else None,
        )

    def share(self, task_id: TaskId, place: Callable[[PurePath], None]) -> None:
        """Lets `place` hard-link the content of a complete task, which is not packed, to somewhere
        else; from then on the task is linked. The file becomes read-only for everybody.

        A crash, or an edit in between, leaves the task suspect. Raises what `place` raises.
        """
        path = self.data_path(task_id)
        with self._moving:
            self.open_data(task_id).close()
            self._disk.set_mode(path, 0o444)
            before = self._disk.stamp(path)
            # No file has these times: should this process die, the link is not trusted.
            self._relink(task_id, LinkStamp(0, 0, 0, 0))
            try:
                place(path)
            finally:
                after = self._disk.stamp(path)
                if before and after and _same_bytes(before, after):
                    self._relink(task_id, LinkStamp.of(after))

    def _relink(self, task_id: TaskId, linked: LinkStamp) -> None:
        self._catalogue.update(task_id, lambda task: replace(task.entry, linked=linked))


def _same_bytes(one: FileStamp, other: FileStamp) -> bool:
    """Whether nothing but the number of links can have changed."""
    return (one.inode, one.size, one.mtime_ns) == (other.inode, other.size, other.mtime_ns)
