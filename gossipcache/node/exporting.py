"""`export`: a task to a path, whole and verified or not there at all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial

import trio

from gossipcache.errors import IntegrityError, TaskNotFound, TimedOut
from gossipcache.manifest import SignedManifest
from gossipcache.node.deleting import is_over
from gossipcache.node.fetching import fetch, joined
from gossipcache.node.finding import find_one, keep
from gossipcache.node.looking import find_local
from gossipcache.node.progress import Meter, ReportProgress, reported
from gossipcache.node.services import Services, not_found
from gossipcache.requests import ExportRequest
from gossipcache.results import ExportResult, Source
from gossipcache.transfer.download.outcome import DownloadOutcome
from gossipcache.transfer.files.local_export import export_file, export_link, export_tree
from gossipcache.transfer.files.output import OutputFile
from gossipcache.transfer.pieces import PieceSet
from gossipcache.transfer.store.index import StoredTask
from gossipcache.transfer.store.scrub import read_piece

FIND_TIMEOUT_S = 30.0


async def export(
    services: Services, request: ExportRequest, report: ReportProgress | None
) -> ExportResult:
    """`export`. Raises `TaskNotFound`, `Conflict`, `TimedOut`, `IntegrityError`, `NoSpace`."""
    started = trio.current_time()
    with trio.move_on_after(request.timeout_s or float("inf")):
        signed, outcome = await _export(services, request, report)
        if not request.sync:
            services.late_syncs.begin([request.path])
        services.store.touch(signed.task_id, services.env.wall_time())
        sources = tuple(
            Source(node.hex(), services.name_of(node), count)
            for node, count in outcome.bytes_by_source.items()
        )
        return ExportResult(
            sources=sources,
            path=str(request.path),
            size=signed.manifest.size,
            seconds=trio.current_time() - started,
            bytes_by_source={source.node: source.size_bytes for source in sources},
            resumed_bytes=outcome.resumed_bytes,
            digest=signed.manifest.digest,
        )
    raise TimedOut(
        f"the export of {request.task.cid!r} took over {request.timeout_s:g} s",
        "run it again: it resumes with the pieces it has",
    )


async def _export(
    services: Services, request: ExportRequest, report: ReportProgress | None
) -> tuple[SignedManifest, DownloadOutcome]:
    stored = find_local(services, request.task)
    if stored is not None and stored.complete and not stored.suspect:
        stored = stored if request.local or not await is_over(services, stored) else None
    if stored is not None and stored.complete and not stored.suspect:
        try:
            await _from_store(services, request, stored.signed, report)
        except (IntegrityError, TaskNotFound):
            if request.local:
                raise
            await _forget_bad_pieces(services, stored)
        else:
            return stored.signed, DownloadOutcome({}, stored.signed.manifest.size)
    if request.local:
        raise not_found(request.task, "it is not complete on this node")
    timeout_s = min(FIND_TIMEOUT_S, request.timeout_s or FIND_TIMEOUT_S)
    signed, small = await find_one(services, request.task, timeout_s)
    if small is not None and await keep(services, {signed.task_id: small}):
        await _from_store(services, request, signed, report, verified=True)
        return signed, DownloadOutcome({small.source: len(small.data)}, 0)
    meter = Meter("export", signed.manifest.size)
    if signed.manifest.kind == "file" and not request.link:
        work = partial(_while_it_comes, services, request, signed, meter)
        return signed, await reported(meter, report, work)
    check = request.task.digest is not None
    on_piece = _leave_in_store if signed.manifest.kind == "file" else None
    work = partial(
        fetch,
        services,
        signed,
        on_piece=on_piece,
        meter=meter,
        check=check,
        durable=request.sync,
    )
    outcome = await reported(meter, report, work)
    await _from_store(services, request, signed, report, verified=not outcome.resumed_bytes)
    return signed, outcome


def _leave_in_store(_index: int, _data: memoryview) -> None:
    """For a file that is to be linked: nobody reads what comes in."""


async def _forget_bad_pieces(services: Services, stored: StoredTask) -> None:
    task_id = stored.signed.task_id
    if services.store.find(task_id) is not None:
        await services.env.workers.run(lambda: services.store.verify(task_id))


async def _from_store(
    services: Services,
    request: ExportRequest,
    signed: SignedManifest,
    report: ReportProgress | None,
    *,
    verified: bool = False,
) -> None:
    """Exports what is complete here; every piece is verified on the way, except for a link
    when all were `verified` just now."""
    meter = Meter("export", signed.manifest.size)
    token = services.store.outputs.token()

    def work(check: Callable[[], None]) -> None:
        def progress(done_bytes: int) -> None:
            check()
            meter.done_bytes = done_bytes

        if signed.manifest.kind == "tree":
            place = partial(export_tree, umask=request.umask)
        else:
            lanes = services.env.workers.lane
            place = partial(export_file, umask=request.umask, lanes=lanes)
        if request.link and signed.manifest.kind == "file":
            place = partial(export_link, verified=verified, lanes=services.env.workers.lane)
        place(
            services.env.disk,
            services.store,
            signed.task_id,
            request.path,
            token=token,
            overwrite=request.overwrite,
            sync=request.sync,
            progress=progress,
        )

    await reported(meter, report, lambda: services.run_abandonable(work))


async def _while_it_comes(
    services: Services, request: ExportRequest, signed: SignedManifest, meter: Meter
) -> DownloadOutcome:
    """Writes each piece to the output while it is in memory, and earlier ones from the store."""
    run, piece_size = services.env.workers.run, signed.manifest.piece_size
    token = services.store.outputs.token()
    output = await run(
        lambda: OutputFile(
            services.env.disk,
            request.path,
            size=signed.manifest.size,
            token=token,
            ledger=services.store.outputs,
            umask=request.umask,
            overwrite=request.overwrite,
        )
    )

    def take(index: int, data: memoryview) -> None:
        output.write(index * piece_size, data)

    try:
        async with joined(
            services,
            signed,
            on_piece=take,
            meter=meter,
            check=request.task.digest is not None,
        ) as download:
            async for pieces in download.stored():
                await run(partial(_copy_pieces, services, signed, pieces, output))
            outcome = await (download.wait() if request.sync else download.written())
        await run(partial(output.commit, sync=request.sync))
    finally:
        with trio.CancelScope(shield=True):
            await run(output.abort)
    return outcome


def _copy_pieces(
    services: Services, signed: SignedManifest, pieces: PieceSet, output: OutputFile
) -> None:
    manifest, tree = signed.manifest, services.store.tree(signed.task_id)
    with closing(services.store.open_data(signed.task_id)) as data:
        for index in pieces:
            output.write(index * manifest.piece_size, read_piece(data, manifest, tree, index))
