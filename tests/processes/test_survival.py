"""Nodes die by SIGKILL at the worst moments; stat and export go on with no action by anyone."""

from __future__ import annotations

import filecmp
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gossipcache.errors import NodeUnreachable, TaskNotFound
from tests.processes.cluster import (
    LONG_BYTES,
    MANY_SMALL_PIECES,
    PIECE_BYTES,
    Cluster,
    cluster_in,
    held_back,
    random_file,
    under_way,
    wait_until,
)

SMALL_BYTES = 100_000


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with cluster_in(tmp_path / "nodes", MANY_SMALL_PIECES) as cluster:
        yield cluster


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return random_file(tmp_path / "small", SMALL_BYTES)


@pytest.fixture
def long(tmp_path: Path) -> Path:
    return random_file(tmp_path / "long", LONG_BYTES)


def same(one: Path, other: Path) -> bool:
    return filecmp.cmp(one, other, shallow=False)


def test_owner_killed_between_import_and_stat(
    cluster: Cluster, small: Path, tmp_path: Path
) -> None:
    holder, other, owner = cluster.start(3)
    cid = cluster.cid_kept_by(owner)
    holder.import_file(small, cid)
    owner.kill()
    assert [found["name"] for found in other.stat(cid)["holders"]] == [holder.name]
    other.export(cid, tmp_path / "out")
    assert same(small, tmp_path / "out")


@pytest.mark.parametrize("count", [3, 4, 5])
def test_owner_and_a_replica_killed_together(
    cluster: Cluster, small: Path, tmp_path: Path, count: int
) -> None:
    *rest, replica, owner = cluster.start(count)
    cid = cluster.cid_kept_by(owner, replica)
    rest[0].import_file(small, cid)
    replica.kill()
    owner.kill()
    assert rest[-1].stat(cid)["size"] == SMALL_BYTES
    rest[-1].export(cid, tmp_path / "out")
    assert same(small, tmp_path / "out")


def test_owner_killed_during_an_export(cluster: Cluster, long: Path, tmp_path: Path) -> None:
    holder, child, owner = cluster.start(3)
    cid = cluster.cid_kept_by(owner)
    holder.import_file(long, cid)
    with held_back(holder):
        export = under_way(child, cid, tmp_path / "out")
        owner.kill()
    result = export.result()
    assert same(long, tmp_path / "out")
    assert result["bytes_by_source"] == {holder.id: LONG_BYTES}, "nothing was fetched twice"
    assert child.metric("pieces_received") == LONG_BYTES // PIECE_BYTES


def test_parent_killed_during_an_export(cluster: Cluster, long: Path, tmp_path: Path) -> None:
    parent, other, child = cluster.start(3)
    cid = cluster.cid_kept_by(other)
    for holder in (parent, other):
        holder.import_file(long, cid)
    with held_back(parent, other):
        export = under_way(child, cid, tmp_path / "out")
        wait_until(lambda: parent.metric("pieces_sent") > 0, "the parent gives pieces")
        parent.kill()
    result = export.result()
    assert same(long, tmp_path / "out")
    assert set(result["bytes_by_source"]) == {parent.id, other.id}
    assert sum(result["bytes_by_source"].values()) == LONG_BYTES, "nothing was fetched twice"


def test_exporting_node_killed_resumes_when_it_is_back(
    cluster: Cluster, long: Path, tmp_path: Path
) -> None:
    holder, child = cluster.start(2)
    cid = holder.import_file(long)["cid"]
    target = tmp_path / "out" / "file"
    target.parent.mkdir()
    with held_back(holder):
        export = under_way(child, cid, target)
        wait_until(lambda: any(task["pieces_present"] for task in child.list()), "progress is made")
        child.kill()
    with pytest.raises(NodeUnreachable):
        export.result()
    assert not target.exists()
    cluster.start_again(child)
    assert list(target.parent.iterdir()) == [], "its start removes what it left half written"
    result = child.export(cid, target)
    assert same(long, target)
    assert result["resumed_bytes"] > 0
    assert result["resumed_bytes"] + sum(result["bytes_by_source"].values()) == LONG_BYTES


@pytest.mark.parametrize("link", [False, True])
def test_exporting_node_killed_when_its_export_has_returned_lost_nothing(
    cluster: Cluster, long: Path, tmp_path: Path, link: bool
) -> None:
    holder, child = cluster.start(2)
    cid = holder.import_file(long)["cid"]
    child.export(cid, tmp_path / "out", link=link)
    child.kill()
    assert same(long, tmp_path / "out")
    holder.kill()
    cluster.start_again(child)
    assert [task["pieces_present"] for task in child.list()] == [LONG_BYTES // PIECE_BYTES]
    child.export(cid, tmp_path / "again", local=True)
    assert same(long, tmp_path / "again")


def test_a_scheduler_that_joins_during_an_export_disturbs_nothing(
    cluster: Cluster, long: Path, tmp_path: Path
) -> None:
    holder, child = cluster.start(2)
    cid = holder.import_file(long)["cid"]
    with held_back(holder):
        export = under_way(child, cid, tmp_path / "out")
        newcomer = cluster.add()
        newcomer.expect_members(3)
        assert not export.is_over
    result = export.result()
    assert same(long, tmp_path / "out")
    assert result["bytes_by_source"] == {holder.id: LONG_BYTES}
    assert newcomer.stat(cid)["size"] == LONG_BYTES


def test_node_killed_under_an_import_shows_no_half_task(
    cluster: Cluster, small: Path, tmp_path: Path
) -> None:
    importer, other = cluster.start(2)
    command = [sys.executable, "-P", "-m", "gossipcache", "--home", str(importer.home.path)]
    with subprocess.Popen(
        [*command, "import", "-i", "x", "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as importing:  # fmt: skip
        assert importing.stdin is not None
        importing.stdin.write(bytes(3_000_000))
        importing.stdin.flush()
        staging = importer.home.path / "store"
        wait_until(
            lambda: any(path.stat().st_size > 0 for path in staging.rglob("*data*")),
            "content has reached the disk",
        )
        importer.kill()
        importing.stdin.close()
        assert importing.wait() == 4
    cluster.start_again(importer)
    assert importer.list() == []
    for node, local in ((importer, True), (importer, False), (other, False)):
        with pytest.raises(TaskNotFound):
            node.stat("x", local=local)
    importer.import_file(small, "x")
    other.export("x", tmp_path / "out")
    assert same(small, tmp_path / "out")


def test_all_nodes_killed_and_started_again(cluster: Cluster, small: Path, tmp_path: Path) -> None:
    nodes = cluster.start(3)
    nodes[0].import_file(small, "x")
    for node in nodes:
        node.kill()
    for node in nodes:
        cluster.start_again(node)
    for number, node in enumerate(nodes):
        node.export("x", tmp_path / f"out{number}")
        assert same(small, tmp_path / f"out{number}")
