"""What the control API asks of a node; `gossipcache.node` is the implementation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

from gossipcache.metrics import Metrics
from gossipcache.requests import (
    DeleteRequest,
    ExportRequest,
    ImportRequest,
    LimitsChange,
    TaskLimitsChange,
    TaskQuery,
)
from gossipcache.results import (
    CharterView,
    ClockView,
    DeleteResult,
    ExportResult,
    GcResult,
    ImportResult,
    LimitsView,
    LocalTask,
    MemberView,
    NodeStatus,
    Outcome,
    Progress,
    RingResult,
    StatResult,
    VerifyResult,
)

OnProgress = Callable[[Progress], None]


class Reader(Protocol):
    """A task's content, read in any order; every piece is verified before it is given out."""

    @property
    def size(self) -> int:
        """Length of the content in bytes; of a tree, of its packed form."""

    @property
    def kind(self) -> Literal["file", "tree"]:
        """What `chunks` gives: the file's bytes, or a tar of the tree."""

    @property
    def digest(self) -> str:
        """Digest of the whole."""

    async def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes of a file from `offset`; fewer only at the end."""

    def chunks(self, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` to before `stop`, in order."""


class Backend(Protocol):
    """The verbs of a running node."""

    @property
    def metrics(self) -> Metrics:
        """The node's counters."""

    async def import_file(
        self,
        request: ImportRequest,
        *,
        stream: AsyncIterator[bytes] | None = None,
        progress: OnProgress | None = None,
    ) -> ImportResult:
        """Imports a path, or `stream`."""

    async def import_files(
        self, requests: Sequence[ImportRequest], tell: Callable[[int, Outcome], None]
    ) -> None:
        """Imports all paths; `tell` hears what came of the request of that number."""

    async def export_files(
        self, requests: Sequence[ExportRequest], tell: Callable[[int, Outcome], None]
    ) -> None:
        """Writes all tasks to their paths; `tell` hears as for `import_files`."""

    async def stat(
        self, task: TaskQuery, *, local: bool = False, timeout_s: float = 10.0
    ) -> StatResult:
        """Raises `TaskNotFound` unless the task can be had."""

    async def export(
        self, request: ExportRequest, *, progress: OnProgress | None = None
    ) -> ExportResult:
        """Writes the task to a path."""

    def reader(
        self, task: TaskQuery, *, local: bool = False, timeout_s: float | None = None
    ) -> AbstractAsyncContextManager[Reader]:
        """Opens the task for reading."""

    async def delete(self, request: DeleteRequest) -> DeleteResult:
        """Deletes the task everywhere, or here."""

    def list_tasks(self) -> tuple[LocalTask, ...]:
        """The tasks held here."""

    async def pin(self, task: TaskQuery, pinned: bool) -> None:
        """Keeps the local copy from eviction, or stops to."""

    async def gc(self, dry_run: bool) -> GcResult:
        """Evicts what may go."""

    async def verify(self, task: TaskQuery | None) -> VerifyResult:
        """Re-hashes one task or all."""

    def limits(self) -> LimitsView:
        """What transfers may take."""

    def change_limits(self, wanted: LimitsChange) -> LimitsView:
        """New limits from now on."""

    def change_task_limits(self, task: TaskQuery, wanted: TaskLimitsChange) -> LimitsView:
        """New limits for one task from now on."""

    async def charter(self, *, fresh: bool = False) -> CharterView:
        """The cluster's settings and revocations; `fresh`: some members are asked first."""

    async def enact(self, signed: str) -> CharterView:
        """Takes a charter of the operator."""

    def take_ticket(self, ticket: bytes) -> None:
        """Uses another ticket of the operator from now on."""

    def members(self) -> tuple[MemberView, ...]:
        """All members known, this node among them."""

    async def wait_members(self, expect: int, timeout_s: float) -> tuple[MemberView, ...]:
        """Waits until exactly `expect` are alive. Raises `TimedOut`."""

    async def clocks(self) -> tuple[ClockView, ...]:
        """How far other members' clocks are from this node's."""

    def ring(self, task: TaskQuery | None) -> RingResult:
        """The ring, and who keeps a task's record."""

    def status(self) -> NodeStatus:
        """How the node is."""
