"""Packs on disks that fail, and packs that rotted: the tasks that stay are not harmed."""

from __future__ import annotations

from contextlib import closing
from pathlib import PurePath

import msgspec
import pytest

from gossipcache.config import StoreConfig
from gossipcache.errors import NoSpace
from gossipcache.ids import task_id_of
from gossipcache.transfer.store.layout import listed_places
from gossipcache.transfer.store.packed import AHEAD_BYTES
from gossipcache.transfer.store.packs import MAX_OPEN
from sim.storage.disk import SimDisk
from sim.storage.file import SimFile
from tests.transfer.samples import PIECE, TASK, Shop, content_of, manifest_for, tree_of

CONTENT = content_of(2 * PIECE + 7)
HOME = PurePath("/home")
PACKS = HOME / "store" / "packs"


@pytest.fixture
def disk() -> SimDisk:
    return SimDisk()


@pytest.fixture
def shop(disk: SimDisk) -> Shop:
    return Shop(disk, HOME)


def with_list(shop: Shop, listed: bytes) -> None:
    """Puts another list at the end of the first pack."""
    with closing(shop.disk.open(PACKS / "1", "write")) as file:
        size = file.size()
        start = size - 8 - int.from_bytes(file.read_at(size - 8, 4), "big")
        file.truncate(start)
        file.write_at(start, listed + len(listed).to_bytes(4, "big") + b"gcpk")


ROTTEN_LISTS = [
    msgspec.msgpack.encode([(0, 3000), (1, 3000), (4096, 9000)]),
    msgspec.msgpack.encode([(-1, 3000), (2**64 - 1, 2**40)]),
    b"",
    b"\xc1",
]


@pytest.mark.parametrize("listed", ROTTEN_LISTS)
def test_no_hole_is_made_where_a_task_stands_whatever_a_list_says(
    shop: Shop, listed: bytes
) -> None:
    shop.keep_packed(CONTENT, "gone", "a cid", "last")
    shop.store.remove(task_id_of("gone", ""))
    with_list(shop, listed)
    shop.reopen()
    for cid in ("a cid", "last"):
        assert shop.content(task_id_of(cid, "")) == CONTENT
        assert shop.store.verify(task_id_of(cid, "")) == ()


@pytest.mark.parametrize("listed", ROTTEN_LISTS)
def test_an_index_is_rebuilt_beside_a_rotten_list(shop: Shop, listed: bytes) -> None:
    shop.keep_packed(CONTENT, "a cid")
    shop.keep_packed(CONTENT, "another")
    shop.keep_packed(CONTENT, "third")
    with_list(shop, listed)
    with closing(shop.disk.open(HOME / "store" / "index", "write")) as file:
        file.write_at(file.size() // 2, b"rot" * 20)
    shop.reopen()
    assert shop.store.require(task_id_of("another", "")).suspect
    assert shop.store.verify(task_id_of("another", "")) == ()


def test_only_places_before_the_list_and_a_list_with_its_mark_count(shop: Shop) -> None:
    shop.keep_packed(CONTENT, "a cid")
    place = shop.store.require(TASK).place
    assert place is not None
    sound = (place.start, place.length)
    assert listed_places(shop.disk, PACKS / "1") == (sound,)
    with_list(shop, msgspec.msgpack.encode([(-1, 1), sound, (1, 2**62), (2**64 - 1, 1), (9, -9)]))
    assert listed_places(shop.disk, PACKS / "1") == (sound,)
    with closing(shop.disk.open(PACKS / "1", "write")) as file:
        file.write_at(file.size() - 4, b"rot!")
    assert listed_places(shop.disk, PACKS / "1") == ()


def test_a_full_disk_leaves_nothing_of_a_task_that_found_no_room(disk: SimDisk, shop: Shop) -> None:
    disk.medium.capacity_bytes = 3 * AHEAD_BYTES
    content, packing, added = content_of(AHEAD_BYTES // 2), shop.store.pack(), []
    for number in range(10):
        try:
            packing.add(manifest_for(content, cid=str(number)), tree_of(content), content)
            added.append(task_id_of(str(number), ""))
        except NoSpace:
            disk.medium.capacity_bytes = 4 * AHEAD_BYTES
    assert 0 < len(added) < 10
    disk.medium.capacity_bytes = 100 * AHEAD_BYTES
    assert packing.adopt() == added
    packing.discard()
    with closing(disk.open(PACKS / "1", "read")) as file:
        assert file.size() < (len(added) + 1) * (len(content) + AHEAD_BYTES // 8)
    for task_id in added:
        assert shop.content(task_id) == content
        shop.store.remove(task_id)
    assert disk.list_folder(PACKS) == []


def test_a_hole_that_fails_is_made_by_the_next_start_and_fails_nothing_else(
    disk: SimDisk, shop: Shop
) -> None:
    shop.keep_packed(CONTENT, "one", "two", "a cid")
    before = disk.room(PACKS / "1")
    disk.fail("punch", count=3)
    assert shop.store.remove(task_id_of("one", "")) > 0
    assert shop.store.remove(task_id_of("two", "")) > 0
    assert disk.room(PACKS / "1") == before
    shop.reopen()
    assert shop.content() == CONTENT
    shop.reopen()
    assert disk.room(PACKS / "1") < before - 2 * len(CONTENT)


def test_a_task_that_found_no_room_to_be_unpacked_leaves_nothing_behind(
    disk: SimDisk, shop: Shop
) -> None:
    shop.keep_packed(CONTENT, "a cid")
    disk.medium.capacity_bytes = disk.medium.capacity_bytes - disk.free_bytes(HOME) + 100
    with pytest.raises(NoSpace):
        shop.store.share(TASK, lambda _path: None)
    assert disk.list_folder(HOME / "store" / "staging") == []
    assert shop.content() == CONTENT


def test_a_format_written_by_hand_is_enough_for_a_store_without_packs(shop: Shop) -> None:
    shop.keep(CONTENT)
    shop.disk.remove(PACKS)
    shop.disk.remove(HOME / "store" / "format.json")
    shop.write_source("store/format.json", b'{"format": 3}')
    shop.config = StoreConfig(quota_bytes=None)
    shop.reopen()
    assert shop.store.quota_bytes > shop.store.used_bytes > 0
    assert shop.content() == CONTENT
    assert shop.keep_packed(CONTENT, "packed")


def test_many_packs_are_not_all_open_at_once(
    disk: SimDisk, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimFile, "punch", lambda *_: False)
    shop.reopen()
    open_before, cids = disk.open_files, [str(number) for number in range(MAX_OPEN + 5)]
    packing = shop.store.pack()
    for cid in cids:
        packing.add(manifest_for(CONTENT, cid=cid), tree_of(CONTENT), CONTENT)
        assert disk.open_files <= open_before + 1
    assert len(packing.adopt()) == len(cids)
    packing.discard()
    packs = shop.store.open_packs()
    for cid in cids:
        assert shop.store.read_whole(task_id_of(cid, ""), packs) == CONTENT
        assert disk.open_files <= open_before + MAX_OPEN
    packs.close()
    assert disk.open_files == open_before
