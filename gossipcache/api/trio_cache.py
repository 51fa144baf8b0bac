"""The library for Trio programs: a node inside the program, or one that runs beside it."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
)
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Protocol, TypeVar

import trio

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
from gossipcache.embed import only_error, running_node
from gossipcache.errors import GossipcacheError
from gossipcache.home import Home
from gossipcache.launch import find_node, may_start_lone, read_settings
from gossipcache.node.node import Node
from gossipcache.requests import DeleteRequest, ExportRequest, ImportRequest, TaskQuery
from gossipcache.results import (
    DeleteResult,
    ExportResult,
    ImportResult,
    LocalTask,
    MemberView,
    Outcome,
    StatResult,
)
from gossipcache.unix_http import Connections

R = TypeVar("R")
Q = TypeVar("Q", ImportRequest, ExportRequest)
B = TypeVar("B", ImportResult, ExportResult)


class Verbs(Protocol):
    """What an `AsyncCache` works on."""

    async def import_file(
        self, request: ImportRequest, content: bytes | None, progress: OnProgress | None
    ) -> ImportResult:
        """Imports the request's path, or `content`."""

    async def import_files(self, batch: list[ImportRequest]) -> list[Ended[ImportResult]]:
        """Imports the paths of a batch."""

    async def export_files(self, batch: list[ExportRequest]) -> list[Ended[ExportResult]]:
        """Writes the tasks of a batch to their paths."""

    async def stat(self, task: TaskQuery, local: bool, timeout_s: float) -> StatResult:
        """The task, if it can be had."""

    async def export(self, request: ExportRequest, progress: OnProgress | None) -> ExportResult:
        """Writes the task to a path."""

    async def delete(self, request: DeleteRequest) -> DeleteResult:
        """Deletes the task."""

    async def read(self, task: TaskQuery, offset: int, count: int) -> bytes:
        """Reads a range of the task."""

    async def list_tasks(self) -> tuple[LocalTask, ...]:
        """The tasks held here."""

    async def members(self) -> tuple[MemberView, ...]:
        """The members of the cluster."""


class AsyncCache:
    """The cache of one node, for Trio. Every verb may be cancelled, which ends its work."""

    def __init__(self, verbs: Verbs) -> None:
        self._verbs = verbs

    async def import_file(
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
        """As `Cache.import_file`."""
        where = absolute(path)
        request = ImportRequest(where, cid, tag, ttl_s, replicas, pin, link, timeout_s)
        return await self._verbs.import_file(request, None, progress)

    async def import_bytes(
        self, content: bytes, cid: str | None = None, tag: str = "", *, ttl_s: float | None = None
    ) -> ImportResult:
        """As `Cache.import_bytes`."""
        return await self._verbs.import_file(ImportRequest(None, cid, tag, ttl_s), content, None)

    async def import_files(
        self, files: Iterable[Importable]
    ) -> AsyncGenerator[Ended[ImportResult], None]:
        """As `Cache.import_files`."""
        for batch in cut(import_requests(files)):
            for ended in await self._verbs.import_files(batch):
                yield ended

    async def export_files(
        self, tasks: Iterable[Exportable], *, overwrite: bool = False, sync: bool = False
    ) -> AsyncGenerator[Ended[ExportResult], None]:
        """As `Cache.export_files`."""
        for batch in cut(export_requests(tasks, overwrite=overwrite, sync=sync)):
            for ended in await self._verbs.export_files(batch):
                yield ended

    async def stat(
        self,
        cid: str,
        tag: str = "",
        *,
        digest: str | None = None,
        publisher: str | None = None,
        local: bool = False,
        timeout_s: float = 10.0,
    ) -> StatResult:
        """As `Cache.stat`."""
        return await self._verbs.stat(TaskQuery(cid, tag, digest, publisher), local, timeout_s)

    async def export(
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
        """As `Cache.export`."""
        task = TaskQuery(cid, tag, digest, publisher)
        where = absolute(path)
        request = ExportRequest(task, where, local, overwrite, link, own_umask(), timeout_s, sync)
        return await self._verbs.export(request, progress)

    async def delete(
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
        """As `Cache.delete`."""
        task = TaskQuery(cid, tag, digest, publisher)
        return await self._verbs.delete(DeleteRequest(task, local, force, timeout_s))

    async def read(self, cid: str, offset: int, count: int, tag: str = "") -> bytes:
        """Up to `count` verified bytes of a task from `offset`; fewer only at its end."""
        return await self._verbs.read(TaskQuery(cid, tag), offset, count)

    async def list(self) -> tuple[LocalTask, ...]:
        """The tasks that the node itself holds."""
        return await self._verbs.list_tasks()

    async def members(self) -> tuple[MemberView, ...]:
        """The members of the node's cluster."""
        return await self._verbs.members()


@asynccontextmanager
async def open_node(
    home: AnyPath,
    *,
    listen: str | None = None,
    join: tuple[str, ...] = (),
    name: str | None = None,
    settings: Mapping[str, object] | None = None,
) -> AsyncIterator[AsyncCache]:
    """Runs a node inside this program and gives its cache; the block's end leaves the cluster.

    Without `listen` and `join` it opens no network port. `settings` are keys as in
    `config.toml` (`{"store.quota_bytes": "10GiB"}`), above file and environment. Raises
    `HomeInUse`, `NotPermitted` and `UsageError` as `gossipcache node run` does.
    """
    place = home_of(home)
    flags = {"listen": listen, "join": join, "name": name, **(settings or {})}
    resolved = read_settings(place, flags)
    place.prepare()
    try:
        with place.locked():
            networked = resolved.names_cluster
            async with running_node(place, resolved, networked=networked) as node:
                yield AsyncCache(_Embedded(node))
    except BaseExceptionGroup as group:
        raise only_error(group) from None


def connect(home: AnyPath | None = None, *, start: bool = True) -> AsyncCache:
    """The cache of the node that runs on `home`; as `Cache`, but for Trio."""
    return AsyncCache(_Beside(home_of(home), start))


class _Embedded:
    """A node in this process."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def import_file(
        self, request: ImportRequest, content: bytes | None, progress: OnProgress | None
    ) -> ImportResult:
        if content is None:
            return await self._node.import_file(request, progress=progress)
        async with aclosing(_once(content)) as stream:
            return await self._node.import_file(request, stream=stream, progress=progress)

    async def import_files(self, batch: list[ImportRequest]) -> list[Ended[ImportResult]]:
        return await _gathered(batch, self._node.import_files, ImportResult)

    async def export_files(self, batch: list[ExportRequest]) -> list[Ended[ExportResult]]:
        return await _gathered(batch, self._node.export_files, ExportResult)

    async def stat(self, task: TaskQuery, local: bool, timeout_s: float) -> StatResult:
        return await self._node.stat(task, local=local, timeout_s=timeout_s)

    async def export(self, request: ExportRequest, progress: OnProgress | None) -> ExportResult:
        return await self._node.export(request, progress=progress)

    async def delete(self, request: DeleteRequest) -> DeleteResult:
        return await self._node.delete(request)

    async def read(self, task: TaskQuery, offset: int, count: int) -> bytes:
        async with self._node.reader(task) as reader:
            return await reader.read(offset, count)

    async def list_tasks(self) -> tuple[LocalTask, ...]:
        await trio.lowlevel.checkpoint()
        return self._node.list_tasks()

    async def members(self) -> tuple[MemberView, ...]:
        await trio.lowlevel.checkpoint()
        return self._node.members()


class _Beside:
    """A node in another process, called from threads."""

    def __init__(self, home: Home, start: bool) -> None:
        self._home = home
        self._start = start
        self._connections = Connections(home)

    async def import_file(
        self, request: ImportRequest, content: bytes | None, progress: OnProgress | None
    ) -> ImportResult:
        parts = None if content is None else (content,)
        report = _from_thread(progress)
        return await self._call(lambda node: node.import_file(request, parts, report))

    async def import_files(self, batch: list[ImportRequest]) -> list[Ended[ImportResult]]:
        return await self._call(lambda node: node.import_files(batch))

    async def export_files(self, batch: list[ExportRequest]) -> list[Ended[ExportResult]]:
        return await self._call(lambda node: node.export_files(batch))

    async def stat(self, task: TaskQuery, local: bool, timeout_s: float) -> StatResult:
        return await self._call(lambda node: node.stat(task, local=local, timeout_s=timeout_s))

    async def export(self, request: ExportRequest, progress: OnProgress | None) -> ExportResult:
        report = _from_thread(progress)
        return await self._call(lambda node: node.export(request, report))

    async def delete(self, request: DeleteRequest) -> DeleteResult:
        return await self._call(lambda node: node.delete(request))

    async def read(self, task: TaskQuery, offset: int, count: int) -> bytes:
        return await self._call(lambda node: node.read(task, offset, count))

    async def list_tasks(self) -> tuple[LocalTask, ...]:
        return await self._call(lambda node: node.list_tasks())

    async def members(self) -> tuple[MemberView, ...]:
        return await self._call(lambda node: node.members())

    async def _call(self, work: Callable[[RemoteNode], R]) -> R:
        """Runs `work` in a thread; a cancellation closes its connection, which ends it."""
        client = ControlClient(self._home, self._connections)
        if not client.is_connected():
            find = partial(
                find_node,
                client,
                may_start=lambda: self._start and may_start_lone(self._home),
                announce=lambda _text: None,
            )
            await trio.to_thread.run_sync(find)
        try:
            return await trio.to_thread.run_sync(work, RemoteNode(client), abandon_on_cancel=True)
        except trio.Cancelled:
            client.abort()
            raise


async def _gathered(
    batch: list[Q],
    verb: Callable[[list[Q], Callable[[int, Outcome], None]], Awaitable[None]],
    kind: type[B],
) -> list[Ended[B]]:
    """Runs a verb of a node over a batch, and gives how each entry ended, in order."""
    found: dict[int, Ended[B]] = {}

    def tell(number: int, outcome: Outcome) -> None:
        path = batch[number].path
        assert path is not None
        if isinstance(outcome, GossipcacheError):
            found[number] = Ended(path, None, outcome)
        else:
            assert isinstance(outcome, kind)
            found[number] = Ended(path, outcome, None)

    await verb(batch, tell)
    return [found[number] for number in sorted(found)]


def _from_thread(progress: OnProgress | None) -> OnProgress | None:
    """`progress` as a thread may call it; it runs in the Trio thread."""
    if progress is None:
        return None
    report = progress
    return lambda event: trio.from_thread.run_sync(report, event)


async def _once(content: bytes) -> AsyncGenerator[bytes, None]:
    yield content
