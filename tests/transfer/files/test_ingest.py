from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path, PurePath

import pytest
from blake3 import blake3

from gossipcache.config import StoreConfig
from gossipcache.errors import IntegrityError, NoSpace, SourceChanged, UsageError
from gossipcache.machine import ThreadWorkers
from gossipcache.transfer.files.ingest import SEVERAL_LANES_BYTES, StreamIngest, ingest_file
from sim.storage.disk import SimDisk
from tests.transfer.samples import PIECE, TASK, Shop, content_of, tree_of


@pytest.mark.parametrize("size", [0, 1, PIECE, 2 * PIECE + 1, 3 * 2**20 + 5])
@pytest.mark.parametrize("want_sha256", [False, True])
def test_a_file_is_copied_and_hashed(shop: Shop, size: int, want_sha256: bool) -> None:
    content = content_of(size)
    path = shop.write_source("a file", content)
    staging = shop.store.stage()
    done: list[int] = []
    ingested = ingest_file(
        shop.disk, staging, path, piece_size=PIECE, want_sha256=want_sha256, progress=done.append
    )
    assert shop.read(staging.data) == content
    assert ingested.size == size
    assert ingested.tree.digests == tree_of(content).digests
    if want_sha256:
        assert ingested.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
    else:
        assert ingested.digest == f"blake3:{blake3(content).hexdigest()}"
    assert done[-1:] == ([size] if size else [])
    assert shop.read(path) == content


@pytest.mark.parametrize("want_sha256", [False, True])
def test_a_large_file_is_read_by_several_threads(os_shop: Shop, want_sha256: bool) -> None:
    content = content_of(SEVERAL_LANES_BYTES + 12_345)
    path = os_shop.write_source("large", content)
    staging = os_shop.store.stage()
    ingested = ingest_file(
        os_shop.disk,
        staging,
        path,
        piece_size=PIECE,
        want_sha256=want_sha256,
        lanes=ThreadWorkers().lane,
    )
    assert os_shop.read(staging.data) == content
    assert ingested.tree.digests == tree_of(content).digests
    whole = hashlib.sha256(content) if want_sha256 else blake3(content)
    assert ingested.digest.partition(":")[2] == whole.hexdigest()


def test_a_stream_gives_what_a_file_gives(shop: Shop) -> None:
    content = content_of(5 * PIECE + 3)
    stream = StreamIngest(shop.disk, shop.store.stage(), want_sha256=True, piece_size=PIECE)
    with closing(stream):
        for at in range(0, len(content), 777):
            stream.feed(content[at : at + 777])
        streamed = stream.finish()
    path = shop.write_source("file", content)
    read = ingest_file(shop.disk, shop.store.stage(), path, piece_size=PIECE, want_sha256=True)
    assert (streamed.size, streamed.digest) == (read.size, read.digest)
    assert streamed.tree.root == read.tree.root


def test_a_stream_that_does_not_fit_is_refused(shop: Shop) -> None:
    shop.config = StoreConfig(quota_bytes=2500)
    shop.reopen()
    stream = StreamIngest(shop.disk, shop.store.stage(), want_sha256=False, piece_size=PIECE)
    with closing(stream):
        stream.feed(bytes(2000))
        with pytest.raises(NoSpace):
            stream.feed(bytes(2000))


def write_more(path: PurePath) -> None:
    with Path(path).open("ab") as file:
        file.write(b"more")


def rewrite(path: PurePath) -> None:
    with Path(path).open("r+b") as file:
        file.write(b"other")


def replace(path: PurePath) -> None:
    other = Path(path).with_name("other")
    other.write_bytes(Path(path).read_bytes())
    other.replace(path)


def cut(path: PurePath) -> None:
    os.truncate(path, 5)


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("change", [write_more, rewrite, replace, cut])
def test_a_file_that_changes_while_it_is_read_is_refused(
    os_shop: Shop, change: Callable[[PurePath], None], link: bool
) -> None:
    path = os_shop.write_source("file", content_of(3 * 2**20))
    pending = [change]

    def meddle(_done: int) -> None:
        while pending:
            pending.pop()(path)

    with pytest.raises(SourceChanged, match="file changed while it was read"):
        ingest_file(
            os_shop.disk, os_shop.store.stage(), path, piece_size=PIECE, link=link, progress=meddle
        )


def test_what_is_no_readable_file_is_refused(os_shop: Shop) -> None:
    root = Path(os_shop.root)
    os.mkfifo(root / "pipe")
    (root / "loop").symlink_to("loop")
    (root / "folder").mkdir()
    (root / "dangling").symlink_to("nowhere")
    for name in ("pipe", "loop", "folder", "dangling", "missing"):
        with pytest.raises(UsageError):
            ingest_file(os_shop.disk, os_shop.store.stage(), root / name, piece_size=PIECE)


def test_a_symbolic_link_is_followed(os_shop: Shop) -> None:
    os_shop.write_source("folder/file", b"content")
    link = Path(os_shop.root) / "link"
    link.symlink_to("folder/file")
    staging = os_shop.store.stage()
    assert ingest_file(os_shop.disk, staging, link, piece_size=PIECE).size == 7


def test_a_sparse_file_of_10_gib_takes_no_room(os_shop: Shop) -> None:
    path = Path(os_shop.root) / "sparse"
    with path.open("wb") as file:
        file.truncate(10 * 2**30)
        file.seek(5 * 2**20)
        file.write(b"x")
    os_shop.config = StoreConfig(quota_bytes=2**20)
    os_shop.reopen()
    staging = os_shop.store.stage()
    reading = Reading(limit=16 * 2**20)
    with pytest.raises(Reading.Enough):
        ingest_file(os_shop.disk, staging, path, piece_size=4 * 2**20, progress=reading)
    copy = os.stat(staging.data)
    assert copy.st_size == 10 * 2**30
    assert copy.st_blocks * 512 <= 2 * 2**20


class Reading:
    """Ends an ingest after `limit` bytes."""

    class Enough(Exception):
        pass

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def __call__(self, done: int) -> None:
        if done >= self._limit:
            raise self.Enough


def test_a_linked_file_is_served_while_it_is_left_alone(shop: Shop) -> None:
    content = content_of(2 * PIECE)
    path = shop.write_source("file", content)
    shop.keep_linked(path)
    shop.reopen()
    assert shop.store.require(TASK).complete
    assert shop.content() == content
    assert shop.store.used_bytes == 0


def test_an_edited_linked_file_is_never_served(shop: Shop) -> None:
    content = content_of(2 * PIECE)
    path = shop.write_source("file", content)
    shop.keep_linked(path)
    with closing(shop.disk.open(path, "write")) as file:
        file.write_at(0, b"edited")
    with pytest.raises(IntegrityError, match="changed from outside"):
        shop.store.open_data(TASK)
    assert not shop.store.require(TASK).complete
    assert shop.store.require(TASK).have.count == 0

    # What is still good counts again, and the rest is mended without touching the user's file.
    assert shop.store.verify(TASK) == (0,)
    signed = shop.store.require(TASK).signed
    shop.store.begin(signed, tree_of(content))
    shop.download(content, signed, [0])
    shop.store.finish(TASK)
    assert shop.content() == content
    assert shop.read(path)[:6] == b"edited"
    assert shop.store.require(TASK).linked is None


def test_a_touched_but_unchanged_linked_file_counts_again_once_verified(os_shop: Shop) -> None:
    path = os_shop.write_source("file", content_of(2 * PIECE))
    os_shop.keep_linked(path)
    os.utime(path)
    with pytest.raises(IntegrityError):
        os_shop.store.open_data(TASK)
    assert os_shop.store.verify(TASK) == ()
    assert os_shop.store.require(TASK).complete
    os_shop.store.open_data(TASK).close()


def test_a_removed_source_leaves_the_linked_task_its_bytes(shop: Shop) -> None:
    content = content_of(PIECE)
    path = shop.write_source("file", content)
    shop.keep_linked(path)
    shop.disk.remove(path)
    if shop.store.find(TASK) is not None and not is_served(shop):
        assert shop.store.verify(TASK) == ()
    assert shop.content() == content


def is_served(shop: Shop) -> bool:
    try:
        shop.store.open_data(TASK).close()
    except IntegrityError:
        return False
    return True


def test_a_link_across_file_systems_is_refused_in_clear_words() -> None:
    class TwoFileSystems(SimDisk):
        def link(self, existing: PurePath, new: PurePath) -> None:
            raise OSError(18, "Invalid cross-device link")

    shop = Shop(TwoFileSystems(), PurePath("/home"))
    path = shop.write_source("file", b"x")
    with pytest.raises(UsageError, match="cannot be hard-linked"):
        ingest_file(shop.disk, shop.store.stage(), path, piece_size=PIECE, link=True)


def test_the_store_has_a_copy_of_its_own(shop: Shop) -> None:
    path = shop.write_source("file", b"content")
    staging = shop.store.stage()
    ingested = ingest_file(shop.disk, staging, path, piece_size=PIECE)
    with closing(shop.disk.open(path, "write")) as file:
        file.write_at(0, b"edited!")
    assert shop.read(staging.data) == b"content"
    assert ingested.linked is None
