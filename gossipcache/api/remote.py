"""The verbs of a running node as typed calls: requests in, results out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from gossipcache.api.batches import Ended
from gossipcache.client import ControlClient, error_of, task_path
from gossipcache.client import OnProgress as OnEvent
from gossipcache.requests import DeleteRequest, ExportRequest, ImportRequest, TaskQuery
from gossipcache.results import (
    DeleteResult,
    ExportResult,
    ImportResult,
    LocalTask,
    MemberView,
    Progress,
    StatResult,
)

R = TypeVar("R")
B = TypeVar("B", ImportResult, ExportResult)
OnProgress = Callable[[Progress], None]


class RemoteNode:
    """Calls a node over its control socket. Raises the errors of `gossipcache.errors`."""

    def __init__(self, client: ControlClient) -> None:
        self.client = client

    def import_file(
        self,
        request: ImportRequest,
        parts: Iterable[bytes] | None = None,
        progress: OnProgress | None = None,
    ) -> ImportResult:
        """Imports the request's path, or `parts`."""
        fields, on_event = _plain(request), _events(progress)
        if parts is None:
            answer = self.client.run("/v1/tasks", body=fields, on_progress=on_event)
        else:
            answer = self.client.upload(
                "/v1/tasks", query=fields, parts=parts, on_progress=on_event
            )
        return _typed(answer, ImportResult)

    def stat(self, task: TaskQuery, *, local: bool, timeout_s: float) -> StatResult:
        """The task, if it can be had."""
        query = _naming(task) | {"local": local, "timeout_s": timeout_s}
        path = task_path(task.cid)
        answer = self.client.call("GET", path, query=query, timeout_s=timeout_s or None)
        return _typed(answer, StatResult)

    def export(self, request: ExportRequest, progress: OnProgress | None = None) -> ExportResult:
        """Writes the task to the request's path."""
        task = request.task
        fields = _export_fields(request)
        path = task_path(task.cid, "export")
        return _typed(
            self.client.run(path, body=fields, on_progress=_events(progress)), ExportResult
        )

    def import_files(self, requests: Sequence[ImportRequest]) -> list[Ended[ImportResult]]:
        """Imports the paths of a batch, in its order."""
        lines = self.client.run_batch("/v1/imports", map(_plain, requests))
        return _ended(lines, requests, ImportResult)

    def export_files(self, requests: Sequence[ExportRequest]) -> list[Ended[ExportResult]]:
        """Writes the tasks of a batch to their paths, in its order."""
        entries = (_export_fields(one) | {"cid": one.task.cid} for one in requests)
        lines = self.client.run_batch("/v1/exports", entries)
        return _ended(lines, requests, ExportResult)

    def delete(self, request: DeleteRequest) -> DeleteResult:
        """Deletes the task."""
        query = _naming(request.task) | {
            "local": request.local,
            "force": request.force,
            "timeout_s": request.timeout_s,
        }
        wait_s = 2 * request.timeout_s or None
        path = task_path(request.task.cid)
        answer = self.client.call("DELETE", path, query=query, timeout_s=wait_s)
        return _typed(answer, DeleteResult)

    def read(self, task: TaskQuery, offset: int, count: int) -> bytes:
        """Up to `count` bytes of a file task from `offset`, verified; fewer at its end."""
        if count <= 0:
            return b""
        return self.client.read_range(
            task_path(task.cid, "content"), query=_naming(task), start=offset, stop=offset + count
        )

    def list_tasks(self) -> tuple[LocalTask, ...]:
        """The tasks held by the node."""
        return _typed(self.client.call("GET", "/v1/tasks")["tasks"], tuple[LocalTask, ...])

    def members(self) -> tuple[MemberView, ...]:
        """The members of its cluster."""
        return _typed(self.client.call("GET", "/v1/members")["members"], tuple[MemberView, ...])


def _plain(request: ImportRequest | ExportRequest) -> dict[str, Any]:
    given = {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}
    return given | {"path": None if request.path is None else str(request.path)}


def _export_fields(request: ExportRequest) -> dict[str, Any]:
    fields = _plain(request) | _naming(request.task) | {"umask": f"{request.umask:03o}"}
    del fields["task"]
    return fields


def _ended(
    lines: Iterable[dict[str, Any]],
    requests: Sequence[ImportRequest] | Sequence[ExportRequest],
    kind: type[B],
) -> list[Ended[B]]:
    found: list[Ended[B] | None] = [None] * len(requests)
    for line in lines:
        number = line["entry"]
        path = requests[number].path
        assert path is not None
        if "error" in line:
            found[number] = Ended(path, None, error_of(line["error"]))
        else:
            found[number] = Ended(path, _typed(line["result"], kind), None)
    return [ended for ended in found if ended is not None]


def _naming(task: TaskQuery) -> dict[str, Any]:
    return {"tag": task.tag, "digest": task.digest, "publisher": task.publisher}


def _typed(value: object, kind: type[R]) -> R:
    return msgspec.convert(value, kind)


def _events(progress: OnProgress | None) -> OnEvent | None:
    if progress is None:
        return None
    return lambda event: progress(msgspec.convert(event, Progress))
