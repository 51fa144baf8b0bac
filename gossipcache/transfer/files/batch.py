"""Exporting many small files at once: each verified, and whole at its place or not there at all,
with a few syncs for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from gossipcache.env import Disk
from gossipcache.errors import GossipcacheError, from_os_error
from gossipcache.transfer.contents import matching_tree
from gossipcache.transfer.files.output import NotedBefore, OutputFile, temporary_of
from gossipcache.transfer.store.index import StoredTask
from gossipcache.transfer.store.packs import OpenPacks
from gossipcache.transfer.store.scrub import rotten
from gossipcache.transfer.store.store import Store


@dataclass(frozen=True, slots=True)
class Target:
    """Where a task that is complete here goes, or bytes that were verified; the rest as for
    `OutputFile`."""

    content: StoredTask | bytes
    path: PurePath
    token: str
    umask: int
    overwrite: bool
    sync: bool = False


def export_small(
    disk: Disk, store: Store, targets: Mapping[int, Target], check: Callable[[], None]
) -> dict[int, GossipcacheError]:
    """Puts each task at its path, by number; returns why those that failed did. Each is read
    into memory whole. What `check` raises ends the work, and nothing unfinished stays."""
    failed: dict[int, GossipcacheError] = {}
    temporaries = [temporary_of(target.path, target.token) for target in targets.values()]
    outputs: dict[int, OutputFile] = {}

    def attempt(number: int, work: Callable[[], None]) -> None:
        check()
        try:
            work()
        except GossipcacheError as error:
            failed[number] = error
        except OSError as error:
            failed[number] = from_os_error(error)

    def write(number: int, target: Target) -> None:
        content = target.content
        data = content if isinstance(content, bytes) else _verified(store, content, packs)
        outputs[number] = output = OutputFile(
            disk,
            target.path,
            size=len(data),
            token=target.token,
            ledger=NotedBefore(),
            umask=target.umask,
            overwrite=target.overwrite,
            sparse=True,
        )
        if data:
            output.write_sparse(0, memoryview(data))
        output.seal()

    def put(number: int) -> None:
        outputs[number].put()

    def sync(paths: Mapping[int, PurePath]) -> None:
        try:
            disk.sync_all(dict.fromkeys(paths.values()))
        except (OSError, GossipcacheError) as error:
            typed = error if isinstance(error, GossipcacheError) else from_os_error(error)
            failed.update(dict.fromkeys(paths, typed))

    packs = store.open_packs()
    store.outputs.note_outputs(temporaries)
    try:
        for number, target in targets.items():
            attempt(number, lambda number=number, target=target: write(number, target))  # type: ignore[misc]
        written = [number for number in targets if number not in failed]
        sync({number: outputs[number].temporary for number in written if targets[number].sync})
        for number in [number for number in written if number not in failed]:
            attempt(number, lambda number=number: put(number))  # type: ignore[misc]
        put_ = [number for number in written if number not in failed]
        sync({number: targets[number].path.parent for number in put_ if targets[number].sync})
    finally:
        packs.close()
        for output in outputs.values():
            output.abort()
        store.outputs.forget_outputs(temporaries)
    return failed


def _verified(store: Store, stored: StoredTask, packs: OpenPacks) -> bytes:
    """The content, every piece checked by the root in the manifest. Raises `IntegrityError`."""
    with store.using(stored.task_id):
        data = store.read_whole(stored.task_id, packs)
    if matching_tree(stored.signed.manifest, data) is None:
        raise rotten(f"task {stored.task_id.hex()}")
    return data
