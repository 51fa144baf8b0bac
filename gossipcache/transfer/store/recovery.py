"""What a start does with what the last run left: sweep, and rebuild a damaged index."""

from __future__ import annotations

from contextlib import suppress

from msgspec.structs import replace

from gossipcache.env import Disk
from gossipcache.errors import GossipcacheError, IntegrityError
from gossipcache.identity import Signed
from gossipcache.ids import TaskId
from gossipcache.manifest import Manifest
from gossipcache.transfer.pieces import PieceSet
from gossipcache.transfer.store.catalogue import Catalogue
from gossipcache.transfer.store.index import Entry, Place, SealedManifest, StoredTask, entry_of
from gossipcache.transfer.store.layout import (
    PACKED,
    Layout,
    listed_places,
    pack_number,
    padded,
    task_named,
)
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
        if task.place is None
    }
    for parent, name in layout.folders():
        if parent.name != name[:2] or missing.pop(name, None) is None:
            disk.remove(parent / name)
    packs = {pack_number(name) for name in disk.list_folder(layout.packs)}
    lost = [
        task.task_id
        for task in catalogue.tasks()
        if task.place is not None and task.place.pack not in packs
    ]
    for task_id in (*missing.values(), *lost):
        catalogue.drop(task_id)


def _rebuild(disk: Disk, layout: Layout, catalogue: Catalogue, now: float) -> None:
    for parent, name in layout.folders():
        task_id = task_named(parent.name, name)
        if task_id is None or catalogue.find(task_id) is not None:
            continue
        with suppress(GossipcacheError):
            packed = name.endswith(PACKED)
            entry = _rebuilt(layout.sealed(task_id, packed=packed), now, packed=packed)
            if TaskId(decode(entry.payload, Manifest).task_id) == task_id:
                stamp = disk.stamp(layout.data(StoredTask(task_id, entry)))
                disk_bytes = stamp.blocks_bytes if stamp else 0
                catalogue.put(task_id, replace(entry, disk_bytes=disk_bytes))
    _rebuild_packed(disk, layout, catalogue, now)


def _rebuild_packed(disk: Disk, layout: Layout, catalogue: Catalogue, now: float) -> None:
    """What is in packs: of a task that is in several, what came last."""
    numbers = [pack_number(name) for name in disk.list_folder(layout.packs)]
    found: dict[TaskId, Entry] = {}
    for number in sorted((one for one in numbers if one is not None), reverse=True):
        for start, length in listed_places(disk, layout.pack(number)):
            place = Place(number, start, length)
            with suppress(GossipcacheError):
                # Of a task that was removed zeros are left, which are no manifest.
                entry = replace(
                    _rebuilt(layout.sealed_in(place), now, packed=True),
                    disk_bytes=padded(length),
                    place=place,
                )
                found.setdefault(TaskId(decode(entry.payload, Manifest).task_id), entry)
    catalogue.put_all({one: found[one] for one in found if catalogue.find(one) is None})


def _rebuilt(sealed: SealedManifest, now: float, *, packed: bool) -> Entry:
    manifest = decode(sealed.payload, Manifest)
    signed = Signed(sealed.payload, sealed.key, sealed.signature)
    return replace(
        entry_of(signed, manifest, now),
        have=PieceSet.empty(manifest.piece_count).to_bytes(),
        suspect=True,
        verified_at=0,
        packed=packed,
    )
