"""Two nodes that all attacks of a module meet, and what must hold after each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes.cluster import Node, cluster_in, random_file
from tests.security.attacker import MIB, rss_bytes

GROWTH_BYTES = 48 * MIB
"""What attacks of one kind may cost of memory, buffers of the sockets under way included."""


@dataclass
class Target:
    """A node under attack, a friend that it serves, and a task that it holds."""

    victim: Node
    friend: Node
    folder: Path
    exports: int = 0

    @property
    def http(self) -> str:
        """Where the victim's control API listens on TCP."""
        running = self.victim.home.running()
        assert running is not None
        assert running.http is not None
        return running.http

    def assert_serving(self) -> None:
        """The friend gets the task's bytes from the victim."""
        self.exports += 1
        path = self.folder / f"export-{self.exports}"
        self.friend.delete("precious", local=True, force=True)
        self.friend.export("precious", path)
        assert path.read_bytes() == (self.folder / "content").read_bytes()
        assert self.victim.is_running
        assert self.friend.is_running


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("nodes")
    with cluster_in(folder) as cluster:
        victim = cluster.add("--http", "127.0.0.1:0")
        friend = cluster.add()
        victim.expect_members(2)
        friend.expect_members(2)
        victim.import_file(random_file(folder / "content", MIB), "precious")
        friend.export("precious", folder / "export-0")
        target = Target(victim, friend, folder)
        target.assert_serving()
        yield target


@pytest.fixture
def target(pair: Target) -> Iterator[Target]:
    """The two, who must serve and not have grown when the test is over."""
    before = rss_bytes(pair.victim)
    yield pair
    pair.assert_serving()
    assert rss_bytes(pair.victim) - before < GROWTH_BYTES
