"""`import`: content into the store, its record to the keepers, its announcement to the swarm.

The order is what makes it safe to be killed at any point: the content is durable here before
the record names it, and the task is shown by nobody before the record is durable. A task whose
record may or may not have come to stand is settled later (`settle_unpublished`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial

import trio

from gossipcache.dht.records.service import Published
from gossipcache.errors import Conflict, GossipcacheError, IntegrityError, NotReady, TimedOut
from gossipcache.ids import TaskId, task_id_of
from gossipcache.manifest import Manifest, SignedManifest, is_digest_cid, sign_manifest
from gossipcache.node.copies import restore_copies
from gossipcache.node.evicting import with_room
from gossipcache.node.fetching import announce
from gossipcache.node.progress import Meter, ReportProgress, reported
from gossipcache.node.services import Services
from gossipcache.requests import ImportRequest
from gossipcache.results import ImportResult
from gossipcache.transfer.files.ingest import (
    Ingested,
    StreamIngest,
    digest_tree_of,
    followed,
    ingest_file,
)
from gossipcache.transfer.files.ingest_tree import ingest_tree
from gossipcache.transfer.store.index import StoredTask
from gossipcache.transfer.store.staging import Staging

PUBLISH_TIMEOUT_S = 30.0
ANNOUNCE_TIMEOUT_S = 5.0
SETTLE_RETRY_S = 5.0


@dataclass(frozen=True)
class Content:
    """Content that stands whole and durable in a staging area, with the name it will have."""

    cid: str
    tag: str
    ingested: Ingested
    created_at: int
    expires_at: int | None
    copies: int

    @cached_property
    def task_id(self) -> TaskId:
        return task_id_of(self.cid, self.tag)

    def manifest(self, cluster_id: bytes, generation: int) -> Manifest:
        ingested = self.ingested
        return Manifest(
            cluster_id=cluster_id,
            task_id=self.task_id,
            cid=self.cid,
            tag=self.tag,
            generation=generation,
            kind="tree" if ingested.listing_digest is not None else "file",
            size=ingested.size,
            listing_size=ingested.listing_size,
            piece_size=ingested.piece_size,
            root=ingested.tree.root,
            digest=ingested.digest,
            created_at=self.created_at,
            expires_at=self.expires_at,
            copies=self.copies,
        )


async def import_file(
    services: Services,
    request: ImportRequest,
    stream: AsyncIterator[bytes] | None,
    report: ReportProgress | None,
) -> ImportResult:
    """`import`, whole: returns when another node finds the task at once.

    Raises `IntegrityError` for a content-addressed cid that does not fit, `Conflict` for other
    content under the same name, `SourceChanged`, `NoSpace`, `UsageError`, `TimedOut`.
    """
    if request.cid is not None:
        task_id_of(request.cid, request.tag)
    started = trio.current_time()
    with trio.move_on_after(request.timeout_s or float("inf")):
        staging = await services.env.workers.run(services.store.stage)
        try:
            ingested = await _ingest(services, request, staging, stream, report)
            content = named(services, request, ingested)
            return await _publish(services, request, content, staging, started)
        finally:
            with trio.CancelScope(shield=True):
                await services.env.workers.run(staging.discard)
    raise TimedOut(
        f"the import of {request.path or 'the stream'} took over {request.timeout_s:g} s"
    )


async def _ingest(
    services: Services,
    request: ImportRequest,
    staging: Staging,
    stream: AsyncIterator[bytes] | None,
    report: ReportProgress | None,
) -> Ingested:
    sha256 = request.cid is None or request.cid.startswith("sha256:")
    meter = Meter("import", 0)

    async def ingest() -> Ingested:
        if stream is not None:
            return await _ingest_stream(services, staging, stream, sha256, meter)
        return await with_room(services, from_path)

    async def from_path() -> Ingested:
        return await services.run_abandonable(
            lambda check: _ingest_path(services, request, staging, sha256, meter, check)
        )

    return await reported(meter, report, ingest)


def _ingest_path(
    services: Services,
    request: ImportRequest,
    staging: Staging,
    sha256: bool,
    meter: Meter,
    check: Callable[[], None],
) -> Ingested:
    def progress(done_bytes: int) -> None:
        check()
        meter.done_bytes = done_bytes

    assert request.path is not None
    disk = services.env.disk
    stamp = disk.stamp(followed(disk, request.path))
    size = stamp.size if stamp is not None else 0
    if stamp is not None and stamp.kind == "directory":
        return ingest_tree(
            disk, staging, request.path, piece_size=piece_size(services, 0), progress=progress
        )
    meter.total_bytes = size
    return ingest_file(
        disk,
        staging,
        request.path,
        piece_size=piece_size(services, size),
        link=request.link,
        want_sha256=sha256,
        lanes=services.env.workers.lane,
        progress=progress,
    )


async def _ingest_stream(
    services: Services,
    staging: Staging,
    stream: AsyncIterator[bytes],
    sha256: bool,
    meter: Meter,
) -> Ingested:
    run = services.env.workers.run
    size_of_piece = piece_size(services, 0)
    ingest = await run(
        lambda: StreamIngest(
            services.env.disk, staging, want_sha256=sha256, piece_size=size_of_piece
        )
    )
    try:
        async for chunk in stream:
            await with_room(services, partial(run, partial(ingest.feed, chunk)))
            meter.done_bytes += len(chunk)
        return await run(ingest.finish)
    finally:
        with trio.CancelScope(shield=True):
            await run(ingest.close)


def piece_size(services: Services, size: int) -> int:
    """How content of `size` bytes is cut."""
    config = services.config.transfer
    if size >= config.large_task_bytes:
        return config.large_piece_size_bytes
    return config.piece_size_bytes


def named(services: Services, request: ImportRequest, ingested: Ingested) -> Content:
    """The content with the name that it is to have. Raises `IntegrityError` for a content-addressed
    cid that does not fit."""
    cid = request.cid if request.cid is not None else ingested.digest
    if is_digest_cid(cid) and cid != ingested.digest:
        raise IntegrityError(
            f"the content is {ingested.digest}, not {cid}", "leave out -i to name it by its digest"
        )
    now = services.env.wall_time()
    expires_at = None if request.ttl_s is None else int(now + request.ttl_s)
    return Content(cid, request.tag, ingested, int(now), expires_at, request.replicas)


async def _publish(
    services: Services,
    request: ImportRequest,
    content: Content,
    staging: Staging,
    started: float,
) -> ImportResult:
    task_id = content.task_id
    services.unsettled.pop(task_id, None)
    record = await services.records.read(task_id, timeout_s=PUBLISH_TIMEOUT_S)
    if record is not None and record.manifest is not None:
        check_same(content, record.manifest)
    if record is not None and record.tombstone is not None:
        tombstone = record.tombstone
        await services.env.workers.run(lambda: services.store.remember_tombstone(tombstone))
    standing = record.manifest if record is not None else None
    generation = record.generation + 1 if record is not None else 1

    def candidate(number: int) -> SignedManifest:
        manifest = content.manifest(services.cluster.cluster_id, number)
        return sign_manifest(manifest, services.identity)

    mine = candidate(generation)
    before = services.store.find(task_id)
    if standing is None and (before is None or not before.complete):
        await _adopt(services, request, content, staging, mine, published=False)
    try:
        published = await services.records.publish(
            lambda number: mine if number == generation else candidate(number),
            task_id=task_id,
            timeout_s=PUBLISH_TIMEOUT_S,
        )
        check_same(content, published.manifest)
        await _adopt(services, request, content, staging, published.manifest, published=True)
    except (Conflict, NotReady):
        await withdraw(services, task_id)
        raise
    except BaseException:
        services.unsettled[task_id] = None
        raise
    await _announce(services, request, task_id)
    if published.manifest.manifest.copies > 1:
        with suppress(GossipcacheError):
            await restore_copies(services, published.manifest)
    return described(content, published, standing is not None or published.adopted, started)


def described(
    content: Content, published: Published, present: bool, started: float
) -> ImportResult:
    """What an import that began at `started` is answered with."""
    manifest = published.manifest.manifest
    return ImportResult(
        cid=content.cid,
        tag=content.tag,
        task_id=content.task_id.hex(),
        size=manifest.size,
        digest=manifest.digest,
        piece_size=manifest.piece_size,
        pieces=manifest.piece_count,
        publisher=published.manifest.publisher.hex(),
        record_copies=published.copies,
        already_present=present,
        seconds=trio.current_time() - started,
    )


def check_same(content: Content, standing: SignedManifest) -> None:
    if standing.manifest.digest != content.ingested.digest:
        raise Conflict(
            f"{content.cid!r} has other content already: {standing.manifest.digest}, "
            f"by {standing.publisher.hex()}"
        )


async def _adopt(
    services: Services,
    request: ImportRequest,
    content: Content,
    staging: Staging,
    signed: SignedManifest,
    *,
    published: bool,
) -> None:
    """Makes the staged content this node's copy of the task, under the manifest that stands."""
    ingested, store = content.ingested, services.store

    def adopt() -> None:
        stored = store.find(content.task_id)
        if stored is not None and stored.complete and stored.manifest_name == signed.name:
            store.settle(content.task_id)
            if published:
                store.mark_published(content.task_id)
            return
        tree = ingested.tree
        if tree.root != signed.manifest.root:
            if stored is not None and stored.complete:
                raise NotReady(f"{content.cid!r} was imported elsewhere at the same moment")
            tree = digest_tree_of(services.env.disk, staging.data, signed.manifest.piece_size)
        store.adopt(
            staging,
            signed,
            tree,
            pinned=request.pin,
            expires_at=signed.manifest.expires_at,
            published=published,
            linked=ingested.linked,
        )

    await services.env.workers.run(adopt)


async def withdraw(services: Services, task_id: TaskId) -> None:
    """Drops this node's copy, if its record does not stand."""
    stored = services.store.find(task_id)
    if stored is not None and not stored.published:
        with trio.CancelScope(shield=True):
            await services.env.workers.run(lambda: services.store.remove(task_id))


async def _announce(services: Services, request: ImportRequest, task_id: TaskId) -> None:
    if request.pin:
        await services.env.workers.run(lambda: services.store.pin(task_id))
    announce(services, task_id)
    await services.announcer.flush(task_id, ANNOUNCE_TIMEOUT_S)


async def settle_unpublished(services: Services) -> None:
    """Ends the imports that a crash, a timeout or Ctrl-C interrupted: what is on the disk is kept
    if its record stands, else dropped. Runs for as long as the node."""
    for stored in services.store.tasks(unpublished=True):
        if not stored.published:
            services.unsettled[stored.task_id] = None
    while True:
        for task_id in list(services.unsettled):
            found = services.store.find(task_id)
            if found is None or found.published or await _settled(services, found):
                services.unsettled.pop(task_id, None)
        await trio.sleep(SETTLE_RETRY_S)


async def _settled(services: Services, stored: StoredTask) -> bool:
    task_id = stored.signed.task_id
    try:
        record = await services.records.read(task_id, timeout_s=PUBLISH_TIMEOUT_S)
    except GossipcacheError:
        return False
    if task_id not in services.unsettled:
        return True  # it is being imported again
    standing = None if record is None else record.manifest
    if standing is not None and standing.name == stored.manifest_name:
        await services.env.workers.run(lambda: services.store.mark_published(task_id))
        announce(services, task_id)
    else:
        await withdraw(services, task_id)
    return True
