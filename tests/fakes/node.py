"""A node that keeps its tasks in memory: the control API's backend in tests."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path, PurePath
from typing import Literal

import trio

from gossipcache.control.backend import OnProgress
from gossipcache.errors import (
    Conflict,
    GossipcacheError,
    IntegrityError,
    TaskNotFound,
    TimedOut,
    UsageError,
)
from gossipcache.ids import task_id_of
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
    Holder,
    ImportResult,
    LimitsView,
    LocalCopy,
    LocalTask,
    MemberView,
    NodeStatus,
    Outcome,
    Progress,
    RingResult,
    RingShare,
    RottenTask,
    StatResult,
    TaskLimits,
    UncheckedTask,
    VerifyResult,
)

NODE_ID = "ab" * 16
CHUNK_BYTES = 1000


class FakeReader:
    """Reads one task; `fail_after` bytes it meets a bad piece."""

    kind: Literal["file", "tree"] = "file"

    def __init__(self, data: bytes, fail_after: int | None) -> None:
        self._data = data
        self._fail_after = fail_after
        self.size = len(data)
        self.digest = f"blake3:{'0' * 64}"

    async def read(self, offset: int, count: int) -> bytes:
        return self._data[offset : offset + count]

    async def chunks(self, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        for offset in range(start, self.size if stop is None else stop, CHUNK_BYTES):
            if self._fail_after is not None and offset >= self._fail_after:
                raise IntegrityError("a piece does not match its digest")
            await trio.lowlevel.checkpoint()
            end = self.size if stop is None else stop
            yield self._data[offset : min(end, offset + CHUNK_BYTES)]


def _read(path: PurePath) -> bytes:
    if not Path(path).exists():
        raise UsageError(f"there is no file {path}", "check the path")
    return Path(path).read_bytes()


def _write(request: ExportRequest, data: bytes) -> None:
    path = Path(request.path)
    if path.exists() and not request.overwrite:
        raise Conflict(f"{path} exists already", "give --overwrite")
    path.write_bytes(data)


class FakeNode:
    """The verbs over a dict. `hang` makes export wait for ever; `cancelled` tells that it was."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.tasks: dict[tuple[str, str], bytes] = {}
        self.pinned: set[tuple[str, str]] = set()
        self.requests: list[object] = []
        self.hang = False
        self.importing = trio.Event()
        self.charter_view = CharterView(0, "secret", "any", (), (), "63" * 8, "", "")
        slow = TaskLimits("00" * 32, "big", "", 2**20, None)
        self.limits_view = LimitsView(10 * 2**20, None, None, None, 64, 2, 1, (slow,))
        self.enacted: list[str] = []
        self.tickets: list[bytes] = []
        self.hanging = trio.Event()
        self.cancelled = trio.Event()
        self.fail_after: int | None = None
        self.pending: tuple[str, ...] = ()
        self.skews_s: tuple[float, ...] = ()
        self.bad: dict[str, tuple[int, ...]] = {}
        self.unchecked: tuple[UncheckedTask, ...] = ()

    async def import_file(
        self,
        request: ImportRequest,
        *,
        stream: AsyncIterator[bytes] | None = None,
        progress: OnProgress | None = None,
    ) -> ImportResult:
        self.requests.append(request)
        self.importing.set()
        data = b""
        if stream is None:
            assert request.path is not None
            data = _read(request.path)
        else:
            try:
                async for part in stream:
                    data += part
            except BaseException:
                self.cancelled.set()
                raise
        cid = request.cid or f"sha256:{hashlib.sha256(data).hexdigest()}"
        if self.tasks.get((cid, request.tag), data) != data:
            raise Conflict("other content stands under this cid and tag")
        known = (cid, request.tag) in self.tasks
        self.tasks[cid, request.tag] = data
        if progress is not None:
            progress(Progress("hash", len(data), len(data)))
            await trio.lowlevel.checkpoint()
        return ImportResult(
            cid, request.tag, task_id_of(cid, request.tag).hex(), len(data), "blake3:" + "0" * 64,
            4096, 1, NODE_ID, 3, known, 0.5,
        )  # fmt: skip

    def _data(self, task: TaskQuery) -> bytes:
        try:
            return self.tasks[task.cid, task.tag]
        except KeyError:
            raise TaskNotFound(f"no task {task.cid}") from None

    async def import_files(
        self, requests: Sequence[ImportRequest], tell: Callable[[int, Outcome], None]
    ) -> None:
        for number, request in enumerate(requests):
            try:
                tell(number, await self.import_file(request))
            except GossipcacheError as error:
                tell(number, error)

    async def export_files(
        self, requests: Sequence[ExportRequest], tell: Callable[[int, Outcome], None]
    ) -> None:
        for number, request in enumerate(requests):
            try:
                tell(number, await self.export(request))
            except GossipcacheError as error:
                tell(number, error)

    async def stat(
        self, task: TaskQuery, *, local: bool = False, timeout_s: float = 10.0
    ) -> StatResult:
        self.requests.append((task, local, timeout_s))
        data = self._data(task)
        return StatResult(
            task.cid, task.tag, task_id_of(task.cid, task.tag).hex(), len(data),
            "blake3:" + "0" * 64, 4096, 1, "file", NODE_ID, NODE_ID, (),
            (Holder(NODE_ID, "fake", "127.0.0.1:1", 1, True),), LocalCopy(True, True, False), None,
            ("only one holder",),
        )  # fmt: skip

    async def export(
        self, request: ExportRequest, *, progress: OnProgress | None = None
    ) -> ExportResult:
        self.requests.append(request)
        data = self._data(request.task)
        if progress is not None:
            progress(Progress("download", 1, len(data), {NODE_ID: 1}))
        if self.hang:
            self.hanging.set()
            try:
                await trio.sleep_forever()
            finally:
                self.cancelled.set()
        _write(request, data)
        return ExportResult(
            str(request.path), len(data), 0.25, {NODE_ID: len(data)}, 0, "blake3:00"
        )

    @asynccontextmanager
    async def reader(
        self, task: TaskQuery, *, local: bool = False, timeout_s: float | None = None
    ) -> AsyncIterator[FakeReader]:
        yield FakeReader(self._data(task), self.fail_after)

    async def delete(self, request: DeleteRequest) -> DeleteResult:
        self.requests.append(request)
        self._data(request.task)
        del self.tasks[request.task.cid, request.task.tag]
        return DeleteResult((NODE_ID,), self.pending, 3)

    def list_tasks(self) -> tuple[LocalTask, ...]:
        return tuple(
            LocalTask(
                cid, tag, task_id_of(cid, tag).hex(), len(data), 1, 1, True,
                (cid, tag) in self.pinned, 0, None,
            )
            for (cid, tag), data in self.tasks.items()
        )  # fmt: skip

    async def pin(self, task: TaskQuery, pinned: bool) -> None:
        self._data(task)
        change = self.pinned.add if pinned else self.pinned.discard
        change((task.cid, task.tag))

    async def gc(self, dry_run: bool) -> GcResult:
        return GcResult(("00",), 10, 1, dry_run)

    async def verify(self, task: TaskQuery | None) -> VerifyResult:
        rotten = (RottenTask(cid, "v1", "00", bad, False) for cid, bad in self.bad.items())
        return VerifyResult(len(self.tasks), self.bad, {}, tuple(rotten), self.unchecked)

    def members(self) -> tuple[MemberView, ...]:
        return (MemberView(NODE_ID, "fake", "127.0.0.1:1", "alive", ("peer",), 7),)

    async def wait_members(self, expect: int, timeout_s: float) -> tuple[MemberView, ...]:
        if expect != 1:
            raise TimedOut(f"1 member alive, not {expect}")
        return self.members()

    async def clocks(self) -> tuple[ClockView, ...]:
        return tuple(ClockView(NODE_ID, "far", skew_s, 0.01) for skew_s in self.skews_s)

    def limits(self) -> LimitsView:
        return self.limits_view

    def change_limits(self, wanted: LimitsChange) -> LimitsView:
        self.requests.append(wanted)
        return self.limits_view

    def change_task_limits(self, task: TaskQuery, wanted: TaskLimitsChange) -> LimitsView:
        self.requests.append((task, wanted))
        return self.limits_view

    async def charter(self, *, fresh: bool = False) -> CharterView:
        return self.charter_view

    async def enact(self, signed: str) -> CharterView:
        self.enacted.append(signed)
        return self.charter_view

    def take_ticket(self, ticket: bytes) -> None:
        self.tickets.append(ticket)

    def ring(self, task: TaskQuery | None) -> RingResult:
        owner = None if task is None else NODE_ID
        return RingResult("00", (RingShare(NODE_ID, "fake", 1.0),), owner, ())

    def status(self) -> NodeStatus:
        return NodeStatus(
            NODE_ID, "fake", "0.1.0", None, ("peer",), 1, len(self.tasks), 0, 1.0, 4242
        )
