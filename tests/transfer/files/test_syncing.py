"""What of an output survives a power cut, and when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePath

import pytest

from gossipcache.env import OpenMode
from gossipcache.transfer.files.ingest_tree import ingest_tree
from gossipcache.transfer.files.local_export import export_file, export_link, export_tree
from gossipcache.transfer.files.syncing import sync_outputs
from sim.storage.disk import SimDisk, SimFile
from tests.transfer.samples import PIECE, TASK, Shop, content_of, manifest_of

HOME = PurePath("/home")
CONTENT = content_of(2 * PIECE)


@pytest.fixture
def held() -> Shop:
    shop = Shop(SimDisk(), HOME)
    shop.keep(CONTENT)
    shop.disk.sync_folder(HOME.parent)
    return shop


@pytest.fixture
def held_tree() -> Shop:
    shop = Shop(SimDisk(), HOME)
    keep_tree(shop)
    return shop


def keep_tree(shop: Shop) -> None:
    shop.write_source("tree/sub/file", CONTENT)
    staging = shop.store.stage()
    ingested = ingest_tree(shop.disk, staging, HOME / "tree", piece_size=PIECE)
    shop.store.adopt(staging, manifest_of(ingested), ingested.tree, published=True)
    shop.disk.sync_folder(HOME.parent)


def after_power_cut(shop: Shop) -> Shop:
    assert isinstance(shop.disk, SimDisk)
    return Shop(shop.disk.crash(power_loss=True), HOME)


def export(shop: Shop, name: str = "out", *, sync: bool, umask: int = 0o022) -> None:
    target = HOME / name
    export_file(shop.disk, shop.store, TASK, target, token=name, umask=umask, sync=sync)


def export_as_tree(shop: Shop, *, sync: bool, umask: int = 0o022) -> None:
    target = HOME / "out"
    export_tree(shop.disk, shop.store, TASK, target, token="t", umask=umask, sync=sync)


def test_an_output_survives_a_power_cut_on_return_if_that_was_asked(held: Shop) -> None:
    export(held, sync=True)
    assert after_power_cut(held).read(HOME / "out") == CONTENT


def test_it_survives_the_death_of_the_process_in_any_case(held: Shop) -> None:
    export(held, sync=False)
    assert isinstance(held.disk, SimDisk)
    assert Shop(held.disk.crash(power_loss=False), HOME).read(HOME / "out") == CONTENT
    assert after_power_cut(held).disk.stamp(HOME / "out") is None


def test_a_late_sync_makes_it_survive(held: Shop) -> None:
    export(held, sync=False)
    assert sync_outputs(held.disk, [HOME / "out"]) == []
    assert after_power_cut(held).read(HOME / "out") == CONTENT


def test_many_outputs_are_synced_together(held: Shop) -> None:
    names = [f"out {number}" for number in range(20)]
    for name in names:
        export(held, name, sync=False)
    assert sync_outputs(held.disk, [HOME / name for name in names]) == []
    shop = after_power_cut(held)
    assert all(shop.read(HOME / name) == CONTENT for name in names)


def test_a_link_survives_as_well(held: Shop) -> None:
    export_link(held.disk, held.store, TASK, HOME / "out", token="t", sync=True)
    assert after_power_cut(held).read(HOME / "out") == CONTENT


@pytest.mark.parametrize("late", [False, True])
def test_a_tree_survives_with_all_that_is_in_it(held_tree: Shop, late: bool) -> None:
    export_as_tree(held_tree, sync=not late)
    if late:
        assert sync_outputs(held_tree.disk, [HOME / "out"]) == []
    assert after_power_cut(held_tree).read(HOME / "out" / "sub" / "file") == CONTENT


class Guarded(SimDisk):
    """A disk of a user who is not root: what its owner may not read, nobody can open."""

    def open(self, path: PurePath, mode: OpenMode) -> SimFile:
        self._check_readable(path)
        return super().open(path, mode)

    def list_folder(self, path: PurePath) -> list[str]:
        self._check_readable(path)
        return super().list_folder(path)

    def sync_all(self, paths: Iterable[PurePath]) -> None:
        """As syncfs does."""
        assert list(paths) == [HOME]
        for path in [HOME, *self._below(HOME)]:
            super().sync_all([path])

    def _below(self, folder: PurePath) -> Iterator[PurePath]:
        for path in (folder / name for name in super().list_folder(folder)):
            yield path
            stamp = self.stamp(path)
            if stamp is not None and stamp.kind == "directory":
                yield from self._below(path)

    def _check_readable(self, path: PurePath) -> None:
        stamp = self.stamp(path)
        if stamp is not None and not stamp.mode & 0o400:
            raise PermissionError(13, "Permission denied", str(path))


@pytest.fixture
def guarded_tree() -> Shop:
    shop = Shop(Guarded(), HOME)
    keep_tree(shop)
    return shop


@pytest.mark.parametrize("late", [False, True])
def test_so_does_one_that_the_umask_lets_nobody_read(guarded_tree: Shop, late: bool) -> None:
    export_as_tree(guarded_tree, sync=not late, umask=0o477)
    if late:
        assert sync_outputs(guarded_tree.disk, [HOME / "out"]) == []
    found = after_power_cut(guarded_tree)
    for path in (HOME / "out", HOME / "out" / "sub" / "file"):
        stamp = found.disk.stamp(path)
        assert stamp is not None
        assert not stamp.mode & 0o400
    assert found.read(HOME / "out" / "sub" / "file") == CONTENT


def test_a_file_that_nobody_may_read_is_synced_late_as_well() -> None:
    shop = Shop(Guarded(), HOME)
    shop.keep(CONTENT)
    shop.disk.sync_folder(HOME.parent)
    export(shop, sync=False, umask=0o477)
    assert sync_outputs(shop.disk, [HOME / "out"]) == []
    assert after_power_cut(shop).read(HOME / "out") == CONTENT


def test_what_the_user_took_away_needs_no_sync(held: Shop) -> None:
    export(held, sync=False)
    held.disk.remove(HOME / "out")
    assert sync_outputs(held.disk, [HOME / "out", HOME / "no folder" / "out"]) == []


def test_a_sync_that_fails_is_told(held: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    export(held, sync=False)
    failure = OSError(5, "Input/output error")

    def fail(_file: SimFile) -> None:
        raise failure

    monkeypatch.setattr(SimFile, "sync", fail)
    assert sync_outputs(held.disk, [HOME / "out"]) == [failure]
