"""`kill -9` and power loss at every step of the store's work."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from contextlib import closing
from pathlib import PurePath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipcache.errors import IntegrityError
from gossipcache.manifest import sign_tombstone
from gossipcache.transfer.files.batch import Target, export_small
from gossipcache.transfer.files.local_export import export_link
from sim.storage.disk import DiskCrashed, SimDisk
from tests.transfer.samples import (
    PIECE,
    PUBLISHER,
    TASK,
    Shop,
    content_of,
    manifest_for,
    tree_of,
)

HOME = PurePath("/home")
OLD = content_of(2 * PIECE + 7, seed=1)
NEW = content_of(3 * PIECE, seed=2)


def do_import(shop: Shop) -> None:
    shop.keep(NEW, cid="new")


def do_import_many(shop: Shop) -> None:
    shop.keep_packed(NEW, "new", "newer")


def do_export_many(shop: Shop) -> None:
    stored = shop.store.require(TASK)
    targets = {
        number: Target(stored, HOME / f"out {number}", token=f"1{number}", umask=0, overwrite=True)
        for number in range(2)
    }
    failed = export_small(shop.disk, shop.store, targets, lambda: None)
    assert not failed
    assert shop.read(HOME / "out 1") == OLD


def do_download(shop: Shop) -> None:
    signed = manifest_for(NEW, cid="new")
    shop.store.begin(signed, tree_of(NEW))
    for index in (2, 0, 1):
        shop.download(NEW, signed, [index])
    shop.store.finish(signed.task_id)


def do_quick_download(shop: Shop) -> None:
    """All pieces are written before any is marked; it is complete before it is durable."""
    signed = manifest_for(NEW, cid="new")
    shop.store.begin(signed, tree_of(NEW))
    shop.write(NEW, signed, [2, 0, 1])
    shop.store.accept(signed.task_id)
    assert shop.store.require(signed.task_id).complete
    shop.store.settle(signed.task_id)


def do_link_and_settle(shop: Shop) -> None:
    """As an `export --link` does."""
    signed = manifest_for(NEW, cid="new")
    shop.store.begin(signed, tree_of(NEW))
    shop.write(NEW, signed, [1, 0])
    shop.store.mark(signed.task_id, [1])
    shop.write(NEW, signed, [2])
    shop.store.accept(signed.task_id)
    export_link(
        shop.disk,
        shop.store,
        signed.task_id,
        HOME / "out",
        token="1t",
        overwrite=True,
        verified=True,
    )
    shop.store.settle(signed.task_id)


def do_remove(shop: Shop) -> None:
    shop.store.remove(TASK)


def do_delete(shop: Shop) -> None:
    signed = shop.store.require(TASK).signed
    shop.store.remember_tombstone(sign_tombstone(signed, PUBLISHER, policy_number=0, deleted_at=1))


def do_replace(shop: Shop) -> None:
    signed = manifest_for(NEW, generation=2)
    shop.store.begin(signed, tree_of(NEW))
    shop.download(NEW, signed, [0, 1, 2])
    shop.store.finish(signed.task_id)


def rot(shop: Shop) -> None:
    with closing(shop.disk.open(shop.store.data_path(TASK), "write")) as file:
        file.write_at(3, b"rot")
        file.sync()
    shop.store.verify(TASK)


def do_repair(shop: Shop) -> None:
    signed = shop.store.require(TASK).signed
    shop.store.begin(signed, tree_of(OLD))
    shop.download(OLD, signed, [0])
    shop.store.finish(TASK)


def do_unpack(shop: Shop) -> None:
    shop.store.share(TASK, lambda _path: None)


def do_repair_packed(shop: Shop) -> None:
    do_repair(shop)


def do_remove_packed(shop: Shop) -> None:
    do_remove(shop)


def do_export_by_link(shop: Shop) -> None:
    export_link(shop.disk, shop.store, TASK, HOME / "out", token="1t")


WORK = [
    do_import,
    do_import_many,
    do_export_many,
    do_download,
    do_quick_download,
    do_link_and_settle,
    do_remove,
    do_delete,
    do_replace,
    do_repair,
    do_export_by_link,
    do_unpack,
    do_repair_packed,
    do_remove_packed,
]
BEGIN_PACKED = {do_unpack, do_repair_packed, do_remove_packed}
MAY_LOSE_THE_OLD_TASK = {
    do_remove,
    do_delete,
    do_replace,
    do_repair,
    do_repair_packed,
    do_remove_packed,
}


def prepared(work: Callable[[Shop], None]) -> Shop:
    disk = SimDisk()
    disk.make_folder(HOME)
    disk.sync_folder(PurePath("/"))
    shop = Shop(disk, HOME)
    if work in BEGIN_PACKED:
        shop.keep_packed(OLD, "a cid", "neighbour")
    else:
        shop.keep(OLD)
    if work in (do_repair, do_repair_packed):
        rot(shop)
    return shop


@functools.cache
def steps_of(work: Callable[[Shop], None]) -> int:
    shop = prepared(work)
    assert isinstance(shop.disk, SimDisk)
    before = shop.disk.operations
    work(shop)
    return shop.disk.operations - before


def crashed_at(
    work: Callable[[Shop], None], step: int, *, power_loss: bool, rng: random.Random | None
) -> Shop:
    """The store as the next process finds it, when the work's change number `step` (from 1)
    was its last but for one."""
    shop = prepared(work)
    disk = shop.disk
    assert isinstance(disk, SimDisk)
    disk.crash_at(disk.operations + step)
    with pytest.raises(DiskCrashed):
        work(shop)
    shop.disk = disk.crash(power_loss=power_loss, rng=rng)
    shop.reopen()
    return shop


def check_every_claim(shop: Shop) -> None:
    """No piece in any bitmap is anything but the byte-exact piece."""
    for task in shop.store.tasks(unpublished=True):
        content = {OLD: tree_of(OLD), NEW: tree_of(NEW)}
        right = next(c for c, tree in content.items() if tree.root == task.signed.manifest.root)
        assert not task.complete or task.have.complete
        try:
            data = shop.content(task.task_id)
        except IntegrityError:
            assert not shop.store.require(task.task_id).complete
            continue
        for index in shop.store.require(task.task_id).have:
            piece = slice(index * PIECE, (index + 1) * PIECE)
            assert data[piece] == right[piece]
        if task.complete:
            assert data == right
    folders = [
        name
        for fan in shop.disk.list_folder(HOME / "store" / "tasks")
        for name in shop.disk.list_folder(HOME / "store" / "tasks" / fan)
    ]
    tasks = shop.store.tasks(unpublished=True)
    assert len(folders) == sum(task.place is None for task in tasks)
    packs = {task.place.pack for task in tasks if task.place is not None}
    assert {int(name) for name in shop.disk.list_folder(HOME / "store" / "packs")} == packs
    assert isinstance(shop.disk, SimDisk)
    for number in packs:
        named = [task for task in tasks if task.place is not None and task.place.pack == number]
        room = shop.disk.room(HOME / "store" / "packs" / str(number))
        assert room - sum(task.disk_bytes for task in named) < 4096, "no room is lost"
    assert not [name for name in shop.disk.list_folder(HOME) if name.endswith(".part")]


@pytest.mark.parametrize("power_loss", [False, True])
@pytest.mark.parametrize("work", WORK)
def test_a_crash_at_any_step_loses_nothing_and_claims_nothing_false(
    work: Callable[[Shop], None], power_loss: bool
) -> None:
    for step in range(1, steps_of(work) + 1):
        shop = crashed_at(work, step, power_loss=power_loss, rng=None)
        check_every_claim(shop)
        if work not in MAY_LOSE_THE_OLD_TASK:
            if shop.store.require(TASK).linked is not None:
                assert shop.store.verify(TASK) == ()
            assert shop.store.require(TASK).complete
            assert shop.content() == OLD
        # And the work can be done again.
        if shop.store.find(TASK) is not None and work not in (do_export_by_link, do_unpack):
            work(shop)
            check_every_claim(shop)


@settings(max_examples=50)
@given(st.sampled_from(WORK), st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_so_does_a_power_loss_that_keeps_some_unsynced_writes(
    work: Callable[[Shop], None], step: int, rng: random.Random
) -> None:
    step = 1 + step % steps_of(work)
    check_every_claim(crashed_at(work, step, power_loss=True, rng=rng))


def test_what_was_done_is_durable() -> None:
    for work in WORK:
        shop = prepared(work)
        work(shop)
        expected = {
            task.task_id: (task.complete, task.have) for task in shop.store.tasks(unpublished=True)
        }
        assert isinstance(shop.disk, SimDisk)
        shop.disk = shop.disk.crash(power_loss=True)
        shop.reopen()
        found = {
            task.task_id: (task.complete, task.have) for task in shop.store.tasks(unpublished=True)
        }
        assert found == expected
        check_every_claim(shop)


def test_a_killed_process_loses_nothing_that_was_accepted() -> None:
    shop, signed = prepared(do_quick_download), manifest_for(NEW, cid="new")
    shop.store.begin(signed, tree_of(NEW))
    shop.write(NEW, signed, [0, 1, 2])
    shop.store.accept(signed.task_id)
    assert isinstance(shop.disk, SimDisk)
    shop.disk = shop.disk.crash(power_loss=False)
    shop.reopen()
    assert shop.store.require(signed.task_id).complete
    shop.disk = shop.disk.crash(power_loss=True)
    shop.reopen()
    assert shop.store.require(signed.task_id).complete, "the start has made it durable"
    check_every_claim(shop)


def test_after_a_power_loss_what_was_accepted_counts_piece_by_piece() -> None:
    shop, signed = prepared(do_quick_download), manifest_for(NEW, cid="new")
    shop.store.begin(signed, tree_of(NEW))
    shop.download(NEW, signed, [1])
    shop.write(NEW, signed, [0, 2])
    shop.store.accept(signed.task_id)
    shop.store.pin(TASK)  # makes the journal durable, and with it what it says of the other
    assert isinstance(shop.disk, SimDisk)
    shop.disk = shop.disk.crash(power_loss=True)
    shop.reopen()
    found = shop.store.require(signed.task_id)
    assert not found.complete
    assert list(found.have) == [1]
    do_quick_download(shop)
    check_every_claim(shop)
