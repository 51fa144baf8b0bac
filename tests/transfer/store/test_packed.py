"""Small tasks in packs, and what makes folders of them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path, PurePath

import msgspec
import pytest
from msgspec.structs import replace

from gossipcache.config import StoreConfig
from gossipcache.disk import OsDisk, OsFile
from gossipcache.errors import IntegrityError, NoSpace
from gossipcache.ids import task_id_of
from gossipcache.manifest import sign_tombstone
from gossipcache.transfer.files.local_export import export_file, export_link
from gossipcache.transfer.store.catalogue import Catalogue
from gossipcache.transfer.store.index import Place
from sim.storage.disk import SimDisk, SimFile
from tests.transfer.samples import PIECE, PUBLISHER, TASK, Shop, content_of, manifest_for, tree_of

CONTENT = content_of(2 * PIECE + 7)


def places(shop: Shop) -> list[str]:
    """What stands in the store of its tasks."""
    tasks = shop.root / "store" / "tasks"
    return packs(shop) + [
        name for fan in shop.disk.list_folder(tasks) for name in shop.disk.list_folder(tasks / fan)
    ]


def packs(shop: Shop) -> list[str]:
    """The names of its packs."""
    return shop.disk.list_folder(shop.root / "store" / "packs")


@pytest.mark.parametrize("size", [0, 1, PIECE, 3 * PIECE + 1])
def test_a_packed_task_reads_as_any_other(shop: Shop, size: int) -> None:
    content = content_of(size)
    assert shop.keep_packed(content, "a cid") == [TASK]
    for _ in range(2):
        task = shop.store.require(TASK)
        assert task.complete
        assert task.published
        assert shop.store.tree(TASK).root == task.signed.manifest.root
        assert shop.content() == content
        assert shop.store.verify(TASK) == ()
        assert places(shop) == ["1"]
        shop.reopen()


def test_of_two_at_once_one_is_taken(shop: Shop) -> None:
    signed = manifest_for(CONTENT)
    one, other = shop.store.pack(), shop.store.pack()
    for packing in (one, other):
        packing.add(signed, tree_of(CONTENT), CONTENT)
    assert one.adopt() == [TASK]
    assert other.adopt() == []
    for packing in (one, other):
        packing.discard()
    assert shop.content() == CONTENT
    assert shop.disk.list_folder(shop.root / "store" / "staging") == []


def test_what_was_deleted_is_not_taken(shop: Shop) -> None:
    signed = manifest_for(CONTENT)
    shop.store.remember_tombstone(sign_tombstone(signed, PUBLISHER, policy_number=0, deleted_at=1))
    assert shop.keep_packed(CONTENT, "a cid", "other") == [task_id_of("other", "")]
    assert len(places(shop)) == 1


def test_content_that_is_not_the_manifests_is_refused(shop: Shop) -> None:
    packing = shop.store.pack()
    with pytest.raises(IntegrityError):
        packing.add(manifest_for(CONTENT), tree_of(CONTENT), CONTENT[:-1])


def test_a_full_store_refuses_it_and_keeps_nothing() -> None:
    shop = Shop(SimDisk(), PurePath("/home"), StoreConfig(quota_bytes=2 * len(CONTENT)))
    packing = shop.store.pack()
    for cid in ("one", "two"):
        packing.add(manifest_for(CONTENT, cid=cid), tree_of(CONTENT), CONTENT)
    with pytest.raises(NoSpace):
        packing.add(manifest_for(b"x", cid="three"), tree_of(b"x"), b"x")
    packing.discard()
    assert shop.disk.list_folder(shop.root / "store" / "staging") == []
    shop.store.reserve(2 * len(CONTENT))


def test_it_goes_without_a_trace(shop: Shop) -> None:
    shop.keep_packed(CONTENT, "a cid")
    with shop.store.using(TASK), closing(shop.store.open_data(TASK)) as file:
        assert shop.store.remove(TASK) >= len(CONTENT)
        assert file.read_at(0, len(CONTENT)) == CONTENT
    shop.store.tidy()
    assert places(shop) == []
    assert shop.disk.list_folder(shop.root / "store" / "trash") == []


def test_an_export_holds_the_content_alone(shop: Shop) -> None:
    shop.keep_packed(CONTENT, "a cid")
    target = shop.root / "out"
    export_file(shop.disk, shop.store, TASK, target, token="t", umask=0o022)
    assert shop.read(target) == CONTENT


def test_an_export_by_link_unpacks_it(os_shop: Shop) -> None:
    os_shop.keep_packed(CONTENT, "a cid")
    target = Path(os_shop.root) / "out"
    export_link(os_shop.disk, os_shop.store, TASK, target, token="t")
    assert target.read_bytes() == CONTENT
    assert target.samefile(os_shop.store.data_path(TASK))
    os_shop.store.tidy()
    assert places(os_shop) == [TASK.hex()]
    os_shop.reopen()
    assert os_shop.content() == CONTENT


@pytest.mark.parametrize("offset", [3, PIECE, len(CONTENT) + 10, -2])
def test_wherever_it_rots_it_is_found_and_mended(shop: Shop, offset: int) -> None:
    shop.keep_packed(CONTENT, "before", "a cid", "behind")
    with closing(shop.disk.open(shop.store.data_path(TASK), "write")) as file:
        place = place_of(shop, "a cid")
        file.write_at(place.start + offset % place.length, b"r")
    for other in ("before", "behind"):
        assert shop.store.verify(task_id_of(other, "")) == ()
    assert shop.store.verify(TASK) != ()
    assert not shop.store.require(TASK).complete
    signed = shop.store.require(TASK).signed
    shop.store.begin(signed, tree_of(CONTENT))
    assert places(shop) == ["1", TASK.hex()]
    shop.download(CONTENT, signed, [0, 1, 2])
    shop.store.finish(TASK)
    assert shop.content() == CONTENT
    assert shop.store.verify(TASK) == ()


def test_a_file_that_vanished_is_fetched_anew(shop: Shop) -> None:
    shop.keep_packed(CONTENT, "a cid")
    shop.disk.remove(shop.store.data_path(TASK))
    with pytest.raises(IntegrityError):
        shop.store.open_data(TASK)
    signed = shop.store.require(TASK).signed
    shop.store.begin(signed, tree_of(CONTENT))
    shop.download(CONTENT, signed, [0, 1, 2])
    shop.store.finish(TASK)
    assert shop.content() == CONTENT


def test_a_lost_index_is_rebuilt_from_packed_tasks_too(shop: Shop) -> None:
    shop.keep_packed(CONTENT, "gone", "a cid", "another")
    shop.store.remove(task_id_of("gone", ""))
    shop.keep(CONTENT, cid="in a folder")
    with closing(shop.disk.open(shop.root / "store" / "index", "write")) as file:
        file.write_at(file.size() // 2, b"rot" * 20)
    shop.reopen()
    assert len(shop.store.tasks()) == 3
    for task_id in (TASK, task_id_of("another", ""), task_id_of("in a folder", "")):
        assert shop.store.require(task_id).suspect
        assert shop.store.verify(task_id) == ()
        assert shop.store.require(task_id).complete
    assert shop.content() == CONTENT


def test_a_store_of_the_first_format_is_taken_up_and_then_refused_by_its_program() -> None:
    shop = Shop(SimDisk(), PurePath("/home"))
    shop.keep(CONTENT)
    path = shop.root / "store" / "format.json"
    shop.disk.remove(path)
    with closing(shop.disk.open(path, "create")) as file:
        file.write_at(0, b'{"format": 1, "default_quota_bytes": 123}')
    shop.reopen()
    assert shop.content() == CONTENT
    assert shop.read(path) == b'{"format":3,"default_quota_bytes":123}'


def test_a_task_of_the_second_format_has_a_file_of_its_own(shop: Shop) -> None:
    alone = earlier(shop)
    for _ in range(2):
        assert places(shop) == [alone.name]
        assert shop.content() == CONTENT
        assert shop.store.verify(TASK) == ()
        shop.reopen()
    with closing(shop.disk.open(shop.root / "store" / "index", "write")) as file:
        file.write_at(file.size() // 2, b"rot" * 20)
    shop.reopen()
    assert shop.store.require(TASK).suspect
    assert shop.store.verify(TASK) == ()
    assert shop.content() == CONTENT
    shop.store.share(TASK, lambda _path: None)
    assert places(shop) == [TASK.hex()]
    assert shop.content() == CONTENT


def test_a_task_of_the_second_format_goes_without_a_trace(shop: Shop) -> None:
    earlier(shop)
    shop.store.remove(TASK)
    assert places(shop) == []
    assert shop.disk.list_folder(shop.root / "store" / "trash") == []


def earlier(shop: Shop) -> PurePath:
    """The task as the second format has it: at the returned path."""
    shop.keep_packed(CONTENT, "a cid")
    place = place_of(shop, "a cid")
    with closing(shop.disk.open(shop.store.data_path(TASK), "read")) as file:
        record = file.read_at(place.start, place.length)
    entry = replace(shop.store.require(TASK).entry, place=None)
    shop.store.close()
    catalogue = Catalogue(shop.disk, shop.root / "store" / "index")
    catalogue.put(TASK, entry)
    catalogue.close()
    alone = shop.root / "store" / "tasks" / TASK.hex()[:2] / f"{TASK.hex()}.packed"
    with closing(shop.disk.open(alone, "create")) as file:
        file.write_at(0, record)
    shop.reopen()
    return alone


def place_of(shop: Shop, cid: str) -> Place:
    """Where a task stands in its pack."""
    place = shop.store.require(task_id_of(cid, "")).place
    assert place is not None
    return place


def room_of(shop: Shop) -> int:
    """What the store's packs take of the disk."""
    assert isinstance(shop.disk, SimDisk)
    folder = shop.root / "store" / "packs"
    return sum(shop.disk.room(folder / name) for name in packs(shop))


def test_what_goes_frees_its_room_at_once_and_the_last_one_the_file() -> None:
    shop = Shop(SimDisk(), PurePath("/home"))
    cids = ("a cid", "two", "three")
    shop.keep_packed(CONTENT, *cids)
    assert packs(shop) == ["1"]
    before = shop.store.used_bytes, room_of(shop)
    freed = shop.store.remove(task_id_of("two", ""))
    assert freed >= len(CONTENT)
    assert (shop.store.used_bytes, room_of(shop)) == (before[0] - freed, before[1] - freed)
    for cid in ("a cid", "three"):
        assert shop.content(task_id_of(cid, "")) == CONTENT
        shop.store.remove(task_id_of(cid, ""))
    assert packs(shop) == []


def test_a_user_keeps_the_bytes_of_a_task_whose_neighbours_stay(shop: Shop) -> None:
    shop.keep_packed(CONTENT, "a cid", "neighbour")
    with shop.store.using(TASK), closing(shop.store.open_data(TASK)) as file:
        shop.store.remove(TASK)
        shop.store.tidy()
        assert file.read_at(0, len(CONTENT)) == CONTENT
    place = 0
    shop.store.tidy()
    with closing(shop.disk.open(shop.store.data_path(task_id_of("neighbour", "")), "read")) as pack:
        assert pack.read_at(place, len(CONTENT)) == bytes(len(CONTENT))


def test_a_start_frees_what_a_crash_left_between_a_removal_and_its_hole() -> None:
    shop = Shop(SimDisk(), PurePath("/home"))
    shop.keep_packed(CONTENT, "one", "a cid", "last")
    room = room_of(shop)
    for cid in ("one", "last"):
        with shop.store.using(task_id_of(cid, "")):
            freed = shop.store.remove(task_id_of(cid, ""))
        assert room_of(shop) == room
        shop.reopen()
        room -= freed
        assert room_of(shop) == room
        assert shop.content() == CONTENT
    with shop.store.using(TASK):
        shop.store.remove(TASK)
    shop.reopen()
    assert packs(shop) == []


def test_no_number_is_given_twice_while_a_task_names_it(shop: Shop) -> None:
    shop.keep_packed(CONTENT, "one")
    shop.keep_packed(CONTENT, "a cid")
    shop.disk.remove(shop.store.data_path(TASK))
    shop.reopen()
    assert shop.store.find(TASK) is None
    shop.keep_packed(CONTENT, "a cid")
    assert sorted(packs(shop)) == ["1", "2"]
    shop.store.remove(task_id_of("one", ""))
    shop.reopen()
    shop.keep_packed(CONTENT, "three")
    assert sorted(packs(shop)) == ["2", "3"]


def test_where_no_holes_can_be_made_each_task_has_a_pack(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (SimFile, OsFile):
        monkeypatch.setattr(kind, "punch", lambda *_: False)
    shop.reopen()
    shop.keep_packed(CONTENT, "a cid", "two", "three")
    assert len(packs(shop)) == 3
    shop.store.remove(task_id_of("two", ""))
    assert len(packs(shop)) == 2
    shop.reopen()
    assert shop.content() == CONTENT


def test_names_and_bytes_are_the_documented_ones(tmp_path: Path) -> None:
    shop = Shop(OsDisk(), tmp_path)
    shop.keep_packed(CONTENT, "a cid", "two")
    raw = shop.read(shop.root / "store" / "packs" / "1")
    assert raw.endswith(b"gcpk")
    length = int.from_bytes(raw[-8:-4], "big")
    places = msgspec.msgpack.decode(raw[-8 - length : -8])
    assert places == [[0, place_of(shop, "a cid").length], [4096, place_of(shop, "two").length]]
    for cid, (start, size) in zip(("a cid", "two"), places, strict=True):
        record = raw[start : start + size]
        assert record.startswith(CONTENT)
        length = int.from_bytes(record[-4:], "big")
        assert len(record) == len(CONTENT) + length + 4
        signed = shop.store.require(task_id_of(cid, "")).signed.signed
        assert signed.payload in record[-4 - length : -4]
