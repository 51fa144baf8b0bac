"""Files, trees and names of every kind through real nodes on a real file system."""

from __future__ import annotations

import filecmp
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gossipcache.client import task_path
from gossipcache.errors import GossipcacheError
from tests.processes.cluster import (
    LONG_BYTES,
    MANY_SMALL_PIECES,
    PIECE_BYTES,
    Background,
    Cluster,
    Node,
    cluster_in,
    held_back,
    random_file,
    under_way,
    wait_until,
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_in(tmp_path_factory.mktemp("nodes"), MANY_SMALL_PIECES) as cluster:
        cluster.start(3)
        yield cluster


@pytest.fixture
def a(cluster: Cluster) -> Node:
    return cluster.nodes[0]


@pytest.fixture
def b(cluster: Cluster) -> Node:
    return cluster.nodes[1]


@pytest.fixture
def cid(request: pytest.FixtureRequest) -> str:
    """A cid of this test alone, with a space and beyond ASCII."""
    return f"{request.node.name} ünï {os.urandom(4).hex()}"


@contextmanager
def exits(code: int) -> Iterator[None]:
    """What the command line would end with `code` for."""
    with pytest.raises(GossipcacheError) as raised:
        yield
    assert raised.value.exit_code == code, raised.value


def same(one: Path, other: Path) -> bool:
    return filecmp.cmp(one, other, shallow=False)


def data_file(node: Node, imported: dict[str, Any]) -> Path:
    """The file in the node's store that holds a task's content."""
    (found,) = (node.home.path / "store").rglob(f"{imported['task_id']}/data")
    return found


@pytest.mark.parametrize(
    "size",
    [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, 3 * PIECE_BYTES + 1],
)
def test_every_size_comes_back(a: Node, b: Node, tmp_path: Path, cid: str, size: int) -> None:
    source = random_file(tmp_path / "a name with spaces, é", size)
    imported = a.import_file(source, cid)
    assert imported["pieces"] == -(-size // PIECE_BYTES)
    assert b.stat(cid)["size"] == size
    result = b.export(cid, tmp_path / "out put")
    assert same(source, tmp_path / "out put")
    assert sum(result["bytes_by_source"].values()) == size
    again = b.export(cid, tmp_path / "again", local=True)
    assert same(source, tmp_path / "again")
    assert again["bytes_by_source"] == {}


@pytest.mark.parametrize("name", ["x" * 1024, "é" * 512, "a/../../b", "\x1b[2J\n", ".", "%2F?#&"])
def test_any_text_may_name_a_task(a: Node, b: Node, tmp_path: Path, name: str) -> None:
    source = random_file(tmp_path / "f", 10)
    a.import_file(source, name, tag=name[:128])
    assert b.stat(name, tag=name[:128])["cid"] == name
    b.export(name, tmp_path / "out", tag=name[:128])
    assert same(source, tmp_path / "out")
    with exits(3):
        b.stat(name)
    assert a.delete(name, tag=name[:128])["pending"] == []


def test_a_tree_keeps_what_belongs_to_it(a: Node, b: Node, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "empty").mkdir(parents=True)
    (tree / "sub folder").mkdir()
    (tree / "sub folder" / "run").write_bytes(b"#!/bin/sh\n")
    (tree / "sub folder" / "run").chmod(0o755)
    (tree / "link").symlink_to("sub folder/run")
    (tree / "nothing").touch()
    random_file(tree / "big", 2 * PIECE_BYTES + 1)
    odd = os.fsencode(tree) + b"/not utf-8 \xff"
    with open(odd, "wb") as file:
        file.write(b"odd")
    cid = a.import_file(tree)["cid"]
    assert cid.startswith("tree:")
    b.export(cid, tmp_path / "out")
    out = tmp_path / "out"
    assert sorted(os.listdir(os.fsencode(out))) == sorted(os.listdir(os.fsencode(tree)))
    assert list((out / "empty").iterdir()) == []
    assert os.access(out / "sub folder" / "run", os.X_OK)
    assert not os.access(out / "big", os.X_OK)
    assert os.readlink(out / "link") == "sub folder/run"
    assert same(tree / "big", out / "big")
    with open(os.fsencode(out) + b"/not utf-8 \xff", "rb") as file:
        assert file.read() == b"odd"
    packed = [content(node, cid) for node in (a, b)]
    assert packed[0] == packed[1], "the tar is the same on every node"
    with tarfile.open(fileobj=io.BytesIO(packed[0])) as tar:
        assert "sub folder/run" in tar.getnames()
    assert a.import_file(out)["cid"] == cid
    with exits(8):
        b.export(cid, out)
    (out / "mine").touch()
    b.export(cid, out, overwrite=True)
    assert not (out / "mine").exists(), "swapped, never merged"


def test_a_tree_with_something_else_in_it_is_refused(a: Node, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    os.mkfifo(tmp_path / "tree" / "pipe")
    with exits(2):
        a.import_file(tmp_path / "tree")
    (tmp_path / "tree" / "pipe").unlink()
    (tmp_path / "tree" / "out").symlink_to("../elsewhere")
    with exits(2):
        a.import_file(tmp_path / "tree")


def content(node: Node, cid: str) -> bytes:
    return b"".join(node.client.content(task_path(cid, "content"), query={}))


def test_streams_in_and_out(a: Node, b: Node, cid: str) -> None:
    parts = [os.urandom(70_000) for _ in range(5)]
    a.client.upload("/v1/tasks", query={"cid": cid}, parts=parts)
    assert content(b, cid) == b"".join(parts)
    digest = hashlib.sha256(b"".join(parts)).hexdigest()
    named = b.client.upload("/v1/tasks", query={}, parts=parts)
    assert named["cid"] == f"sha256:{digest}"


@pytest.mark.parametrize("kind", ["sha256", "tree"])
def test_a_digest_as_cid_must_fit(a: Node, b: Node, tmp_path: Path, kind: str) -> None:
    source = random_file(tmp_path / "f", 10)
    with exits(6):
        a.import_file(source, f"{kind}:{'0' * 64}")
    with exits(3):
        b.stat(f"{kind}:{'0' * 64}")
    right = f"sha256:{hashlib.sha256(source.read_bytes()).hexdigest()}"
    assert a.import_file(source, right)["cid"] == right


def test_other_content_is_a_conflict_and_the_same_makes_a_holder(
    a: Node, b: Node, tmp_path: Path, cid: str
) -> None:
    source = random_file(tmp_path / "f", 100_000)
    other = random_file(tmp_path / "other", 100_000)
    a.import_file(source, cid)
    for node in (a, b):
        with exits(8):
            node.import_file(other, cid)
    for node in (a, b):
        assert node.import_file(source, cid)["already_present"] is True
    found = a.stat(cid)
    assert {holder["name"] for holder in found["holders"]} == {a.name, b.name}
    assert found["publisher"] == a.id
    assert found["local"]["complete"] is True


def test_import_after_delete(a: Node, b: Node, tmp_path: Path, cid: str) -> None:
    for number in range(3):
        source = random_file(tmp_path / f"f{number}", 1000)
        (a, b)[number % 2].import_file(source, cid)
        b.export(cid, tmp_path / f"out{number}")
        assert same(source, tmp_path / f"out{number}")
        assert a.delete(cid)["pending"] == []
        for node in (a, b):
            with exits(3):
                node.stat(cid)
            with exits(3):
                node.export(cid, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_output_in_the_way_stays(a: Node, b: Node, tmp_path: Path, cid: str) -> None:
    source = random_file(tmp_path / "f", 1000)
    a.import_file(source, cid)
    out = tmp_path / "out"
    out.write_bytes(b"mine")
    for node in (a, b):
        with exits(8):
            node.export(cid, out)
        assert out.read_bytes() == b"mine"
    b.export(cid, out, overwrite=True)
    assert same(source, out)
    with exits(2):
        b.export(cid, tmp_path / "no such folder" / "out")
    assert not list(tmp_path.glob(".gossipcache*"))


def edited(path: Path) -> None:
    """Changes the bytes of a file in place, as an owner can even if it is read-only; later than
    its last change by the clock of the file system, which may be a coarse one."""
    path.chmod(0o600)
    before_ns = path.stat().st_mtime_ns
    while path.stat().st_mtime_ns == before_ns:
        with path.open("r+b") as file:
            file.write(b"edited")


def test_an_edit_through_an_imported_link_is_never_served(
    a: Node, b: Node, tmp_path: Path, cid: str
) -> None:
    source = random_file(tmp_path / "f", 100_000)
    before = source.read_bytes()
    imported = a.import_file(source, cid, link=True)
    assert data_file(a, imported).samefile(source)
    b.export(cid, tmp_path / "out1")
    assert (tmp_path / "out1").read_bytes() == before
    edited(source)
    a.export(cid, tmp_path / "out2")
    assert (tmp_path / "out2").read_bytes() == before, "the piece came from a peer"
    assert source.read_bytes()[:6] == b"edited", "the user's file is the user's"


def test_an_edit_through_an_exported_link_is_never_served(
    cluster: Cluster, a: Node, b: Node, tmp_path: Path, cid: str
) -> None:
    source = random_file(tmp_path / "f", 100_000)
    imported = a.import_file(source, cid)
    b.export(cid, tmp_path / "linked", link=True)
    linked = tmp_path / "linked"
    assert linked.stat().st_mode & 0o222 == 0
    assert data_file(b, imported).samefile(linked)
    edited(linked)
    cluster.nodes[2].export(cid, tmp_path / "out1")
    assert same(source, tmp_path / "out1")
    b.export(cid, tmp_path / "out2")
    assert same(source, tmp_path / "out2")
    assert b.verify()["bad"] == {}


def test_rot_on_the_disk_is_found_and_mended_by_peers(
    a: Node, b: Node, tmp_path: Path, cid: str
) -> None:
    source = random_file(tmp_path / "f", 5 * PIECE_BYTES)
    imported = a.import_file(source, cid)
    b.export(cid, tmp_path / "out")
    path = data_file(b, imported)
    stamp = path.stat()
    with path.open("r+b") as file:
        file.seek(PIECE_BYTES + 5)
        byte = file.read(1)[0]
        file.seek(PIECE_BYTES + 5)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    found = b.verify()
    assert found["bad"] == found["repaired"] == {cid: [1]}
    assert b.verify()["bad"] == {}
    assert same(source, path)


def test_exports_at_once_share_one_download(a: Node, b: Node, tmp_path: Path, cid: str) -> None:
    source = random_file(tmp_path / "f", LONG_BYTES)
    a.import_file(source, cid)
    before = b.metric("piece_bytes_received")
    command = [sys.executable, "-P", "-m", "gossipcache", "--home", str(b.home.path)]
    command += ["export", "-i", cid, "-O", str(tmp_path / "out2")]
    with held_back(a):
        first = under_way(b, cid, tmp_path / "out1")
        with subprocess.Popen(command, stderr=subprocess.PIPE) as second:
            wait_until(lambda: len(temporary(tmp_path)) == 2, "the second one has begun")
            second.send_signal(signal.SIGINT)
            assert second.wait() == 130
        wait_until(lambda: len(temporary(tmp_path)) == 1, "nothing of it is left")
        third = Background(lambda: b.export(cid, tmp_path / "out3"))
        wait_until(lambda: len(temporary(tmp_path)) == 2, "the third one has begun")
        assert not first.is_over
    first.result()
    assert third.result()["size"] == LONG_BYTES
    assert same(source, tmp_path / "out1")
    assert same(source, tmp_path / "out3")
    assert not (tmp_path / "out2").exists()
    wait_until(lambda: not temporary(tmp_path), "nothing half written is left")
    assert b.metric("piece_bytes_received") == before + LONG_BYTES


def temporary(folder: Path) -> list[Path]:
    return list(folder.glob(".gossipcache-*"))


def test_a_delete_ends_a_running_export(a: Node, b: Node, tmp_path: Path, cid: str) -> None:
    a.import_file(random_file(tmp_path / "f", LONG_BYTES), cid)
    with held_back(a):
        export = under_way(b, cid, tmp_path / "out")
        assert a.delete(cid)["pending"] == []
        with exits(3):
            export.result()
    assert not (tmp_path / "out").exists()
    assert not temporary(tmp_path)
    assert all(task["cid"] != cid for task in b.list())


def test_a_timeout_ends_the_export_in_the_node_too(
    a: Node, b: Node, tmp_path: Path, cid: str
) -> None:
    a.import_file(random_file(tmp_path / "f", LONG_BYTES), cid)
    with held_back(a), exits(5):
        b.export(cid, tmp_path / "out", timeout_s=0.3)
    assert not (tmp_path / "out").exists()
    assert not temporary(tmp_path)
    received = b.metric("pieces_received")
    result = b.export(cid, tmp_path / "out")
    assert result["resumed_bytes"] + sum(result["bytes_by_source"].values()) == LONG_BYTES
    assert b.metric("pieces_received") > received


def test_a_frozen_holder_drops_its_copy_later(
    cluster: Cluster, a: Node, b: Node, tmp_path: Path
) -> None:
    frozen = cluster.nodes[2]
    cid = cluster.cid_kept_by(a, b)
    a.import_file(random_file(tmp_path / "f", 1000), cid)
    frozen.export(cid, tmp_path / "out")
    wait_until(lambda: len(a.stat(cid)["holders"]) == 2, "the second holder is known")
    frozen.freeze()
    try:
        result = a.delete(cid, timeout_s=3)
    finally:
        frozen.thaw()
    assert result["pending"] == [frozen.id]
    wait_until(
        lambda: all(task["cid"] != cid for task in frozen.list()), "the holder drops its copy"
    )
    with exits(3):
        frozen.stat(cid)


def test_the_last_copy_goes_by_force_only(a: Node, b: Node, tmp_path: Path, cid: str) -> None:
    a.import_file(random_file(tmp_path / "f", 1000), cid)
    with exits(10):
        a.delete(cid, local=True)
    b.export(cid, tmp_path / "out")
    wait_until(lambda: len(a.stat(cid)["holders"]) == 2, "the second holder is known")
    a.delete(cid, local=True)
    with exits(3):
        a.stat(cid, local=True)
    with exits(10):
        b.delete(cid, local=True)
    b.delete(cid, local=True, force=True)
    with exits(3):
        a.stat(cid)


def test_what_does_not_fit_the_quota_is_refused(tmp_path: Path) -> None:
    with cluster_in(tmp_path / "full", {"GOSSIPCACHE_STORE_QUOTA_BYTES": "1MiB"}) as cluster:
        node = cluster.add()
        small = random_file(tmp_path / "small", 600_000)
        node.import_file(small, "small")
        for cid in ("big", "second"):
            size = {"big": 2_000_000, "second": 600_000}[cid]
            with exits(9):
                node.import_file(random_file(tmp_path / cid, size), cid)
            with exits(3):
                node.stat(cid)
        node.export("small", tmp_path / "out")
        assert same(small, tmp_path / "out")
