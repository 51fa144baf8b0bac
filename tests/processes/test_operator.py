"""The whole way of a cluster with an operator, by commands on real nodes."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gossipcache.cli import main
from gossipcache.doctor import examine
from gossipcache.errors import NotPermitted
from tests.processes.cluster import Cluster, Node, cluster_in, random_file, wait_until

Run = Callable[..., Any]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on a node's home; returns the JSON object that it printed."""

    def run(node: Node, *arguments: str, code: int = 0) -> Any:
        capfd.readouterr()
        given = main(["--home", str(node.home.path), "--format", "json", *arguments])
        out, err = capfd.readouterr()
        assert given == code, err
        return json.loads(out) if out else None

    return run


def admit(run: Run, cluster: Cluster, node: Node, key: Path, *options: str) -> Path:
    """Gives `node` the cluster's key and a ticket; returns the ticket's file."""
    first = cluster.nodes[0]
    if node is not first:
        run(node, "cluster", "key", "import", str(first.home.cluster_path))
    public_key = run(node, "node", "key")["public_key"]
    ticket = cluster.folder / f"{node.name}.ticket"
    run(
        first, "cluster", "ticket", "make", public_key,
        "--operator-key", str(key), "-O", str(ticket), *options,
    )  # fmt: skip
    run(node, "cluster", "ticket", "import", str(ticket))
    return ticket


def test_an_operator_rules_a_cluster(tmp_path: Path, run: Run) -> None:
    key = tmp_path / "operator.key"
    with cluster_in(tmp_path) as cluster:
        nodes = [cluster.make() for _ in range(4)]
        first, second, third, fourth = nodes
        run(first, "cluster", "init", "--operator", str(key), "--admission", "ticket")
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        for node in nodes[:3]:
            admit(run, cluster, node, key)
        admit(run, cluster, fourth, key, "--role", "peer")
        first.spawn()
        first.await_ready()
        for node in nodes[1:]:
            node.spawn(first.address)
        for node in nodes[1:]:
            node.await_ready()
        for node in nodes:
            node.expect_members(4)
        ring = first.ring("x")["schedulers"]
        wait_until(lambda: len(first.ring("x")["schedulers"]) == 3, "three schedulers are up")
        assert fourth.id not in {each["id"] for each in ring}
        # A ticket for more roles counts without a restart.
        admit(run, cluster, fourth, key)
        wait_until(lambda: len(first.ring("x")["schedulers"]) == 4, "the ticket counts")

        signing = ("--operator-key", str(key))
        run(second, "cluster", "settings", "set", "delete_policy=publisher", *signing)
        first.import_file(random_file(tmp_path / "content", 1000), "precious")
        wait_until(
            lambda: all(run(node, "cluster", "settings", "show")["number"] == 1 for node in nodes),
            "all have the charter",
        )
        run(third, "delete", "precious", code=10)
        with pytest.raises(NotPermitted):
            third.delete("precious")

        run(first, "cluster", "revoke", fourth.id, *signing)
        for node in nodes[:3]:
            node.expect_members(3)
        shown = run(third, "cluster", "settings", "show")
        assert shown["delete_policy"] == "publisher"
        wait_until(
            lambda: run(third, "cluster", "settings", "show")["revoked_nodes"] == [fourth.id],
            "the revocation is known",
        )
        first.delete("precious")


def test_the_doctor_looks_at_the_ticket(tmp_path: Path, run: Run) -> None:
    def found(node: Node) -> tuple[bool, str]:
        return next((each.ok, each.detail) for each in examine(node.home) if each.check == "ticket")

    key = tmp_path / "operator.key"
    with cluster_in(tmp_path) as cluster:
        node = cluster.make()
        assert found(node)[0]
        run(node, "cluster", "init", "--operator", str(key))
        assert found(node) == (False, "this node has none, so that it is no scheduler")
        admit(run, cluster, node, key)
        assert "for 90 more days" in found(node)[1]
        admit(run, cluster, node, key, "--ttl", "2d")
        ok, detail = found(node)
        assert not ok
        assert "runs out in 2.0 days" in detail


def test_only_the_right_key_signs(tmp_path: Path, run: Run) -> None:
    with cluster_in(tmp_path) as cluster:
        node, other = cluster.make(), cluster.make()
        for number, each in enumerate((node, other)):
            run(each, "cluster", "init", "--operator", str(tmp_path / f"operator-{number}"))
        wrong = ("--operator-key", str(tmp_path / "operator-1"))
        run(node, "cluster", "ticket", "make", "00" * 16, *wrong, code=10)
        run(node, "cluster", "init", "--operator", str(tmp_path / "third"), code=8)
        assert not (tmp_path / "third").exists()
        strange = tmp_path / "strange.ticket"
        right = ("--operator-key", str(tmp_path / "operator-0"), "-O", str(strange))
        run(node, "cluster", "ticket", "make", "00" * 16, *right)
        run(node, "cluster", "ticket", "import", str(strange), code=6)
        run(other, "cluster", "ticket", "import", str(strange), code=6)
        run(node, "cluster", "ticket", "make", "a name", *right, code=2)
