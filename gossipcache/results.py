"""What the verbs return: the same fields in JSON, in the library and from `Node`.

Fields are only ever added. Ids are hex text, sizes bytes, times seconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gossipcache.errors import GossipcacheError


@dataclass(frozen=True, slots=True)
class ImportResult:
    """`import`: the task as it now stands in the cluster."""

    cid: str
    tag: str
    task_id: str
    size: int
    digest: str
    piece_size: int
    pieces: int
    publisher: str
    record_copies: int
    already_present: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class CharterView:
    """What the operator has decided for the cluster; `number` 0: nothing yet."""

    number: int
    admission: str
    delete_policy: str
    revoked_nodes: tuple[str, ...]
    revoked_serials: tuple[int, ...]
    cluster_id: str
    operator_key: str
    """Empty: the cluster has no operator."""
    signed: str
    """The charter's exact bytes with the operator's signature, in hex."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A node that has pieces of a task."""

    node: str
    name: str
    address: str
    pieces: int
    complete: bool


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """What this node itself has of a task."""

    present: bool
    complete: bool
    pinned: bool


@dataclass(frozen=True, slots=True)
class StatResult:
    """`stat`: the task's record, its keepers and its holders."""

    cid: str
    tag: str
    task_id: str
    size: int
    digest: str
    piece_size: int
    pieces: int
    kind: str
    publisher: str
    owner: str | None
    replicas: tuple[str, ...]
    holders: tuple[Holder, ...]
    local: LocalCopy
    expires_at: int | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A node that gave pieces of an export."""

    node: str
    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ExportResult:
    """`export`: what was written and where its bytes came from."""

    path: str
    size: int
    seconds: float
    bytes_by_source: dict[str, int]
    """By the source's node id."""
    resumed_bytes: int
    digest: str
    sources: tuple[Source, ...] = ()
    """The same with names."""


@dataclass(frozen=True, slots=True)
class DeleteResult:
    """`delete`: the alive holders that have, and have not yet, dropped their copy."""

    confirmed: tuple[str, ...]
    pending: tuple[str, ...]
    record_copies: int


@dataclass(frozen=True, slots=True)
class LocalTask:
    """`ls`: one task held by this node."""

    cid: str
    tag: str
    task_id: str
    size: int
    pieces: int
    pieces_present: int
    complete: bool
    pinned: bool
    last_use: int
    expires_at: int | None


@dataclass(frozen=True, slots=True)
class GcResult:
    """`gc`: what was (or with `dry_run` would be) removed, and what had to stay."""

    removed: tuple[str, ...]
    freed_bytes: int
    kept_last_copies: int
    dry_run: bool


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """`verify`: tasks re-hashed, and the pieces that were bad."""

    checked: int
    bad: dict[str, tuple[int, ...]]
    """By cid, of all its tags together."""
    repaired: dict[str, tuple[int, ...]]
    rotten: tuple[RottenTask, ...] = ()
    """The same by task."""
    unchecked: tuple[UncheckedTask, ...] = ()


@dataclass(frozen=True, slots=True)
class RottenTask:
    """A task with bad pieces; `repaired`: it is whole again."""

    cid: str
    tag: str
    task_id: str
    bad: tuple[int, ...]
    repaired: bool


@dataclass(frozen=True, slots=True)
class UncheckedTask:
    """A task of which it could not be found out, or noted, what is bad; with the error's code and
    message."""

    cid: str
    tag: str
    task_id: str
    code: str
    cause: str


@dataclass(frozen=True, slots=True)
class LimitsView:
    """`limits`: rates in bytes a second, None for no limit."""

    upload_rate: int | None
    download_rate: int | None
    task_upload_rate: int | None
    """What holds for a task by itself, where `tasks` says nothing else."""
    task_download_rate: int | None
    max_uploads: int
    uploads_running: int
    uploads_waiting: int
    tasks: tuple[TaskLimits, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """Limits that one task has of its own; cid and tag are empty while it is not held here."""

    task_id: str
    cid: str
    tag: str
    upload_rate: int | None
    download_rate: int | None


@dataclass(frozen=True, slots=True)
class MemberView:
    """One row of `members`."""

    id: str
    name: str
    address: str
    state: str
    roles: tuple[str, ...]
    incarnation: int
    protocol_min: int = 1
    protocol_max: int = 1
    zone: str = ""


@dataclass(frozen=True, slots=True)
class ClockView:
    """How far another member's clock is ahead of this node's (negative: behind), give or take
    `within_s`."""

    node: str
    name: str
    skew_s: float
    within_s: float


@dataclass(frozen=True, slots=True)
class RingShare:
    """A scheduler's part of the ring, 0 to 1."""

    id: str
    name: str
    share: float


@dataclass(frozen=True, slots=True)
class RingResult:
    """`ring`: who owns how much; with a cid, who keeps its record."""

    epoch: str
    schedulers: tuple[RingShare, ...]
    owner: str | None = None
    replicas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """`node status`."""

    id: str
    name: str
    version: str
    listen: str | None
    roles: tuple[str, ...]
    members_alive: int
    tasks: int
    store_bytes: int
    uptime_s: float
    pid: int
    metrics: dict[str, int] = field(default_factory=dict)
    records: int = 0
    """Tasks whose record this node keeps."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running import or export is."""

    phase: str
    done_bytes: int
    total_bytes: int
    sources: dict[str, int] = field(default_factory=dict)


Outcome = ImportResult | ExportResult | GossipcacheError
"""What comes of one of many imports or exports."""
