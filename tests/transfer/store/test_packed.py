"""Small tasks in one file each, and what makes folders of them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path, PurePath

import pytest

from gossipcache.config import StoreConfig
from gossipcache.disk import OsDisk
from gossipcache.errors import IntegrityError, NoSpace
from gossipcache.ids import task_id_of
from gossipcache.manifest import sign_tombstone
from gossipcache.transfer.files.local_export import export_file, export_link
from sim.storage.disk import SimDisk
from tests.transfer.samples import PIECE, PUBLISHER, TASK, Shop, content_of, manifest_for, tree_of

CONTENT = content_of(2 * PIECE + 7)


def places(shop: Shop) -> list[str]:
    """What stands in the store of its tasks."""
    tasks = shop.root / "store" / "tasks"
    return [
        name for fan in shop.disk.list_folder(tasks) for name in shop.disk.list_folder(tasks / fan)
    ]


@pytest.mark.parametrize("size", [0, 1, PIECE, 3 * PIECE + 1])
def test_a_packed_task_is_one_file_that_reads_as_any_other(shop: Shop, size: int) -> None:
    content = content_of(size)
    assert shop.keep_packed(content, "a cid") == [TASK]
    for _ in range(2):
        task = shop.store.require(TASK)
        assert task.complete
        assert task.published
        assert shop.store.tree(TASK).root == task.signed.manifest.root
        assert shop.content() == content
        assert shop.store.verify(TASK) == ()
        assert places(shop) == [f"{TASK.hex()}.packed"]
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
    assert places(os_shop) == [TASK.hex()]
    os_shop.reopen()
    assert os_shop.content() == CONTENT


@pytest.mark.parametrize("offset", [3, PIECE, len(CONTENT) + 10, -2])
def test_wherever_it_rots_it_is_found_and_mended(shop: Shop, offset: int) -> None:
    shop.keep_packed(CONTENT, "a cid")
    with closing(shop.disk.open(shop.store.data_path(TASK), "write")) as file:
        file.write_at(offset % file.size(), b"r")
    assert shop.store.verify(TASK) != ()
    assert not shop.store.require(TASK).complete
    signed = shop.store.require(TASK).signed
    shop.store.begin(signed, tree_of(CONTENT))
    assert places(shop) == [TASK.hex()]
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
    shop.keep_packed(CONTENT, "a cid")
    shop.keep(CONTENT, cid="in a folder")
    with closing(shop.disk.open(shop.root / "store" / "index", "write")) as file:
        file.write_at(file.size() // 2, b"rot" * 20)
    shop.reopen()
    for task_id in (TASK, task_id_of("in a folder", "")):
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
    assert shop.read(path) == b'{"format":2,"default_quota_bytes":123}'


def test_names_and_bytes_are_the_documented_ones(tmp_path: Path) -> None:
    shop = Shop(OsDisk(), tmp_path)
    shop.keep_packed(CONTENT, "a cid")
    raw = shop.read(shop.root / "store" / "tasks" / TASK.hex()[:2] / f"{TASK.hex()}.packed")
    assert raw.startswith(CONTENT)
    length = int.from_bytes(raw[-4:], "big")
    assert len(raw) == len(CONTENT) + length + 4
    assert shop.store.require(TASK).signed.signed.payload in raw[-4 - length : -4]
