"""How long small things take: `stat`, and `import` and `export` of a 4 KiB file."""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from bench.measure import percentiles
from bench.nodes import call, two_nodes
from bench.report import Job, LatencyReport
from gossipcache import Cache

SMALL_BYTES = 4096
LIBRARY_CALLS = 200
PLAIN_CALLS = 20
GOALS = {"stat, library": "p50 3, p99 15", "stat, command": "120"}


def stat(job: Job) -> LatencyReport:
    """Each call on the second of two nodes, of a task that the first one holds."""
    file = job.folder / "small"
    file.write_bytes(os.urandom(SMALL_BYTES))
    with two_nodes(job.folder / "nodes") as (one, other):
        call(one.home, "import", "-i", "small", str(file))
        giver, taker = Cache(one.home, start=False), Cache(other.home, start=False)
        numbers = count()
        output = job.folder / "output"

        def import_by_library() -> None:
            number = next(numbers)
            file.write_bytes(number.to_bytes(4, "big") * (SMALL_BYTES // 4))
            giver.import_file(file, f"library-{number}")

        def import_by_command() -> None:
            number = next(numbers)
            file.write_bytes(number.to_bytes(4, "big") * (SMALL_BYTES // 4))
            call(one.home, "import", "-i", f"command-{number}", str(file))

        def export_by_library() -> None:
            taker.export("small", output)
            output.unlink()
            taker.delete("small", local=True)

        def export_by_command() -> None:
            call(other.home, "export", "-i", "small", "-O", str(output))
            output.unlink()
            taker.delete("small", local=True)

        calls = LIBRARY_CALLS * job.runs
        plain = PLAIN_CALLS * job.runs
        socket_path = other.home / "control.sock"
        work: dict[str, tuple[int, Callable[[], object]]] = {
            "stat, library": (calls, lambda: taker.stat("small")),
            "stat, command": (plain, lambda: call(other.home, "stat", "-i", "small")),
            "health of the node by HTTP, for comparison": (calls, lambda: _health(socket_path)),
            "import of 4 KiB, library": (plain, import_by_library),
            "import of 4 KiB, command": (plain, import_by_command),
            "export of 4 KiB and delete, library": (plain, export_by_library),
            "export of 4 KiB and delete, command": (plain, export_by_command),
        }
        found = {}
        for name, (times, once) in work.items():
            once()
            found[name] = percentiles([_timed(once) for _ in range(times)])
            job.say(f"{name:<44} p50 {found[name].p50_ms:8.2f} ms")
    return LatencyReport("stat", found, GOALS)


def _timed(once: Callable[[], object]) -> float:
    started = time.perf_counter()
    once()
    return time.perf_counter() - started


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def _health(path: Path) -> None:
    connection = _UnixConnection(path)
    connection.request("GET", "/health")
    connection.getresponse().read()
    connection.close()
