"""The contenders of the one-to-one copy: each sets itself up once and then runs when told."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from bench.measure import Process, Sample

HERE = Path(__file__).resolve().parent


class Contender(Protocol):
    """Something that can copy the file once, and say what that took."""

    def __call__(self) -> Sample: ...


def free_port() -> int:
    """A port number that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _sample(seconds: float, giver: Process, taker: Process, cpu_before_s: float) -> Sample:
    return Sample(
        seconds,
        giver.cpu_s() + taker.cpu_s() - cpu_before_s,
        {"up": giver.peak_rss_mib(), "down": taker.peak_rss_mib()},
    )


@contextmanager
def bare_sockets(file: Path, folder: Path, connections: int) -> Iterator[Contender]:
    """sendfile to recv_into + BLAKE3 + pwrite, in one thread a connection."""
    script = str(HERE / "rivals" / "bare.py")
    giver = Process([sys.executable, script, "send", str(file)])
    taker = Process(
        [sys.executable, script, "receive", str(folder / f"bare{connections}"), str(connections)]
    )
    try:
        port = giver.read_line().split()[1]
        taker.read_line()

        def run() -> Sample:
            cpu_before_s = giver.cpu_s() + taker.cpu_s()
            taker.write_line(f"{port} {file.stat().st_size}")
            seconds = float(taker.read_line().split()[1])
            return _sample(seconds, giver, taker, cpu_before_s)

        yield run
    finally:
        giver.stop()
        taker.stop()


@contextmanager
def libtorrent(file: Path, folder: Path, python: str, profile: str) -> Iterator[Contender]:
    """libtorrent, one seeder and one leecher, over TCP."""
    script = str(HERE / "rivals" / "torrent.py")
    target = folder / f"torrent-{profile}"
    target.mkdir()
    port, other_port = free_port(), free_port()
    giver = Process([python, "-W", "ignore", script, "seed", str(file), str(port), profile])
    taker = Process(
        [python, "-W", "ignore", script, "leech", str(target), str(other_port), profile]
    )
    try:
        torrent = giver.read_line().split()[1]
        taker.read_line()

        def run() -> Sample:
            cpu_before_s = giver.cpu_s() + taker.cpu_s()
            taker.write_line(f"{port} {torrent}")
            seconds = float(taker.read_line().split()[1])
            return _sample(seconds, giver, taker, cpu_before_s)

        yield run
    finally:
        giver.stop()
        taker.stop()


def gossipcache_command(home: Path, *arguments: str) -> list[str]:
    """The command line of this interpreter's gossipcache."""
    return [sys.executable, "-m", "gossipcache", "--home", str(home), *arguments]


@contextmanager
def gossipcache(file: Path, folder: Path, *, link: bool) -> Iterator[Contender]:
    """Two real nodes; a run is one whole `gossipcache export` command."""
    name = "link" if link else "copy"
    homes = [folder / f"gossipcache-{name}-{side}" for side in ("a", "b")]
    port = free_port()
    giver = Process(gossipcache_command(homes[0], "node", "run", "--listen", f"127.0.0.1:{port}"))
    taker = Process(
        gossipcache_command(
            homes[1], "node", "run", "--listen", "127.0.0.1:0", "--join", f"127.0.0.1:{port}"
        )
    )
    output = folder / f"exported-{name}"
    try:
        giver.read_line()
        taker.read_line()
        call(homes[0], "members", "--expect", "2", "--timeout", "20s")
        call(homes[1], "members", "--expect", "2", "--timeout", "20s")
        call(homes[0], "import", "-i", "bench", str(file))
        export = ["export", "-i", "bench", "-O", str(output), *(["--link"] if link else [])]

        def run() -> Sample:
            cpu_before_s = giver.cpu_s() + taker.cpu_s()
            giver.reset_peak_rss()
            taker.reset_peak_rss()
            started = time.perf_counter()
            call(homes[1], *export)
            seconds = time.perf_counter() - started
            sample = _sample(seconds, giver, taker, cpu_before_s)
            subprocess.run(["cmp", str(file), str(output)], check=True)
            output.unlink()
            call(homes[1], "delete", "-i", "bench", "--local")
            return sample

        yield run
    finally:
        taker.stop()
        giver.stop()


def call(home: Path, *arguments: str) -> dict[str, object]:
    """Runs one command against the node of `home` and returns its JSON."""
    command = gossipcache_command(home, "--format", "json", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)}: exit {done.returncode}: {done.stderr}")
    parsed: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return parsed
