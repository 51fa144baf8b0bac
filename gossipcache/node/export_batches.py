"""Exporting many small tasks at once; see `rounds`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from gossipcache.errors import GossipcacheError, IntegrityError, TaskNotFound
from gossipcache.ids import TaskId, task_id_of
from gossipcache.manifest import SignedManifest
from gossipcache.node.exporting import export
from gossipcache.node.finding import Small, find_many, keep
from gossipcache.node.looking import find_local
from gossipcache.node.rounds import (
    MAX_SMALL_BYTES,
    SINGLES_AT_ONCE,
    Numbered,
    Tell,
    each,
    in_rounds,
    settled,
)
from gossipcache.node.services import Services
from gossipcache.requests import ExportRequest
from gossipcache.results import ExportResult, Source
from gossipcache.transfer.files.batch import Target, export_small
from gossipcache.transfer.store.index import StoredTask


async def export_files(services: Services, requests: Sequence[ExportRequest], tell: Tell) -> None:
    """Exports all; `tell` hears of each one when its output stands or it failed."""

    async def run(round_: Numbered[ExportRequest]) -> None:
        token = services.store.outputs.token()
        await _ExportRound(services, tell, token).run(round_)

    await in_rounds(requests, run)


@dataclass
class _ExportRound:
    services: Services
    tell: Tell
    token: str
    """Random, of the names of this round's temporary files."""
    targets: dict[int, Target] = field(default_factory=dict)
    came: dict[int, Small] = field(default_factory=dict)
    """What was not here, and is now."""
    others: Numbered[ExportRequest] = field(default_factory=list)
    """What goes the ordinary way."""

    async def run(self, requests: Numbered[ExportRequest]) -> None:
        services, started = self.services, trio.current_time()
        elsewhere: dict[TaskId, tuple[int, ExportRequest]] = {}
        for number, request in requests:
            stored = find_local(services, request.task)
            task_id = task_id_of(request.task.cid, request.task.tag)
            if stored is not None and _is_at_hand(services, request, stored):
                self._aim(number, request, stored)
            elif stored is None and _is_plain(request) and task_id not in elsewhere:
                elsewhere[task_id] = (number, request)
            else:
                self.others.append((number, request))
        if elsewhere:
            await self._bring(elsewhere)
        await self._put(dict(requests), started)
        await each(self.others, self._export_alone, at_once=SINGLES_AT_ONCE)

    def _aim(self, number: int, request: ExportRequest, content: StoredTask | bytes) -> None:
        self.targets[number] = Target(
            content,
            request.path,
            token=f"{self.token}-{number}",
            umask=request.umask,
            overwrite=request.overwrite,
            sync=request.sync,
        )

    async def _bring(self, elsewhere: dict[TaskId, tuple[int, ExportRequest]]) -> None:
        """Gets what is small enough for replies, and keeps it; the rest is downloaded."""
        kept = await settled(lambda: self._found(list(elsewhere)))
        for task_id, (number, request) in elsewhere.items():
            if isinstance(kept, GossipcacheError) or (small := kept.get(task_id)) is None:
                self.others.append((number, request))
            else:
                self.came[number] = small
                self._aim(number, request, small.data)

    async def _found(self, task_ids: list[TaskId]) -> dict[TaskId, Small]:
        return await keep(self.services, await find_many(self.services, task_ids))

    async def _put(self, requests: dict[int, ExportRequest], started: float) -> None:
        services = self.services
        async with services.one_round:
            failed = await services.run_abandonable(
                lambda check: export_small(services.env.disk, services.store, self.targets, check)
            )
        services.late_syncs.begin(
            target.path
            for number, target in self.targets.items()
            if number not in failed and not target.sync
        )
        for number, target in self.targets.items():
            error = failed.get(number)
            if error is None:
                self.tell(number, self._exported(number, target, started))
            elif isinstance(error, IntegrityError | TaskNotFound):
                self.others.append((number, requests[number]))
            else:
                self.tell(number, error)

    def _exported(self, number: int, target: Target, started: float) -> ExportResult:
        services, seconds = self.services, trio.current_time() - started
        if (small := self.came.get(number)) is not None:
            name, size = services.name_of(small.source), len(small.data)
            source = Source(small.source.hex(), name, size)
            return _result(target, small.signed, seconds, (source,))
        assert isinstance(target.content, StoredTask)
        services.store.touch(target.content.task_id, services.env.wall_time())
        return _result(target, target.content.signed, seconds, ())

    async def _export_alone(self, numbered: tuple[int, ExportRequest]) -> None:
        number, request = numbered
        self.tell(number, await settled(lambda: export(self.services, request, None)))


def _is_plain(request: ExportRequest) -> bool:
    """Whether any content that the keepers agree on will do."""
    task = request.task
    return not (request.local or request.link or request.timeout_s or task.digest or task.publisher)


def _is_at_hand(services: Services, request: ExportRequest, stored: StoredTask) -> bool:
    """Whether the whole file is here, small, and not deleted as far as the keepers told."""
    return (
        stored.complete
        and not stored.suspect
        and stored.size <= MAX_SMALL_BYTES
        and stored.signed.manifest.kind == "file"
        and not request.link
        and (request.local or services.announcer.is_taken(stored.task_id))
    )


def _result(
    target: Target, signed: SignedManifest, seconds: float, sources: tuple[Source, ...]
) -> ExportResult:
    size = signed.manifest.size
    return ExportResult(
        sources=sources,
        path=str(target.path),
        size=size,
        seconds=seconds,
        bytes_by_source={source.node: source.size_bytes for source in sources},
        resumed_bytes=0 if sources else size,
        digest=signed.manifest.digest,
    )
