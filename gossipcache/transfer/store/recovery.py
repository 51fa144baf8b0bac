"""What a start does with what the last run left: sweep, and rebuild a damaged index."""

from __future__ import annotations

from gossipcache.env import Disk
from gossipcache.errors import GossipcacheError, IntegrityError
from gossipcache.ids import TaskId
from gossipcache.manifest import Manifest
from gossipcache.transfer.pieces import PieceSet
from gossipcache.transfer.store.catalogue import Catalogue
from gossipcache.transfer.store.index import Entry
from gossipcache.transfer.store.layout import PACKED, Layout, task_named
from gossipcache.transfer.store.outputs import sweep_outputs
from gossipcache.wire import decode


def open_catalogue(disk: Disk, layout: Layout, now: float) -> Catalogue:
    """The store's catalogue, fitted to the folders that are there.

    A damaged index is rebuilt from the manifests beside the data: all tasks in it are suspect
    until they are verified.
    """
    try:
        catalogue = Catalogue(disk, layout.index)
    except IntegrityError:
        # The journal has set the damaged file aside.
        catalogue = Catalogue(disk, layout.index)
        _rebuild(disk, layout, catalogue, now)
    _sweep(disk, layout, catalogue)
    sweep_outputs(disk, catalogue)
    return catalogue


def _sweep(disk: Disk, layout: Layout, catalogue: Catalogue) -> None:
    for task in catalogue.tasks():
        if catalogue.dead_generation(task.task_id) >= task.generation:
            catalogue.drop(task.task_id)
    missing = {
        task.task_id.hex() + (PACKED if task.packed else ""): task.task_id
        for task in catalogue.tasks()
    }
    for parent, name in layout.folders():
        if parent.name != name[:2] or missing.pop(name, None) is None:
            disk.remove(parent / name)
    for task_id in missing.values():
        catalogue.drop(task_id)


def _rebuild(disk: Disk, layout: Layout, catalogue: Catalogue, now: float) -> None:
    for parent, name in layout.folders():
        task_id = task_named(parent.name, name)
        if task_id is None or catalogue.find(task_id) is not None:
            continue
        try:
            entry = _rebuilt(disk, layout, task_id, now, packed=name.endswith(PACKED))
        except GossipcacheError:
            continue
        catalogue.put(task_id, entry)


def _rebuilt(disk: Disk, layout: Layout, task_id: TaskId, now: float, *, packed: bool) -> Entry:
    sealed = layout.sealed(task_id, packed=packed)
    manifest = decode(sealed.payload, Manifest)
    if manifest.task_id != task_id:
        raise IntegrityError("the manifest of another task")
    stamp = disk.stamp(layout.data(task_id, packed=packed))
    return Entry(
        payload=sealed.payload,
        key=sealed.key,
        signature=sealed.signature,
        generation=manifest.generation,
        size=manifest.size,
        piece_count=manifest.piece_count,
        have=PieceSet.empty(manifest.piece_count).to_bytes(),
        suspect=True,
        expires_at=manifest.expires_at,
        last_use=now,
        verified_at=0,
        disk_bytes=stamp.blocks_bytes if stamp else 0,
        copies=manifest.copies,
        packed=packed,
    )
