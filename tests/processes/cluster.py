"""Real node processes on loopback that a test can kill, freeze, and start again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gossipcache.client import ControlClient, task_path
from gossipcache.errors import NodeUnreachable
from gossipcache.home import Home
from gossipcache.launch import await_listening

LIMIT_S = 60.0
"""How long anything may take before a test gives up; no test depends on its value."""
POLL_S = 0.005

PIECE_BYTES = 16 * 1024
MANY_SMALL_PIECES = {
    "GOSSIPCACHE_TRANSFER_PIECE_SIZE_BYTES": str(PIECE_BYTES),
    "GOSSIPCACHE_TRANSFER_PIPELINE_DEPTH": "1",
    "GOSSIPCACHE_TRANSFER_CONNECTIONS_PER_PARENT": "1",
    "GOSSIPCACHE_TRANSFER_BITMAP_INTERVAL_S": "0.05",
}
LONG_BYTES = 256 * PIECE_BYTES
"""What takes two minutes at `SLOW`, however quick the machine is."""
SLOW = "32KiB/s"


class Node:
    """One node process. Its home outlives the process."""

    def __init__(self, folder: Path, name: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.home = Home(folder / name)
        self.client = ControlClient(self.home)
        self.id = ""
        self.address = ""
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def spawn(self, join: str | None = None, *options: str, prefix: Sequence[str] = ()) -> None:
        """Starts the process, by the command `prefix` if given; `await_ready` waits for it to
        serve."""
        self.home.prepare()
        clean = {key: text for key, text in os.environ.items() if "GOSSIPCACHE" not in key}
        command = [*prefix, sys.executable, "-P", "-m", "gossipcache"]
        command += ["--home", str(self.home.path)]
        command += ["node", "run", "--name", self.name, "--listen", "127.0.0.1:0", *options]
        command += ["--join", join] if join else []
        with self.home.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=clean | dict(self._environment),
            )  # fmt: skip

    def await_ready(self) -> None:
        try:
            await_listening(self.client, LIMIT_S)
        except NodeUnreachable as error:
            raise AssertionError(self.home.log_path.read_text(errors="replace")) from error
        status = self.client.call("GET", "/v1/status", timeout_s=LIMIT_S)
        self.id, self.address = status["id"], status["listen"]

    def kill(self) -> None:
        """SIGKILL: no goodbye, nothing flushed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def metric(self, name: str) -> int:
        status = self.client.call("GET", "/v1/status", timeout_s=LIMIT_S)
        return int(status["metrics"].get(name, 0))

    def limit(self, **rates: str) -> None:
        self.client.call("PUT", "/v1/limits", body=rates, timeout_s=LIMIT_S)

    def expect_members(self, count: int) -> None:
        query = {"expect": count, "timeout_s": LIMIT_S}
        self.client.call("GET", "/v1/members", query=query, timeout_s=LIMIT_S)

    def ring(self, cid: str, tag: str = "") -> dict[str, Any]:
        return self.client.call("GET", "/v1/ring", query={"cid": cid, "tag": tag})

    def list(self) -> list[dict[str, Any]]:
        tasks: list[dict[str, Any]] = self.client.call("GET", "/v1/tasks")["tasks"]
        return tasks

    def import_file(self, path: Path, cid: str | None = None, **more: object) -> dict[str, Any]:
        return self.client.run("/v1/tasks", body={"path": str(path), "cid": cid, **more})

    def stat(self, cid: str, **more: object) -> dict[str, Any]:
        query = {"timeout_s": LIMIT_S, **more}
        return self.client.call("GET", task_path(cid), query=query, timeout_s=LIMIT_S)

    def export(self, cid: str, path: Path, **more: object) -> dict[str, Any]:
        body = {"path": str(path), "umask": "077", **more}
        return self.client.run(task_path(cid, "export"), body=body)

    def delete(self, cid: str, **more: object) -> dict[str, Any]:
        return self.client.call("DELETE", task_path(cid), query=more, timeout_s=LIMIT_S)

    def verify(self) -> dict[str, Any]:
        return self.client.call("POST", "/v1/verify", body={}, timeout_s=LIMIT_S)


class Cluster:
    """Nodes that know each other."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.nodes: list[Node] = []
        self._environment = environment

    def start(self, count: int) -> list[Node]:
        """Starts `count` nodes; every one of them sees all the others alive on return."""
        first = self.add()
        started = [first, *(self.make() for _ in range(count - 1))]
        for node in started[1:]:
            node.spawn(first.address)
        for node in started:
            node.await_ready()
        for node in started:
            node.expect_members(count)
        return started

    def add(self, *options: str) -> Node:
        """Starts one more node, which joins those that run; it serves on return."""
        alive = [node for node in self.nodes if node.is_running]
        node = self.make()
        node.spawn(alive[0].address if alive else None, *options)
        node.await_ready()
        return node

    def start_again(self, node: Node) -> None:
        """Starts a killed node on its home."""
        alive = [other for other in self.nodes if other.is_running]
        node.spawn(alive[0].address if alive else None)
        node.await_ready()

    def cid_kept_by(self, *keepers: Node) -> str:
        """A cid whose owner and first replicas are `keepers`, in this order."""
        wanted = [node.id for node in keepers]
        for number in range(10_000):
            ring = keepers[0].ring(f"task-{number}")
            if [ring["owner"], *ring["replicas"]][: len(wanted)] == wanted:
                return f"task-{number}"
        raise AssertionError("no such cid")

    def close(self) -> None:
        for node in self.nodes:
            node.kill()

    def make(self) -> Node:
        """One more node, not started."""
        node = Node(self.folder, f"n{len(self.nodes)}", self._environment)
        self.nodes.append(node)
        return node


@contextmanager
def cluster_in(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """A cluster without nodes yet; whatever it starts is ended and reaped."""
    cluster = Cluster(folder, environment or {})
    try:
        yield cluster
    finally:
        cluster.close()


class Background:
    """A call that runs in a thread; `result` gives its value or raises its error."""

    def __init__(self, call: Callable[[], dict[str, Any]]) -> None:
        self._call = call
        self._value: dict[str, Any] = {}
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> dict[str, Any]:
        self._thread.join(LIMIT_S)
        assert self.is_over, "it goes on for too long"
        if self._error is not None:
            raise self._error
        return self._value

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:
            self._error = error


@contextmanager
def held_back(*givers: Node) -> Iterator[None]:
    """What `givers` send of a task comes so slowly that a fault surely falls in the middle of it,
    while the child waits for a piece; the rest comes at once when this is over."""
    for giver in givers:
        giver.limit(upload_rate=SLOW)
    try:
        yield
    finally:
        for giver in givers:
            if giver.is_running:
                giver.limit(upload_rate="none")


def under_way(child: Node, cid: str, target: Path) -> Background:
    """An export on `child`, from nodes that are held back, that has begun to receive."""
    before = child.metric("pieces_received")
    export = Background(lambda: child.export(cid, target))
    wait_until(
        lambda: export.is_over or child.metric("pieces_received") > before,
        "the export receives pieces",
    )
    assert not export.is_over, export.result()
    return export


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Polls until `condition` holds."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"it never came true that {what}"
        time.sleep(POLL_S)


def open_links(pid: int) -> list[str]:
    """What a process has open, as /proc names it; what it closes meanwhile may be left out."""
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def random_file(path: Path, size: int) -> Path:
    path.write_bytes(os.urandom(size))
    return path
