"""Real nodes as processes, and the command line towards them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Process


@dataclass(frozen=True)
class Node:
    """A node and its home."""

    home: Path
    process: Process
    address: str
    node_id: str


@contextmanager
def running_node(home: Path, *, join: str | None = None) -> Iterator[Node]:
    """A node on loopback, until the block ends; it logs to a file beside its home."""
    command = ["node", "run", "--listen", "127.0.0.1:0"]
    process = Process(
        gossipcache_command(home, *command, *(["--join", join] if join else [])),
        log=home.with_name(f"{home.name}.log"),
    )
    try:
        process.read_line()
        status = call(home, "node", "status")
        yield Node(home, process, str(status["listen"]), str(status["id"]))
    finally:
        process.stop()


@contextmanager
def two_nodes(folder: Path) -> Iterator[tuple[Node, Node]]:
    """A cluster of two, who know each other; `folder` is made."""
    folder.mkdir()
    with ExitStack() as stack:
        one = stack.enter_context(running_node(folder / "a"))
        other = stack.enter_context(running_node(folder / "b", join=one.address))
        for node in (one, other):
            call(node.home, "members", "--expect", "2", "--timeout", "20s")
        yield one, other


def gossipcache_command(home: Path, *arguments: str) -> list[str]:
    """The command line of this interpreter's gossipcache."""
    return [sys.executable, "-m", "gossipcache", "--home", str(home), *arguments]


def call(home: Path, *arguments: str) -> dict[str, object]:
    """Runs one command against the node of `home` and returns its JSON."""
    command = gossipcache_command(home, "--format", "json", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)}: exit {done.returncode}: {done.stderr}")
    parsed: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return parsed


def counter(home: Path, name: str) -> int:
    """A counter of the node of `home` (docs/metrics.md); 0 if it never moved."""
    metrics = call(home, "node", "status")["metrics"]
    assert isinstance(metrics, dict)
    return int(metrics.get(name, 0))
