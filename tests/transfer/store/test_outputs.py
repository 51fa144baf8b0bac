"""Hidden files of exports that were cut off, and of those that a power cut brings back."""

from __future__ import annotations

import errno
import random
from pathlib import PurePath

import pytest

from gossipcache.journal import Journal
from gossipcache.transfer.files.local_export import export_file
from sim.storage.disk import SimDisk
from tests.transfer.samples import PIECE, TASK, Shop, content_of

HOME = PurePath("/home")
USER = PurePath("/user")


@pytest.fixture
def shop() -> Shop:
    shop = Shop(SimDisk(), HOME)
    shop.keep(content_of(PIECE))
    shop.disk.make_folder(USER)
    for folder in (HOME, USER):
        shop.disk.sync_folder(folder.parent)
    return shop


def sim_disk(shop: Shop) -> SimDisk:
    assert isinstance(shop.disk, SimDisk)
    return shop.disk


def export(shop: Shop, name: str = "out") -> None:
    token = shop.store.outputs.token()
    export_file(shop.disk, shop.store, TASK, USER / name, token=token, umask=0o022)


def hidden(shop: Shop) -> list[str]:
    return [name for name in shop.disk.list_folder(USER) if name.endswith(".part")]


def after_power_cut(shop: Shop, seed: int) -> Shop:
    return Shop(sim_disk(shop).crash(rng=random.Random(seed)), HOME)


def begun(shop: Shop, name: str) -> PurePath:
    """An export that has made its hidden file."""
    path = USER / f".gossipcache-{name}.part"
    shop.store.outputs.note_output(path)
    shop.disk.open(path, "create").close()
    return path


@pytest.mark.parametrize("seed", range(30))
def test_a_power_cut_right_after_an_unsynced_export_leaves_no_hidden_file(
    shop: Shop, seed: int
) -> None:
    export(shop)
    assert hidden(after_power_cut(shop, seed)) == []


@pytest.mark.parametrize("seed", range(30))
def test_nor_does_one_after_an_orderly_stop(shop: Shop, seed: int) -> None:
    export(shop)
    shop.store.close()
    assert hidden(after_power_cut(shop, seed)) == []


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("tidied", range(3))
def test_nor_one_after_a_crash_and_a_start(shop: Shop, tidied: int, seed: int) -> None:
    begun(shop, "1a")
    shop.reopen()
    for _ in range(tidied):
        shop.store.outputs.tidy()
    assert shop.store.outputs.is_empty is (tidied == 2)
    assert hidden(after_power_cut(shop, seed)) == []


@pytest.mark.parametrize("seed", range(30))
def test_a_folder_is_forgotten_when_it_rests_and_its_names_are_durable(
    shop: Shop, seed: int
) -> None:
    outputs = shop.store.outputs
    for name in ("a", "b"):
        export(shop, name=name)
        outputs.tidy()
        assert not outputs.is_empty, "it was used meanwhile"
    busy = begun(shop, "1a")
    for _ in range(2):
        outputs.tidy()
        assert not outputs.is_empty, "it is in use"
    shop.disk.remove(busy)
    outputs.forget_output(busy)
    for is_forgotten in (False, True):
        outputs.tidy()
        assert outputs.is_empty is is_forgotten
    assert hidden(after_power_cut(shop, seed)) == []


def test_only_the_first_export_into_a_folder_waits_for_the_disk(shop: Shop) -> None:
    def syncs_of_one(name: str) -> int:
        synced.clear()
        export(shop, name=name)
        return len(synced)

    synced: list[int] = []
    sim_disk(shop).medium.observer = lambda kind, inode, _offset, _data: (
        synced.append(inode) if kind == "sync" else None
    )
    assert [syncs_of_one(name) for name in ("a", "b", "c")] == [1, 0, 0]


def test_what_other_runs_and_other_nodes_are_at_work_on_stays(shop: Shop) -> None:
    begun(shop, "1a")
    shop.disk.open(USER / ".gossipcache-2a.part", "create").close()
    shop.reopen()
    assert hidden(shop) == [".gossipcache-2a.part"]


def test_a_folder_that_is_gone_is_forgotten(shop: Shop) -> None:
    begun(shop, "1a")
    shop.disk.remove(USER)
    shop.reopen()
    for _ in range(2):
        shop.store.outputs.tidy()
    assert shop.store.outputs.is_empty


def test_a_folder_that_cannot_be_synced_stays_noted(shop: Shop) -> None:
    outputs = shop.store.outputs
    export(shop)
    outputs.tidy()
    sim_disk(shop).medium.defects.failing["sync"] = [_input_output_error()]
    for is_forgotten in (False, True):
        outputs.tidy()
        assert outputs.is_empty is is_forgotten


def test_the_notes_of_an_earlier_program_are_still_understood(shop: Shop) -> None:
    left = USER / ".gossipcache-old.part"
    shop.disk.open(left, "create").close()
    shop.store.close()
    journal = Journal.open(shop.disk, HOME / "store" / "index", lambda _key, _value: None)
    journal.put(b"o" + str(left).encode(), b"")
    journal.close()
    shop.reopen()
    assert hidden(shop) == []


def test_two_exports_never_take_the_same_name(shop: Shop) -> None:
    names = {shop.store.outputs.token() for _ in range(100)}
    assert len(names) == 100


def test_an_export_that_cannot_be_noted_does_not_begin(shop: Shop) -> None:
    sim_disk(shop).medium.defects.failing["write"] = [_input_output_error()]
    with pytest.raises(OSError, match="Input/output"):
        export(shop)
    assert shop.disk.list_folder(USER) == []


def _input_output_error() -> OSError:
    return OSError(errno.EIO, "Input/output error")
