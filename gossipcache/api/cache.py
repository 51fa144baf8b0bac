"""The synchronous library: a running node's cache from any program."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from gossipcache.api.asking import AnyPath, absolute, home_of, own_umask
from gossipcache.api.batches import (
    Ended,
    Exportable,
    Importable,
    cut,
    export_requests,
    import_requests,
)
from gossipcache.api.remote import OnProgress, RemoteNode
from gossipcache.client import ControlClient
from gossipcache.launch import find_node, may_start_lone
from gossipcache.requests import DeleteRequest, ExportRequest, ImportRequest, TaskQuery
from gossipcache.results import (
    DeleteResult,
    ExportResult,
    ImportResult,
    LocalTask,
    MemberView,
    StatResult,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

READ_AHEAD_BYTES = 1024 * 1024


class Cache:
    """The cache of the node that runs on `home`.

    Without a node there, and without a cluster configured, a lone one is started in the
    background (`start=False`: `NodeUnreachable` instead). May be used from several threads;
    in asyncio, call it through `asyncio.to_thread`.
    """

    def __init__(self, home: AnyPath | None = None, *, start: bool = True) -> None:
        self._home = home_of(home)
        self._start = start
        self._client = ControlClient(self._home)

    def close(self) -> None:
        """Closes the connections to the node that are kept for later calls."""
        self._client.close()

    def import_file(
        self,
        path: AnyPath,
        cid: str | None = None,
        tag: str = "",
        *,
        ttl_s: float | None = None,
        replicas: int = 1,
        pin: bool = False,
        link: bool = False,
        timeout_s: float | None = None,
        progress: OnProgress | None = None,
    ) -> ImportResult:
        """Puts a file or folder into the cache; without `cid` it is named by its content.

        Raises `Conflict` if other content stands under cid and tag, `SourceChanged`,
        `IntegrityError` if a `sha256:` cid is not that of the content, `NoSpace`, `TimedOut`.
        """
        request = ImportRequest(absolute(path), cid, tag, ttl_s, replicas, pin, link, timeout_s)
        return self._node().import_file(request, progress=progress)

    def import_bytes(
        self,
        content: bytes | Iterable[bytes],
        cid: str | None = None,
        tag: str = "",
        *,
        ttl_s: float | None = None,
        replicas: int = 1,
        pin: bool = False,
        timeout_s: float | None = None,
        progress: OnProgress | None = None,
    ) -> ImportResult:
        """The same for content that is no file; parts of an iterable are sent as they come."""
        parts = (content,) if isinstance(content, bytes) else content
        request = ImportRequest(None, cid, tag, ttl_s, replicas, pin, False, timeout_s)
        return self._node().import_file(request, parts, progress)

    def import_files(self, files: Iterable[Importable]) -> Iterator[Ended[ImportResult]]:
        """Imports many files, of which small ones cost a fraction of `import_file`.

        `files` are paths, pairs of a path and a cid, or `ImportRequest`s; they are drawn as the
        work goes on. Gives how each one ended, in their order: one that failed ends no other.
        """
        for batch in cut(import_requests(files)):
            yield from self._node().import_files(batch)

    def export_files(
        self, tasks: Iterable[Exportable], *, overwrite: bool = False, sync: bool = False
    ) -> Iterator[Ended[ExportResult]]:
        """Exports many tasks, as `import_files` imports: `tasks` are pairs of a cid and a path,
        or `ExportRequest`s."""
        for batch in cut(export_requests(tasks, overwrite=overwrite, sync=sync)):
            yield from self._node().export_files(batch)

    def stat(
        self,
        cid: str,
        tag: str = "",
        *,
        digest: str | None = None,
        publisher: str | None = None,
        local: bool = False,
        timeout_s: float = 10.0,
    ) -> StatResult:
        """The task's size, digest, publisher, keepers and holders.

        Raises `TaskNotFound` unless alive members together have all of it, `TimedOut`.
        """
        task = TaskQuery(cid, tag, digest, publisher)
        return self._node().stat(task, local=local, timeout_s=timeout_s)

    def export(
        self,
        cid: str,
        path: AnyPath,
        tag: str = "",
        *,
        digest: str | None = None,
        publisher: str | None = None,
        local: bool = False,
        overwrite: bool = False,
        link: bool = False,
        sync: bool = False,
        timeout_s: float | None = None,
        progress: OnProgress | None = None,
    ) -> ExportResult:
        """Writes the task to `path`, whole and verified, or not at all.

        It is durable soon after; with `sync` it would survive a power cut on return.

        Raises `TaskNotFound`, `Conflict` if `path` exists and not `overwrite`,
        `IntegrityError`, `NoSpace`, `TimedOut`.
        """
        task = TaskQuery(cid, tag, digest, publisher)
        request = ExportRequest(
            task, absolute(path), local, overwrite, link, own_umask(), timeout_s, sync
        )
        return self._node().export(request, progress)

    def delete(
        self,
        cid: str,
        tag: str = "",
        *,
        digest: str | None = None,
        publisher: str | None = None,
        local: bool = False,
        force: bool = False,
        timeout_s: float = 10.0,
    ) -> DeleteResult:
        """Deletes the task everywhere, or with `local` here only. Look at `pending`.

        Raises `TaskNotFound`, `NotPermitted`, `TimedOut`.
        """
        task = TaskQuery(cid, tag, digest, publisher)
        return self._node().delete(DeleteRequest(task, local, force, timeout_s))

    def open(
        self,
        cid: str,
        tag: str = "",
        *,
        digest: str | None = None,
        publisher: str | None = None,
    ) -> io.BufferedReader:
        """A file task as a seekable binary file; what is read is fetched and verified first.

        Raises `TaskNotFound`.
        """
        node = self._node()
        found = node.stat(TaskQuery(cid, tag, digest, publisher), local=False, timeout_s=10.0)
        pinned = TaskQuery(cid, tag, found.digest, publisher)
        return io.BufferedReader(TaskFile(node, pinned, found.size), READ_AHEAD_BYTES)

    def list(self) -> tuple[LocalTask, ...]:
        """The tasks that the node itself holds."""
        return self._node().list_tasks()

    def members(self) -> tuple[MemberView, ...]:
        """The members of the node's cluster."""
        return self._node().members()

    def _node(self) -> RemoteNode:
        client = find_node(
            self._client,
            may_start=lambda: self._start and may_start_lone(self._home),
            announce=lambda text: print(text, file=sys.stderr),
        )
        return RemoteNode(client)


class TaskFile(io.RawIOBase):
    """A file task of a node, read by ranges."""

    def __init__(self, node: RemoteNode, task: TaskQuery, size: int) -> None:
        super().__init__()
        self._node = node
        self._task = task
        self._size = size
        self._offset = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to `offset` from the start, the place reached, or the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("a place before the start")
        self._offset = base + offset
        return self._offset

    def tell(self) -> int:
        """The place reached."""
        return self._offset

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fills `buffer` as far as there is content. Raises errors of the node."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._offset))
        data = self._node.read(self._task, self._offset, count)
        view[: len(data)] = data
        self._offset += len(data)
        return len(data)
