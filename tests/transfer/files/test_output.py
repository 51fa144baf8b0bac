from __future__ import annotations

import os
import stat
from contextlib import closing
from pathlib import Path, PurePath

import pytest

from gossipcache.disk import OsFile
from gossipcache.errors import Conflict, IntegrityError, NoSpace, UsageError
from gossipcache.machine import ThreadWorkers
from gossipcache.transfer.files import local_export
from gossipcache.transfer.files import output as output_module
from gossipcache.transfer.files.local_export import export_file, export_link
from gossipcache.transfer.files.output import OutputFile
from sim.storage.disk import SimDisk, SimFile
from tests.transfer.samples import PIECE, TASK, Shop, content_of


def output(shop: Shop, name: str = "out", *, overwrite: bool = False, size: int = 4) -> OutputFile:
    return OutputFile(
        shop.disk,
        shop.root / name,
        size=size,
        token="1234",
        ledger=shop.store.outputs,
        umask=0o027,
        overwrite=overwrite,
    )


def names(shop: Shop) -> list[str]:
    return [name for name in shop.disk.list_folder(shop.root) if name != "store"]


def export(shop: Shop, *, overwrite: bool = False) -> None:
    export_file(
        shop.disk,
        shop.store,
        TASK,
        shop.root / "out",
        token="t",
        umask=0o022,
        overwrite=overwrite,
    )


def test_nothing_stands_at_the_target_before_the_commit(shop: Shop) -> None:
    out = output(shop)
    out.write(2, b"cd")
    assert names(shop) == [".gossipcache-1234.part"]
    out.write(0, b"ab")
    out.commit()
    assert names(shop) == ["out"]
    assert shop.read(shop.root / "out") == b"abcd"
    stamp = shop.disk.stamp(shop.root / "out")
    assert stamp is not None
    assert stamp.mode == 0o640


def test_an_aborted_output_leaves_nothing(shop: Shop) -> None:
    out = output(shop)
    out.write(0, b"ab")
    out.abort()
    assert names(shop) == []


def test_what_stands_there_is_replaced_only_if_asked(shop: Shop) -> None:
    shop.write_source("out", b"old")
    with pytest.raises(Conflict):
        output(shop)
    assert names(shop) == ["out"]
    out = output(shop, overwrite=True)
    out.write(0, b"new!")
    assert shop.read(shop.root / "out") == b"old"
    out.commit()
    assert shop.read(shop.root / "out") == b"new!"
    assert names(shop) == ["out"]


def test_what_comes_there_meanwhile_is_not_replaced(shop: Shop) -> None:
    out = output(shop)
    shop.write_source("out", b"theirs")
    with pytest.raises(Conflict):
        out.commit()
    assert shop.read(shop.root / "out") == b"theirs"
    assert names(shop) == ["out"]


def test_a_race_for_the_target_has_one_winner() -> None:
    class Racing(SimDisk):
        """Somebody else puts a file there between the last look and the link."""

        def link(self, existing: PurePath, new: PurePath) -> None:
            with closing(self.open(new, "create")) as file:
                file.write_at(0, b"theirs")
            super().link(existing, new)

    shop = Shop(Racing(), PurePath("/home"))
    with pytest.raises(Conflict):
        output(shop).commit()
    assert shop.read(shop.root / "out") == b"theirs"
    assert names(shop) == ["out"]


def test_a_file_system_without_hard_links_works_too() -> None:
    class NoLinks(SimDisk):
        def link(self, existing: PurePath, new: PurePath) -> None:
            raise OSError(1, "Operation not permitted")

    shop = Shop(NoLinks(), PurePath("/home"))
    out = output(shop)
    out.write(0, b"abcd")
    out.commit()
    assert shop.read(shop.root / "out") == b"abcd"


def test_the_output_of_a_killed_node_is_removed_by_its_next_start(shop: Shop) -> None:
    output(shop)
    shop.write_source(".gossipcache-other.part", b"another node's")
    shop.reopen()
    assert names(shop) == [".gossipcache-other.part"]


def test_a_folder_and_a_device_are_never_replaced_by_a_file(os_shop: Shop) -> None:
    root = Path(os_shop.root)
    (root / "folder").mkdir()
    out = output(os_shop, "folder", overwrite=True)
    with pytest.raises(Conflict, match="is a folder"):
        out.commit()
    os.mkfifo(root / "pipe")
    with pytest.raises(Conflict, match="is not a file"):
        output(os_shop, "pipe", overwrite=True)
    with pytest.raises(UsageError, match="does not exist"):
        output(os_shop, "no/such/folder")
    assert names(os_shop) == ["folder", "pipe"]


def test_a_symbolic_link_at_the_target_is_replaced_not_followed(os_shop: Shop) -> None:
    root = Path(os_shop.root)
    (root / "precious").write_bytes(b"precious")
    (root / "out").symlink_to("precious")
    out = output(os_shop, overwrite=True)
    out.write(0, b"abcd")
    out.commit()
    assert not (root / "out").is_symlink()
    assert (root / "precious").read_bytes() == b"precious"


def test_a_full_disk_is_told_before_a_byte_is_fetched() -> None:
    shop = Shop(SimDisk(capacity_bytes=100_000), PurePath("/home"))
    with pytest.raises(NoSpace):
        output(shop, size=10**6)
    assert names(shop) == []


@pytest.mark.parametrize("size", [0, 1, PIECE, 2 * 2**20 + 1])
def test_a_complete_task_is_exported_from_here(shop: Shop, size: int) -> None:
    content = content_of(size)
    shop.keep(content)
    export(shop)
    assert shop.read(shop.root / "out") == content
    with pytest.raises(Conflict):
        export(shop)
    export(shop, overwrite=True)
    assert names(shop) == ["out"]


def test_a_rotten_piece_is_not_exported(shop: Shop) -> None:
    shop.keep(content_of(3 * PIECE))
    with closing(shop.disk.open(shop.store.data_path(TASK), "write")) as file:
        file.write_at(PIECE, b"rot")
    with pytest.raises(IntegrityError, match="piece 1 "):
        export(shop)
    with pytest.raises(IntegrityError, match="piece 1 "):
        export_link(shop.disk, shop.store, TASK, shop.root / "out", token="t")
    assert names(shop) == []
    assert shop.store.verify(TASK) == (1,)


def test_an_export_by_link_shares_one_read_only_file(os_shop: Shop) -> None:
    content = content_of(2 * PIECE)
    os_shop.keep(content)
    target = Path(os_shop.root) / "out"
    export_link(os_shop.disk, os_shop.store, TASK, target, token="t")
    assert target.samefile(os_shop.store.data_path(TASK))
    assert stat.S_IMODE(target.stat().st_mode) == 0o444
    os_shop.reopen()
    assert os_shop.content() == content
    with pytest.raises(Conflict):
        export_link(os_shop.disk, os_shop.store, TASK, target, token="t")
    export_link(os_shop.disk, os_shop.store, TASK, target, token="t", overwrite=True)
    assert os_shop.content() == content
    assert names(os_shop) == ["out"]

    target.chmod(0o644)
    with target.open("r+b") as file:
        file.write(b"edited")
    with pytest.raises(IntegrityError):
        os_shop.store.open_data(TASK)
    assert os_shop.store.verify(TASK) == (0,)


def test_only_a_large_output_goes_past_the_cache(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    past_cache: list[int] = []
    monkeypatch.setattr(output_module, "LARGE_FILE_BYTES", 4)
    for kind in (OsFile, SimFile):
        monkeypatch.setattr(
            kind, "write_past_cache", lambda _file, _offset, data: past_cache.append(len(data))
        )
    for size in (3, 4):
        out = output(shop, size=size)
        out.write(0, bytes(size))
        out.commit()
        shop.disk.remove(shop.root / "out")
    assert past_cache == [4]


def test_an_output_may_begin_in_the_cache(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    past_cache: list[int] = []
    monkeypatch.setattr(output_module, "LARGE_FILE_BYTES", 4)
    for kind in (OsFile, SimFile):
        monkeypatch.setattr(
            kind, "write_past_cache", lambda _file, offset, _data: past_cache.append(offset)
        )
    out = OutputFile(
        shop.disk, shop.root / "out", size=6, token="t", ledger=shop.store.outputs, cache_bytes=3
    )
    for offset in range(0, 6, 2):
        out.write(offset, b"ab")
    out.abort()
    assert past_cache == [4]


@pytest.fixture
def in_two_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_export, "SEVERAL_LANES_BYTES", 0)


@pytest.mark.usefixtures("in_two_lanes")
def test_two_lanes_copy_every_piece_once(os_shop: Shop) -> None:
    content = content_of(100 * PIECE + 1)
    os_shop.keep(content)
    told: list[int] = []
    target = os_shop.root / "out"
    export_file(
        os_shop.disk,
        os_shop.store,
        TASK,
        target,
        token="t",
        umask=0o022,
        lanes=ThreadWorkers().lane,
        progress=told.append,
    )
    assert os_shop.read(target) == content
    assert told == sorted(set(told))
    assert told[-1] == len(content)


@pytest.mark.usefixtures("in_two_lanes")
@pytest.mark.parametrize("bad", [0, 1, 99])
def test_a_rotten_piece_ends_both_lanes(os_shop: Shop, bad: int) -> None:
    os_shop.keep(content_of(100 * PIECE))
    with closing(os_shop.disk.open(os_shop.store.data_path(TASK), "write")) as file:
        file.write_at(bad * PIECE, b"rot")
    with pytest.raises(IntegrityError, match=f"piece {bad} "):
        export_file(
            os_shop.disk,
            os_shop.store,
            TASK,
            os_shop.root / "out",
            token="t",
            umask=0o022,
            lanes=ThreadWorkers().lane,
        )
    assert names(os_shop) == []
