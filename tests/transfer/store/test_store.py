from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import PurePath

import pytest
from msgspec.structs import replace

from gossipcache.config import StoreConfig
from gossipcache.errors import (
    Conflict,
    IntegrityError,
    NoSpace,
    TaskNotFound,
    VersionUnsupported,
)
from gossipcache.ids import task_id_of
from gossipcache.manifest import SignedManifest, sign_manifest, sign_tombstone
from gossipcache.transfer.digest_tree import DigestTree
from gossipcache.transfer.store import index
from sim.storage.disk import SimDisk
from tests.transfer.samples import (
    PIECE,
    PUBLISHER,
    TASK,
    Shop,
    content_of,
    manifest_for,
    tree_of,
)

SIZES = [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE]


@pytest.mark.parametrize("size", SIZES)
def test_an_import_is_complete_and_stays(shop: Shop, size: int) -> None:
    content = content_of(size)
    task_id = shop.keep(content)
    shop.store.close()
    shop.reopen()
    task = shop.store.require(task_id)
    assert task.complete
    assert task.have.complete
    assert task.signed.manifest.size == size
    assert task.manifest_name == task.signed.name
    assert shop.content(task_id) == content
    assert shop.store.tree(task_id).root == task.signed.manifest.root
    assert shop.store.verify(task_id) == ()


@pytest.mark.parametrize("size", SIZES)
def test_a_download_resumes_where_a_killed_node_left_it(shop: Shop, size: int) -> None:
    content = content_of(size)
    signed, tree = manifest_for(content), tree_of(content)
    shop.store.begin(signed, tree)
    shop.download(content, signed, list(range(tree.piece_count // 2)))

    shop.reopen()
    shop.store.begin(signed, tree)
    task = shop.store.require(TASK)
    assert task.have.count == tree.piece_count // 2
    assert not task.complete
    shop.download(content, signed, list(task.have.missing()))
    shop.store.finish(TASK, check_digest=True)
    shop.reopen()
    assert shop.store.require(TASK).complete
    assert shop.content() == content


def test_a_download_with_missing_pieces_is_not_finished(shop: Shop) -> None:
    content = content_of(2 * PIECE)
    signed = manifest_for(content)
    shop.store.begin(signed, tree_of(content))
    shop.download(content, signed, [1])
    with pytest.raises(IntegrityError, match="lacks 1 pieces"):
        shop.store.finish(TASK)


def accepted(shop: Shop, content: bytes) -> None:
    signed = manifest_for(content)
    shop.store.begin(signed, tree_of(content))
    shop.write(content, signed, list(range(tree_of(content).piece_count)))
    shop.store.accept(TASK, manifest_name=signed.name)


def test_what_is_accepted_is_complete_and_not_yet_settled(shop: Shop) -> None:
    accepted(shop, content_of(3 * PIECE))
    task = shop.store.require(TASK)
    assert task.complete
    assert task.have.complete
    assert not task.settled
    assert task.durable.count == 0
    assert shop.store.verify(TASK) == ()
    assert not shop.store.require(TASK).settled, "to read bytes back makes nothing durable"
    shop.store.settle(TASK)
    task = shop.store.require(TASK)
    assert task.complete
    assert task.settled
    assert task.durable.complete


def test_what_is_not_settled_is_never_evicted(shop: Shop) -> None:
    accepted(shop, content_of(3 * PIECE))
    need_bytes = shop.store.quota_bytes
    assert shop.store.evictable(10**9, need_bytes) == ()
    assert not shop.store.evict(TASK)
    shop.store.settle(TASK)
    assert [one.task_id for one in shop.store.evictable(10**9, need_bytes)] == [TASK]
    assert shop.store.evict(TASK)


def test_it_can_be_removed_and_then_has_nothing_to_settle(shop: Shop) -> None:
    accepted(shop, content_of(3 * PIECE))
    shop.store.remove(TASK)
    with pytest.raises(TaskNotFound):
        shop.store.settle(TASK)
    assert shop.store.find(TASK) is None


def test_bad_pieces_of_it_leave_what_is_durable(shop: Shop) -> None:
    content = content_of(3 * PIECE)
    signed = manifest_for(content)
    shop.store.begin(signed, tree_of(content))
    shop.download(content, signed, [0, 1])
    shop.write(content, signed, [2])
    shop.store.accept(TASK)
    with closing(shop.disk.open(shop.store.data_path(TASK), "write")) as file:
        file.write_at(0, b"rot")
    assert shop.store.verify(TASK) == (0,)
    task = shop.store.require(TASK)
    assert not task.complete
    assert list(task.have) == [1]


def test_a_failed_sync_makes_it_partial_again() -> None:
    disk = SimDisk()
    shop = Shop(disk, PurePath("/home"))
    accepted(shop, content_of(3 * PIECE))
    disk.fail("sync")
    with pytest.raises(OSError):
        shop.store.settle(TASK)
    assert not shop.store.require(TASK).complete
    assert shop.store.require(TASK).have.count == 0


def test_a_publisher_that_names_a_false_digest_is_found_out(shop: Shop) -> None:
    content = content_of(2 * PIECE)
    cid = f"sha256:{'0' * 64}"
    honest = manifest_for(content, cid="other").manifest
    lie = sign_manifest(
        replace(honest, cid=cid, digest=cid, task_id=task_id_of(cid, "")), PUBLISHER
    )
    shop.store.begin(lie, tree_of(content))
    shop.download(content, lie, [0, 1])
    with pytest.raises(IntegrityError, match="which its manifest says it is"):
        shop.store.finish(lie.task_id)
    assert not shop.store.require(lie.task_id).complete


def test_pieces_of_a_replaced_content_are_never_claimed_for_the_new_one(shop: Shop) -> None:
    old, new = content_of(2 * PIECE, seed=1), content_of(2 * PIECE, seed=2)
    shop.store.begin(manifest_for(old), tree_of(old))
    with closing(shop.store.open_data(TASK)) as slow_download:
        shop.store.begin(manifest_for(new, generation=2), tree_of(new))
        slow_download.write_at(0, old[:PIECE])
        with pytest.raises(TaskNotFound):
            shop.store.mark(TASK, [0], manifest_name=manifest_for(old).name)
    assert shop.store.require(TASK).have.count == 0
    assert shop.content() == bytes(2 * PIECE)


def test_the_same_pieces_under_a_later_header_are_kept(shop: Shop) -> None:
    content = content_of(2 * PIECE)
    shop.keep(content)
    later = manifest_for(content, generation=2)
    shop.store.begin(later, tree_of(content))
    shop.reopen()
    assert shop.store.require(TASK).generation == 2
    assert shop.store.require(TASK).complete
    shop.store.begin(manifest_for(content), tree_of(content))
    assert shop.store.require(TASK).generation == 2


def test_other_content_is_refused_while_the_old_stands(shop: Shop) -> None:
    shop.keep(content_of(PIECE, seed=1))
    with pytest.raises(Conflict):
        shop.keep(content_of(PIECE, seed=2), generation=2)
    other = content_of(PIECE, seed=3)
    with pytest.raises(Conflict):
        shop.store.begin(manifest_for(other), tree_of(other))
    assert shop.content() == content_of(PIECE, seed=1)


def test_an_unpublished_task_is_not_shown(shop: Shop) -> None:
    content = content_of(10)
    staging = shop.store.stage()
    with closing(shop.disk.open(staging.data, "create")) as file:
        file.write_at(0, content)
    shop.store.adopt(staging, manifest_for(content), tree_of(content))
    assert shop.store.tasks() == []
    assert len(shop.store.tasks(unpublished=True)) == 1
    shop.store.mark_published(TASK)
    shop.reopen()
    assert len(shop.store.tasks()) == 1


def test_adopted_content_takes_the_header_that_the_keepers_settled_on(shop: Shop) -> None:
    content = content_of(2 * PIECE)
    staging = shop.store.stage()
    with closing(shop.disk.open(staging.data, "create")) as file:
        file.write_at(0, content)
    shop.store.adopt(staging, manifest_for(content), tree_of(content))
    settled = manifest_for(content, generation=4)
    shop.store.adopt(staging, settled, tree_of(content), pinned=True, published=True)
    shop.reopen()
    task = shop.store.require(TASK)
    assert (task.signed.name, task.published, task.pinned) == (settled.name, True, True)
    assert task.complete
    assert shop.content() == content


def test_a_manifest_that_does_not_fit_is_refused(shop: Shop) -> None:
    staging = shop.store.stage()
    with closing(shop.disk.open(staging.data, "create")) as file:
        file.write_at(0, b"short")
    with pytest.raises(IntegrityError):
        shop.store.adopt(staging, manifest_for(b"longer"), tree_of(b"longer"))
    with pytest.raises(IntegrityError):
        shop.store.begin(manifest_for(b"longer"), DigestTree(bytes(32)))
    staging.discard()
    assert shop.store.tasks(unpublished=True) == []


def test_bit_rot_is_found_and_the_rest_kept(shop: Shop) -> None:
    content = content_of(3 * PIECE)
    shop.keep(content)
    with closing(shop.disk.open(shop.store.data_path(TASK), "write")) as file:
        file.write_at(PIECE + 5, b"rot")
    assert shop.store.verify(TASK) == (1,)
    assert shop.store.verify(TASK) == ()
    task = shop.store.require(TASK)
    assert list(task.have) == [0, 2]
    assert not task.complete

    signed = task.signed
    shop.store.begin(signed, tree_of(content))
    shop.download(content, signed, [1])
    shop.store.finish(TASK)
    assert shop.content() == content


@pytest.mark.parametrize("damage", ["gone", "shorter"])
def test_a_damaged_data_file_is_never_served_and_can_be_mended(shop: Shop, damage: str) -> None:
    content = content_of(2 * PIECE)
    shop.keep(content)
    path = shop.store.data_path(TASK)
    if damage == "gone":
        shop.disk.remove(path)
    else:
        with closing(shop.disk.open(path, "write")) as file:
            file.truncate(PIECE)
    with pytest.raises(IntegrityError):
        shop.store.open_data(TASK)
    assert not shop.store.require(TASK).complete
    signed = shop.store.require(TASK).signed
    shop.store.begin(signed, tree_of(content))
    shop.download(content, signed, list(shop.store.require(TASK).have.missing()))
    shop.store.finish(TASK)
    assert shop.content() == content


def test_damaged_piece_digests_are_replaced_by_a_download(shop: Shop) -> None:
    content = content_of(2 * PIECE)
    shop.keep(content)
    with closing(shop.disk.open(shop.store.data_path(TASK).with_name("manifest"), "write")) as file:
        file.truncate(3)
    with pytest.raises(IntegrityError):
        shop.store.tree(TASK)
    assert shop.store.verify(TASK) == (0, 1)
    signed = shop.store.require(TASK).signed
    shop.store.begin(signed, tree_of(content))
    shop.download(content, signed, [0, 1])
    shop.store.finish(TASK)
    assert shop.store.tree(TASK).digests == tree_of(content).digests


def test_a_damaged_index_is_rebuilt_from_the_folders(shop: Shop) -> None:
    content = content_of(3 * PIECE)
    shop.keep(content)
    shop.store.close()
    with closing(shop.disk.open(shop.root / "store" / "index", "write")) as file:
        file.write_at(0, b"garbage garbage garbage")
    shop.reopen()
    task = shop.store.require(TASK)
    assert task.suspect
    assert not task.complete
    assert shop.store.next_to_verify(shop.now) == TASK
    with pytest.raises(IntegrityError):
        shop.store.open_data(TASK)
    assert shop.store.verify(TASK) == ()
    assert shop.store.require(TASK).complete
    assert shop.content() == content


def test_a_removed_task_is_gone_but_open_files_stay_readable(shop: Shop) -> None:
    content = content_of(PIECE)
    shop.keep(content)
    with shop.store.using(TASK), closing(shop.store.open_data(TASK)) as file:
        assert shop.store.remove(TASK) > 0
        assert shop.store.find(TASK) is None
        assert file.read_at(0, PIECE) == content
        with pytest.raises(TaskNotFound):
            shop.store.open_data(TASK)
        assert shop.disk.list_folder(shop.root / "store" / "trash") != []
    shop.store.tidy()
    assert shop.disk.list_folder(shop.root / "store" / "trash") == []
    assert shop.store.used_bytes == 0
    assert shop.store.remove(TASK) == 0


def test_a_deleted_generation_never_comes_back(shop: Shop) -> None:
    content = content_of(PIECE)
    shop.keep(content)
    signed = shop.store.require(TASK).signed
    tombstone = sign_tombstone(signed, PUBLISHER, policy_number=0, deleted_at=50)
    shop.store.remember_tombstone(tombstone)
    assert shop.store.find(TASK) is None

    shop.reopen()
    assert shop.store.dead_generation(TASK) == 1
    assert shop.store.tombstone(TASK, signed.manifest.cluster_id) == tombstone
    with pytest.raises(TaskNotFound):
        shop.store.begin(signed, tree_of(content))
    with pytest.raises(TaskNotFound):
        shop.keep(content)

    assert shop.store.compact_tombstones(before=100) == 1
    shop.reopen()
    assert shop.store.tombstone(TASK, signed.manifest.cluster_id) is None
    assert shop.store.dead_generation(TASK) == 1
    shop.keep(content, generation=2)
    assert shop.content() == content
    shop.store.remember_tombstone(tombstone)
    assert shop.store.find(TASK) is not None


def test_pinning_and_uses_outlive_the_process(shop: Shop) -> None:
    shop.keep(b"x")
    shop.store.pin(TASK)
    shop.store.touch(TASK, 5000.0)
    shop.store.tidy()
    shop.reopen()
    assert shop.store.require(TASK).pinned
    assert shop.store.require(TASK).last_use == 5000.0
    shop.store.unpin(TASK)
    assert not shop.store.require(TASK).pinned


def test_tasks_that_want_more_copies_are_found_without_decoding_manifests(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoded(*_parts: bytes) -> SignedManifest:
        raise AssertionError("a manifest was decoded")

    shop.keep(b"x", cid="one copy will do")
    shop.keep(b"x", cid="three", copies=3)
    shop.keep(b"x", cid="gone", copies=2)
    shop.store.remove(task_id_of("gone", ""))
    monkeypatch.setattr(index, "_opened", decoded)
    shop.reopen()
    (found,) = shop.store.replicated()
    assert (found.task_id, found.copies) == (task_id_of("three", ""), 3)


def test_what_is_a_replica_stays_one(shop: Shop) -> None:
    shop.keep(b"x", copies=2)
    assert not shop.store.require(TASK).replica
    shop.store.mark_replica(TASK)
    shop.reopen()
    assert shop.store.require(TASK).replica


def test_a_late_write_does_not_take_back_a_use(shop: Shop) -> None:
    shop.keep(b"x")
    shop.store.touch(TASK, 5000.0)
    shop.store.touch(TASK, 4000.0)
    shop.store.pin(TASK)
    assert shop.store.require(TASK).last_use == 5000.0


def test_the_quota_is_kept(shop: Shop) -> None:
    shop.config = StoreConfig(quota_bytes=10 * PIECE)
    shop.reopen()
    shop.store.reserve(10 * PIECE)
    with pytest.raises(NoSpace, match="quota"):
        shop.store.reserve(10 * PIECE + 1)
    content = content_of(6 * PIECE)
    shop.store.begin(manifest_for(content), tree_of(content))
    assert shop.store.used_bytes == 6 * PIECE
    staging = shop.store.stage()
    with pytest.raises(NoSpace):
        staging.reserve(5 * PIECE)
    staging.reserve(4 * PIECE)
    assert shop.store.excess_bytes(1) == 1
    staging.discard()
    assert shop.store.excess_bytes(1) == 1 - 4 * PIECE


def test_the_default_quota_is_set_once(shop: Shop) -> None:
    shop.disk.remove(shop.root / "store")
    shop.config = StoreConfig()
    shop.reopen()
    first = shop.store.quota_bytes
    assert first == pytest.approx(0.8 * shop.disk.free_bytes(shop.root), rel=0.05)
    shop.keep(content_of(50 * PIECE))
    shop.reopen()
    assert shop.store.quota_bytes == first


def test_a_newer_store_is_refused_and_left_alone(shop: Shop) -> None:
    shop.keep(b"x")
    shop.store.close()
    path = shop.root / "store" / "format.json"
    shop.disk.remove(path)
    with closing(shop.disk.open(path, "create")) as file:
        file.write_at(0, b'{"format": 4, "more": true}')
    with pytest.raises(VersionUnsupported, match="format 4"):
        shop.reopen()


def test_strange_folders_are_swept_and_paths_are_hex_only(shop: Shop) -> None:
    task_id = shop.keep(b"x", cid="../../etc/passwd")
    tasks = shop.root / "store" / "tasks"
    name = task_id.hex()
    assert shop.store.data_path(task_id) == tasks / name[:2] / name / "data"
    shop.disk.make_folder(tasks / "00" / "stray")
    shop.disk.make_folder(tasks / "00" / ("00" * 32))
    shop.reopen()
    assert shop.disk.list_folder(tasks / "00") == []
    assert shop.store.find(task_id) is not None


def test_a_task_whose_folder_is_gone_is_forgotten(shop: Shop) -> None:
    shop.keep(b"x")
    shop.disk.remove(shop.store.data_path(TASK).parent)
    shop.reopen()
    assert shop.store.find(TASK) is None
    assert shop.store.used_bytes == 0


def test_many_workers_at_once_lose_no_mark(os_shop: Shop) -> None:
    content = content_of(40 * PIECE)
    signed = manifest_for(content)
    os_shop.store.begin(signed, tree_of(content))

    def fetch(index: int) -> None:
        os_shop.download(content, signed, [index])
        os_shop.store.touch(TASK, 2000.0 + 2 * index)

    with ThreadPoolExecutor(8) as workers:
        list(workers.map(fetch, range(40)))
    os_shop.store.finish(TASK, check_digest=True)
    assert os_shop.content() == content
    assert os_shop.store.require(TASK).last_use >= 2000.0
