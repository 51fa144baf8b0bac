"""What the verbs are asked: the same values from the control API, the library and `Node`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath


@dataclass(frozen=True, slots=True)
class TaskQuery:
    """Names a task, and optionally pins which content of it is meant."""

    cid: str
    tag: str = ""
    digest: str | None = None
    """`sha256:…`, `blake3:…` or `tree:…`: nothing else is accepted as this task's content."""
    publisher: str | None = None
    """Node id in hex: only a manifest signed by this node is accepted."""


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """`import`. `path` is absolute; None when the content comes as a stream."""

    path: PurePath | None
    cid: str | None = None
    tag: str = ""
    ttl_s: float | None = None
    replicas: int = 1
    """How many nodes should hold all of it, 1 to 1000."""
    pin: bool = False
    link: bool = False
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """`export` to a path. `path` is absolute; `umask` is that of the user who asks."""

    task: TaskQuery
    path: PurePath
    local: bool = False
    overwrite: bool = False
    link: bool = False
    umask: int = 0o077
    timeout_s: float | None = None
    sync: bool = False
    """Whether to return only when the output would survive a power cut."""


@dataclass(frozen=True, slots=True)
class LimitsChange:
    """`limits`: rates in bytes a second, 0 for no limit. What is None stays as it is."""

    upload_rate: int | None = None
    download_rate: int | None = None
    task_upload_rate: int | None = None
    task_download_rate: int | None = None
    max_uploads: int | None = None


@dataclass(frozen=True, slots=True)
class TaskLimitsChange:
    """`limits -i CID`: the same for one task. `reset`: first, what holds for every task."""

    upload_rate: int | None = None
    download_rate: int | None = None
    reset: bool = False


@dataclass(frozen=True, slots=True)
class DeleteRequest:
    """`delete`. `force` lets `local` drop the last complete copy of the cluster."""

    task: TaskQuery
    local: bool = False
    force: bool = False
    timeout_s: float = 10.0
