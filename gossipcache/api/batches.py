"""Many imports or exports by one call: how they are named, cut into batches, and how each ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Generic, TypeVar

from gossipcache.api.asking import AnyPath, absolute, own_umask
from gossipcache.errors import GossipcacheError
from gossipcache.requests import ExportRequest, ImportRequest, TaskQuery
from gossipcache.results import ExportResult, ImportResult

BATCH_ENTRIES = 10_000
"""How many files are asked for in one exchange with the node; more are never in memory."""

T = TypeVar("T")
R = TypeVar("R", ImportResult, ExportResult)
Importable = AnyPath | tuple[AnyPath, str] | ImportRequest
"""A path, a path with the cid that it is to have, or a request with all that `import` takes."""
Exportable = tuple[str, AnyPath] | ExportRequest
"""A cid with the path that it goes to, or a request with all that `export` takes."""


@dataclass(frozen=True, slots=True)
class Ended(Generic[R]):
    """How one of many imports or exports ended: with a result or with an error."""

    path: PurePath
    """The file it was about, absolute."""
    result: R | None
    error: GossipcacheError | None

    def get(self) -> R:
        """The result. Raises the error."""
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result


def import_requests(files: Iterable[Importable]) -> Iterator[ImportRequest]:
    """What each of `files` asks for."""
    for file in files:
        if isinstance(file, ImportRequest):
            yield file
        elif isinstance(file, tuple):
            yield ImportRequest(absolute(file[0]), file[1])
        else:
            yield ImportRequest(absolute(file))


def export_requests(
    tasks: Iterable[Exportable], *, overwrite: bool, sync: bool
) -> Iterator[ExportRequest]:
    """What each of `tasks` asks for."""
    umask = own_umask()
    for task in tasks:
        if isinstance(task, ExportRequest):
            yield task
        else:
            cid, path = task
            query = TaskQuery(cid)
            yield ExportRequest(query, absolute(path), overwrite=overwrite, umask=umask, sync=sync)


def cut(items: Iterable[T]) -> Iterator[list[T]]:
    """Batches of `items`, in order, each drawn when it is asked for."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH_ENTRIES:
            yield batch
            batch = []
    if batch:
        yield batch
