"""Bringing a task's pieces to this node, and telling the keepers what it has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from gossipcache.errors import IntegrityError
from gossipcache.ids import NodeId, TaskId
from gossipcache.manifest import SignedManifest
from gossipcache.node.evicting import make_room
from gossipcache.node.progress import Meter
from gossipcache.node.services import Services
from gossipcache.transfer.download.downloads import Joined
from gossipcache.transfer.download.outcome import DownloadOutcome, DownloadProgress
from gossipcache.transfer.download.sink import OnPiece


async def fetch(
    services: Services,
    signed: SignedManifest,
    *,
    on_piece: OnPiece | None = None,
    meter: Meter | None = None,
    check: bool = False,
    durable: bool = True,
) -> DownloadOutcome:
    """Brings all of a task into the store, `durable` or written. Raises what ended the download."""
    async with joined(services, signed, on_piece=on_piece, meter=meter, check=check) as download:
        return await (download.wait() if durable else download.written())


@asynccontextmanager
async def joined(
    services: Services,
    signed: SignedManifest,
    *,
    on_piece: OnPiece | None = None,
    meter: Meter | None = None,
    check: bool = False,
) -> AsyncIterator[Joined]:
    """Takes part in the task's download. What it comes to is announced when it is over.

    With `check` the digest of the whole is verified also where the cid is not that digest.
    """

    def on_progress(progress: DownloadProgress) -> None:
        if meter is not None:
            meter.done_bytes = progress.done_bytes
            meter.sources = _by_name(services, progress.bytes_by_source)

    await _make_room(services, signed)
    try:
        async with services.downloads.join(
            signed, on_piece=on_piece, on_progress=on_progress, check_digest=check
        ) as download:
            yield download
    except IntegrityError:
        stored = services.store.find(signed.task_id)
        if stored is not None and stored.have.complete and not stored.complete:
            # All pieces fit the manifest, and the whole does not: the manifest is worthless.
            await services.env.workers.run(lambda: services.store.remove(signed.task_id))
            announce(services, signed.task_id)
        raise


async def _make_room(services: Services, signed: SignedManifest) -> None:
    """For a task of which nothing is here yet; what is resumed has its room already."""
    stored = services.store.find(signed.task_id)
    if stored is None or stored.manifest_name != signed.name:
        await make_room(services, signed.manifest.size)


def _by_name(services: Services, bytes_by_source: Mapping[NodeId, int]) -> dict[str, int]:
    """Bytes by the source's name, or by its id where names clash."""
    named: dict[str, int] = {}
    for node, count in bytes_by_source.items():
        name = services.name_of(node)
        named[node.hex() if name in named else name] = count
    return named


def announce(services: Services, task_id: TaskId) -> None:
    """Tells the keepers, soon, what this node has of the task, once that is durable: others may
    drop their copies on the strength of it."""
    stored = services.store.find(task_id)
    if stored is not None and not stored.settled:
        return
    if stored is None or not stored.published:
        services.announcer.drop(task_id)
        return
    services.announcer.set(
        task_id, stored.manifest_name, stored.have.count, stored.entry.piece_count
    )
