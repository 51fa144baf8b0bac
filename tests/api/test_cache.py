"""The synchronous library, and the Trio one beside a node, against a served fake."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from gossipcache import Cache, connect
from gossipcache.errors import (
    Conflict,
    IntegrityError,
    NodeUnreachable,
    TaskNotFound,
    UsageError,
)
from gossipcache.home import Home
from gossipcache.results import ExportResult, Holder, ImportResult, Progress, StatResult
from tests.fakes.node import NODE_ID
from tests.fakes.served import Served, served


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Served]:
    with served(Home(tmp_path / "home")) as running:
        yield running


@pytest.fixture
def cache(fake: Served) -> Cache:
    return Cache(fake.home.path)


def test_the_verbs_give_typed_results(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"content")
    seen: list[Progress] = []
    imported = cache.import_file(tmp_path / "f", "x", "t", progress=seen.append)
    assert isinstance(imported, ImportResult)
    assert seen == [Progress("hash", 7, 7)]

    found = cache.stat("x", "t")
    assert isinstance(found, StatResult)
    assert found.holders == (Holder(NODE_ID, "fake", "127.0.0.1:1", 1, True),)

    exported = cache.export("x", tmp_path / "out", "t")
    assert isinstance(exported, ExportResult)
    assert (tmp_path / "out").read_bytes() == b"content"

    assert [task.cid for task in cache.list()] == ["x"]
    assert cache.delete("x", "t").confirmed == (NODE_ID,)
    assert cache.list() == ()


def test_errors_are_typed(cache: Cache, tmp_path: Path) -> None:
    cache.import_bytes(b"one", "x")
    with pytest.raises(Conflict):
        cache.import_bytes([b"t", b"wo"], "x")
    with pytest.raises(TaskNotFound):
        cache.open("y")


def test_without_a_node_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(NodeUnreachable, match="no node runs"):
        Cache(tmp_path / "nowhere", start=False).list()


def test_open_is_a_seekable_file(cache: Cache) -> None:
    data = os.urandom(3_000_000)
    cache.import_bytes(data, "x")
    with cache.open("x") as file:
        assert file.read(10) == data[:10]
        assert file.seek(-5, io.SEEK_END) == len(data) - 5
        assert file.read() == data[-5:]
        assert file.read() == b""
        file.seek(1_500_000)
        assert file.read(1_000_000) == data[1_500_000:2_500_000]
        file.seek(0)
        assert file.read() == data


def test_a_bad_piece_is_an_error_not_a_short_read(fake: Served, cache: Cache) -> None:
    cache.import_bytes(bytes(5000), "x")
    fake.node.fail_after = 2000
    with cache.open("x") as file, pytest.raises((IntegrityError, NodeUnreachable)):
        file.read()


async def test_the_same_verbs_in_trio(fake: Served, tmp_path: Path) -> None:
    cache = connect(fake.home.path)
    seen: list[Progress] = []
    await cache.import_bytes(b"0123456789", "x")
    await cache.export("x", tmp_path / "out", progress=seen.append)
    assert seen
    assert seen[-1].sources == {NODE_ID: 1}
    assert await cache.read("x", 2, 3) == b"234"
    assert await cache.read("x", 8, 100) == b"89"
    assert [task.cid for task in await cache.list()] == ["x"]


async def test_cancelling_a_verb_cancels_it_in_the_node(fake: Served, tmp_path: Path) -> None:
    cache = connect(fake.home.path)
    await cache.import_bytes(b"data", "x")
    fake.node.hang = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.export, "x", tmp_path / "out")
        await trio.to_thread.run_sync(fake.wait_for, fake.node.hanging)
        nursery.cancel_scope.cancel()
    await trio.to_thread.run_sync(fake.wait_for, fake.node.cancelled)


def test_the_package_loads_lazily() -> None:
    code = "import sys, gossipcache; gossipcache.Cache; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "trio" not in done.stdout.split()


def test_many_files_by_one_call(cache: Cache, tmp_path: Path) -> None:
    paths = [tmp_path / f"f{number}" for number in range(600)]
    for path in paths:
        path.write_text(path.name)
    named = [(path, path.name) for path in paths]
    ended = list(cache.import_files([*named, tmp_path / "none"]))
    assert [one.get().cid for one in ended[:-1]] == [path.name for path in paths]
    assert [one.path for one in ended] == [*paths, tmp_path / "none"]
    assert isinstance(ended[-1].error, UsageError)
    with pytest.raises(UsageError):
        ended[-1].get()

    (tmp_path / "out").mkdir()
    outputs = [(path.name, tmp_path / "out" / path.name) for path in paths]
    exported = list(cache.export_files([*outputs, ("none", tmp_path / "out" / "none")]))
    assert isinstance(exported[-1].error, TaskNotFound)
    assert all(isinstance(one.get(), ExportResult) for one in exported[:-1])
    assert (tmp_path / "out" / "f599").read_text() == "f599"


async def test_many_files_by_one_call_in_trio(fake: Served, tmp_path: Path) -> None:
    cache = connect(fake.home.path)
    (tmp_path / "f").write_bytes(b"content")
    imported = [ended.get().cid async for ended in cache.import_files([(tmp_path / "f", "x")])]
    assert imported == ["x"]
    exported = cache.export_files([("x", tmp_path / "out"), ("y", tmp_path / "y")])
    assert [ended.error is None async for ended in exported] == [True, False]
    assert (tmp_path / "out").read_bytes() == b"content"
