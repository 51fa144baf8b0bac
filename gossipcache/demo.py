"""The main job, shown on one machine: three real nodes, and the death of the task's owner."""

from __future__ import annotations

import filecmp
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossipcache.client import ControlClient, OnProgress, task_path
from gossipcache.errors import IntegrityError, NodeUnreachable
from gossipcache.home import Home
from gossipcache.launch import await_listening
from gossipcache.units import format_size

START_TIMEOUT_S = 30.0
MEET_TIMEOUT_S = 20.0
END_WITHIN_S = 6.0
WRITE_BYTES = 1024 * 1024
CID = "demo"

Say = Callable[[str], None]


@dataclass(slots=True)
class DemoNode:
    """One node process of the demonstration."""

    name: str
    home: Home
    process: subprocess.Popen[bytes]
    node_id: str = ""
    address: str = ""

    @property
    def client(self) -> ControlClient:
        """The node's control API."""
        return ControlClient(self.home)

    def await_ready(self) -> None:
        """Waits until the node serves. Raises `NodeUnreachable` with the end of its log."""
        try:
            await_listening(self.client, START_TIMEOUT_S)
        except NodeUnreachable as error:
            last = self.home.log_path.read_text(errors="replace").strip().splitlines()[-1:]
            raise NodeUnreachable(f"node {self.name} did not start ({' '.join(last)})") from error
        status = self.client.call("GET", "/v1/status", timeout_s=START_TIMEOUT_S)
        self.node_id, self.address = status["id"], status["listen"]


def run_demo(size: int, say: Say, on_progress: OnProgress | None = None) -> dict[str, Any]:
    """Imports `size` random bytes on one node, kills the owner of their record with SIGKILL,
    exports them on another node and compares. Leaves nothing behind.

    Raises `IntegrityError` if the bytes differ.
    """
    with tempfile.TemporaryDirectory(prefix="gossipcache-demo-") as folder:
        say(f"three nodes on 127.0.0.1, each with a home of its own in {folder}")
        with _three_nodes(Path(folder)) as nodes:
            return _main_job(Path(folder), nodes, size, say, on_progress)


def _main_job(
    folder: Path, nodes: list[DemoNode], size: int, say: Say, on_progress: OnProgress | None
) -> dict[str, Any]:
    importer, exporter, owner = nodes
    for node in nodes:
        query = {"expect": len(nodes), "timeout_s": MEET_TIMEOUT_S}
        node.client.call("GET", "/v1/members", query=query, timeout_s=MEET_TIMEOUT_S)
        say(f"node {node.name} {node.node_id[:12]} at {node.address}: sees all {len(nodes)} alive")

    source, target = folder / "testfile", folder / "testfile.export"
    _write_random(source, size)
    tag = _tag_owned_by(owner)
    say(f"a file of {format_size(size)} random bytes: cid {CID!r}, tag {tag!r}")
    say(f"the ring gives this task's record to {owner.name} (owner), copies to the other two")

    wanted: dict[str, object] = {"path": str(source), "cid": CID, "tag": tag}
    imported = importer.client.run("/v1/tasks", body=wanted, on_progress=on_progress)
    say(f"imported on {importer.name} in {imported['seconds']:.2f} s: {imported['digest']}")
    say(f"its record is durable on {imported['record_copies']} nodes")

    owner.process.kill()
    owner.process.wait()
    say(f"killed {owner.name}, the task's owner, with SIGKILL: no goodbye")

    wanted = {"path": str(target), "tag": tag, "umask": "077"}
    path = task_path(CID, "export")
    exported = exporter.client.run(path, body=wanted, on_progress=on_progress)
    say(f"exported on {exporter.name} in {exported['seconds']:.2f} s")
    names = {node.node_id: node.name for node in nodes}
    for node_id, count in sorted(exported["bytes_by_source"].items()):
        say(f"{format_size(count)} came from {names.get(node_id, node_id)}, each piece verified")
    if not filecmp.cmp(source, target, shallow=False):
        raise IntegrityError("the exported bytes are not the imported ones", "report this")
    say("compared: the bytes are identical")
    return {
        "size": size,
        "identical": True,
        "owner_killed": owner.node_id,
        "import_seconds": imported["seconds"],
        "export_seconds": exported["seconds"],
        "bytes_by_source": exported["bytes_by_source"],
    }


@contextmanager
def _three_nodes(folder: Path) -> Iterator[list[DemoNode]]:
    nodes: list[DemoNode] = []
    try:
        first = _spawn(folder, "a", None)
        nodes.append(first)
        first.await_ready()
        nodes += [_spawn(folder, name, first.address) for name in ("b", "c")]
        for node in nodes[1:]:
            node.await_ready()
        yield nodes
    finally:
        _end(nodes)


def _spawn(folder: Path, name: str, join: str | None) -> DemoNode:
    home = Home(folder / name)
    home.prepare()
    command = [sys.executable, "-P", "-m", "gossipcache", "--home", str(home.path), "node", "run"]
    command += ["--name", name, "--listen", "127.0.0.1:0", *(("--join", join) if join else ())]
    clean = {key: text for key, text in os.environ.items() if not key.startswith("GOSSIPCACHE_")}
    with home.log_path.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean, cwd=folder
        )
    return DemoNode(name, home, process)


def _end(nodes: list[DemoNode]) -> None:
    for node in nodes:
        node.process.terminate()
    deadline = time.monotonic() + END_WITHIN_S
    for node in nodes:
        try:
            node.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            node.process.kill()
            node.process.wait()


def _tag_owned_by(owner: DemoNode) -> str:
    """A tag that makes `owner` the task's owner: neither importer nor exporter is killed."""
    number = 1
    while True:
        tag = f"try-{number}"
        ring = owner.client.call("GET", "/v1/ring", query={"cid": CID, "tag": tag})
        if ring["owner"] == owner.node_id:
            return tag
        number += 1


def _write_random(path: Path, size: int) -> None:
    with path.open("wb") as file:
        while size > 0:
            size -= file.write(os.urandom(min(size, WRITE_BYTES)))
