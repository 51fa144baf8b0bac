"""How a task that is being downloaded becomes complete: piece by piece, accepted, settled.

Data is durable before the index says so. A task whose pieces are all written is *accepted*
first: complete for everybody on this machine, which outlives the death of this process since the
kernel has the bytes. It is *settled* when it would survive a power loss too. The next start looks
through what the last run had accepted and not settled, and believes the digests alone.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing

from msgspec.structs import replace

from gossipcache.env import Disk
from gossipcache.errors import GossipcacheError, IntegrityError, TaskNotFound
from gossipcache.ids import TaskId
from gossipcache.transfer.store.catalogue import Catalogue
from gossipcache.transfer.store.content import Content
from gossipcache.transfer.store.index import Entry, StoredTask
from gossipcache.transfer.store.layout import Layout
from gossipcache.transfer.store.scrub import bad_pieces, check_whole


class Filling:
    """See `Store`, whose calls of the same names come here."""

    def __init__(self, disk: Disk, layout: Layout, catalogue: Catalogue, content: Content) -> None:
        self._disk = disk
        self._layout = layout
        self._catalogue = catalogue
        self._content = content

    def mark(self, task_id: TaskId, pieces: Collection[int], manifest_name: bytes | None) -> None:
        """See `Store.mark`."""
        if not pieces:
            return
        self._require(task_id, manifest_name)
        with closing(self._content.open_data(task_id)) as file:
            file.sync()

        def marked(task: StoredTask) -> Entry:
            if task.complete or task.suspect or not _is_named(task, manifest_name):
                return task.entry
            return replace(task.entry, have=task.durable.with_pieces(pieces).to_bytes())

        self._catalogue.update(task_id, marked)

    def accept(
        self,
        task_id: TaskId,
        manifest_name: bytes | None,
        *,
        check_digest: bool,
        digest_checked: bool,
    ) -> None:
        """See `Store.accept`."""
        task = self._require(task_id, manifest_name)
        manifest = task.signed.manifest
        checked = task.entry.digest_checked or digest_checked
        if not checked and (check_digest or manifest.is_content_addressed):
            with closing(self._content.open_data(task_id)) as file:
                check_whole(file, manifest)
            checked = True

        def accepted(now: StoredTask) -> Entry:
            if now.suspect or now.manifest_name != task.manifest_name:
                return now.entry
            written = not now.entry.finished
            return replace(now.entry, written=written, digest_checked=checked)

        if not self._catalogue.update(task_id, accepted, sync=False).complete:
            raise IntegrityError(f"task {task_id.hex()} changed while it was checked")

    def settle(self, task_id: TaskId, manifest_name: bytes | None) -> None:
        """See `Store.settle`."""
        if self._require(task_id, manifest_name).settled:
            return
        try:
            with closing(self._content.open_data(task_id)) as file:
                file.sync()
        except OSError:
            # What a failed sync lost is not found by a second one.
            self.withdraw(task_id)
            raise
        self._catalogue.update(task_id, lambda now: _settled(now, manifest_name))

    def withdraw(self, task_id: TaskId) -> None:
        """See `Store.withdraw`."""
        self._catalogue.update(task_id, lambda now: replace(now.entry, written=False), sync=False)

    def take_up(self) -> None:
        """What the last run had accepted and not settled: pieces that are not known to be durable
        count if they fit their digests; durable on return."""
        waiting = [task for task in self._catalogue.tasks() if not task.settled]
        if not waiting:
            return
        bad = {task.task_id: self._missing(task) for task in waiting}
        folders = [self._layout.task(task.task_id) for task in waiting]
        files = [path for folder in folders for path in (folder, folder.parent)]
        files += [folder / name for folder in folders for name in self._disk.list_folder(folder)]
        self._disk.sync_all(dict.fromkeys(files))
        self._catalogue.update_all(bad, lambda now: _taken_up(now, bad[now.task_id]))

    def _missing(self, task: StoredTask) -> Collection[int]:
        claimed = task.durable
        waiting = [index for index in range(claimed.total) if index not in claimed]
        try:
            tree = self._content.tree(task.task_id)
            with closing(self._content.open_data(task.task_id)) as file:
                return bad_pieces(file, task.signed.manifest, tree, waiting)
        except (GossipcacheError, OSError):
            return waiting

    def _require(self, task_id: TaskId, manifest_name: bytes | None) -> StoredTask:
        task = self._catalogue.require(task_id)
        if not _is_named(task, manifest_name):
            raise TaskNotFound(f"task {task_id.hex()} was replaced by another generation")
        return task


def _is_named(task: StoredTask, manifest_name: bytes | None) -> bool:
    return manifest_name is None or task.manifest_name == manifest_name


def _settled(now: StoredTask, manifest_name: bytes | None) -> Entry:
    if now.settled or not _is_named(now, manifest_name):
        return now.entry
    return replace(now.entry, written=False, have=None, finished=True)


def _taken_up(now: StoredTask, bad: Collection[int]) -> Entry:
    if not bad:
        return _settled(now, None)
    if now.settled:
        return now.entry
    return replace(now.entry, written=False, have=now.have.without(bad).to_bytes())
