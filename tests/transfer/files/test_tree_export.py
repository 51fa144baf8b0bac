"""Folders in and out."""

from __future__ import annotations

import io
import os
import tarfile
from contextlib import closing
from pathlib import Path, PurePath
from typing import Any

import pytest

from gossipcache.errors import Conflict, IntegrityError, SourceChanged, UsageError
from gossipcache.ids import TaskId
from gossipcache.transfer.files.ingest import Ingested
from gossipcache.transfer.files.ingest_tree import ingest_tree
from gossipcache.transfer.files.local_export import export_tree
from gossipcache.transfer.files.tree import read_listing
from gossipcache.transfer.files.tree_output import ContentRange, tar_parts, tar_size
from gossipcache.transfer.store.scrub import check_whole
from tests.transfer.samples import PIECE, TASK, Shop, content_of, manifest_of, tree_of


def make_tree(root: Path) -> None:
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "a file with spaces").write_bytes(content_of(PIECE + 3))
    (root / "sub" / "nothing").touch()
    (root / "sub" / "ünï").write_bytes(content_of(5 * PIECE, seed=2))
    (root / "sub" / "run.sh").write_bytes(b"#!/bin/sh\n")
    (root / "sub" / "run.sh").chmod(0o755)
    (root / "sub" / "link").symlink_to("../a file with spaces")
    (root / "sub" / "deep" / "up").symlink_to("../..")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")).write_bytes(b"bytes")


def seen(root: Path) -> dict[str, tuple[str, bytes | str, bool]]:
    found: dict[str, tuple[str, bytes | str, bool]] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path), False)
        elif path.is_dir():
            found[name] = ("folder", "", False)
        else:
            found[name] = ("file", path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found


def keep_tree(shop: Shop, path: PurePath) -> tuple[TaskId, Ingested]:
    staging = shop.store.stage()
    ingested = ingest_tree(shop.disk, staging, path, piece_size=PIECE)
    shop.store.adopt(staging, manifest_of(ingested), ingested.tree, published=True)
    return TASK, ingested


@pytest.fixture
def tree_path(os_shop: Shop) -> Path:
    path = Path(os_shop.root) / "a tree"
    path.mkdir()
    make_tree(path)
    return path


def test_a_tree_comes_back_as_it_was(os_shop: Shop, tree_path: Path) -> None:
    task_id, ingested = keep_tree(os_shop, tree_path)
    content = os_shop.content(task_id)
    assert ingested.tree.digests == tree_of(content).digests
    assert len(content) == ingested.size
    target = Path(os_shop.root) / "out"
    export_tree(os_shop.disk, os_shop.store, task_id, target, token="t", umask=0o027)
    assert seen(target) == seen(tree_path)
    assert (target / "sub").stat().st_mode & 0o777 == 0o750
    assert (target / "sub" / "run.sh").stat().st_mode & 0o777 == 0o750
    assert (target / "sub" / "nothing").stat().st_mode & 0o777 == 0o640
    with closing(os_shop.store.open_data(task_id)) as file:
        check_whole(file, os_shop.store.require(task_id).signed.manifest)


def test_the_digest_is_that_of_the_tree_alone(os_shop: Shop, tree_path: Path) -> None:
    first = ingest_tree(os_shop.disk, os_shop.store.stage(), tree_path, piece_size=PIECE)
    os.utime(tree_path / "sub" / "nothing", (1, 1))
    moved = tree_path.rename(tree_path.with_name("elsewhere"))
    again = ingest_tree(os_shop.disk, os_shop.store.stage(), moved, piece_size=7)
    assert first.digest == again.digest
    assert first.digest.startswith("tree:")
    (moved / "empty").rmdir()
    changed = ingest_tree(os_shop.disk, os_shop.store.stage(), moved, piece_size=PIECE)
    assert changed.digest != first.digest


@pytest.mark.parametrize("piece_size", [1, 10, 1000, 10**6])
def test_pieces_are_right_whatever_the_listing_overlaps(
    os_shop: Shop, tree_path: Path, piece_size: int
) -> None:
    staging = os_shop.store.stage()
    ingested = ingest_tree(os_shop.disk, staging, tree_path, piece_size=piece_size)
    content = os_shop.read(staging.data)
    assert ingested.tree.digests == tree_of(content, piece_size).digests


def test_an_empty_folder_is_a_tree_too(os_shop: Shop) -> None:
    path = Path(os_shop.root) / "empty"
    path.mkdir()
    task_id, _ = keep_tree(os_shop, path)
    target = Path(os_shop.root) / "out"
    export_tree(os_shop.disk, os_shop.store, task_id, target, token="t", umask=0o022)
    assert list(target.iterdir()) == []


def test_overwriting_swaps_the_whole_tree(os_shop: Shop, tree_path: Path) -> None:
    task_id, _ = keep_tree(os_shop, tree_path)
    target = Path(os_shop.root) / "out"
    target.mkdir()
    (target / "old").write_bytes(b"old")

    def export(overwrite: bool) -> None:
        export_tree(
            os_shop.disk,
            os_shop.store,
            task_id,
            target,
            token="t",
            umask=0o022,
            overwrite=overwrite,
        )

    with pytest.raises(Conflict):
        export(overwrite=False)
    assert (target / "old").read_bytes() == b"old"
    export(overwrite=True)
    assert seen(target) == seen(tree_path)
    assert sorted(os.listdir(os_shop.root)) == ["a tree", "out", "store"]


def test_what_is_neither_file_folder_nor_inner_link_is_refused(
    os_shop: Shop, tree_path: Path
) -> None:
    def refused() -> None:
        with pytest.raises(UsageError):
            ingest_tree(os_shop.disk, os_shop.store.stage(), tree_path, piece_size=PIECE)

    os.mkfifo(tree_path / "pipe")
    refused()
    (tree_path / "pipe").unlink()
    for target in ("/etc/passwd", "../outside", "sub/../../outside"):
        (tree_path / "link").symlink_to(target)
        refused()
        (tree_path / "link").unlink()


def test_a_tree_that_changes_while_it_is_read_is_refused(os_shop: Shop, tree_path: Path) -> None:
    pending = [tree_path / "sub" / "new"]

    def meddle(_done: int) -> None:
        while pending:
            pending.pop().touch()

    with pytest.raises(SourceChanged):
        ingest_tree(
            os_shop.disk, os_shop.store.stage(), tree_path, piece_size=PIECE, progress=meddle
        )


def test_a_rotten_tree_is_not_put_out(os_shop: Shop, tree_path: Path) -> None:
    task_id, ingested = keep_tree(os_shop, tree_path)
    target = Path(os_shop.root) / "out"
    for offset in (ingested.size - 1, 3):
        with closing(os_shop.disk.open(os_shop.store.data_path(task_id), "write")) as file:
            file.write_at(offset, b"\x7f")
        with pytest.raises(IntegrityError):
            export_tree(os_shop.disk, os_shop.store, task_id, target, token="t", umask=0)
    assert sorted(os.listdir(os_shop.root)) == ["a tree", "store"]


def test_a_tar_is_the_same_everywhere_and_unpacks_to_the_tree(
    os_shop: Shop, tree_path: Path
) -> None:
    deep = tree_path / ("long name " * 12) / ("longer name " * 12)
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"deep")
    task_id, ingested = keep_tree(os_shop, tree_path)
    with closing(os_shop.store.open_data(task_id)) as file:
        listing = read_listing(file, os_shop.store.require(task_id).signed.manifest)
        archive = b"".join(
            file.read_at(part.offset, part.size) if isinstance(part, ContentRange) else part
            for part in tar_parts(listing, ingested.listing_size)
        )
    assert len(archive) == tar_size(listing)
    target = Path(os_shop.root) / "unpacked"
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert all(member.mtime == 0 and member.uid == 0 for member in tar)
        # Python 3.11 knows the filter from its fourth release on.
        safe: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(target, **safe)
    assert seen(target) == seen(tree_path)
