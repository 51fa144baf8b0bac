"""The contenders of the one-to-one copy: each sets itself up once and then runs when told."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from bench.measure import Process, Sample
from bench.nodes import Node, call, two_nodes

HERE = Path(__file__).resolve().parent


class Contender(Protocol):
    """Something that can do the work once, and say what that took."""

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


def _copy_by_line(giver: Process, taker: Process, order: str) -> Sample:
    """Gives `order` to the taker, which says how many seconds the copy took."""
    cpu_before_s = giver.cpu_s() + taker.cpu_s()
    taker.write_line(order)
    seconds = float(taker.read_line().split()[1])
    return _sample(seconds, giver, taker, cpu_before_s)


@contextmanager
def bare_sockets(
    file: Path, folder: Path, connections: int, *, twice: bool = False, sync: bool = False
) -> Iterator[Contender]:
    """sendfile to recv_into + BLAKE3 + pwrite, in one thread a connection; `twice`: each piece
    goes to two files, as into a cache and an output; `sync`: with an fsync at the end."""
    script = str(HERE / "rivals" / "bare.py")
    giver = Process([sys.executable, script, "send", str(file)])
    target = str(folder / f"bare{connections}{'-twice' * twice}{'-synced' * sync}")
    words = ["--sync"] * sync + [target, str(connections)] + [f"{target}-second"] * twice
    taker = Process([sys.executable, script, "receive", *words])
    try:
        port = giver.read_line().split()[1]
        taker.read_line()
        yield partial(_copy_by_line, giver, taker, f"{port} {file.stat().st_size}")
    finally:
        giver.stop()
        taker.stop()


@contextmanager
def libtorrent(file: Path, folder: Path, python: str, profile: str) -> Iterator[Contender]:
    """libtorrent, one seeder and one leecher, over TCP; it does not wait for the disk."""
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
            sample = _copy_by_line(giver, taker, f"{port} {torrent}")
            taker.write_line("clear")
            taker.read_line()
            return sample

        yield run
    finally:
        giver.stop()
        taker.stop()


@contextmanager
def gossipcache(file: Path, folder: Path) -> Iterator[dict[str, Contender]]:
    """Two real nodes; a run is one whole `gossipcache export` command.

    The cid is a name, or the SHA-256 of the whole file, which is then verified too.
    """
    place = folder / "gossipcache"
    output = place / "exported"
    with two_nodes(place) as (giver, taker):
        call(giver.home, "import", "-i", "bench", str(file))
        by_content = str(call(giver.home, "import", str(file))["cid"])

        def run(cid: str, *options: str) -> Sample:
            export = ["export", "-i", cid, "-O", str(output), *options]
            sample = _run_export(giver, taker, export)
            subprocess.run(["cmp", str(file), str(output)], check=True)
            output.unlink()
            call(taker.home, "delete", "-i", cid, "--local")
            return sample

        yield {
            "gossipcache export": partial(run, "bench"),
            "gossipcache export --link": partial(run, "bench", "--link"),
            "gossipcache export --link --sync": partial(run, "bench", "--link", "--sync"),
            "gossipcache export, sha256": partial(run, by_content),
        }


def _run_export(giver: Node, taker: Node, export: list[str]) -> Sample:
    cpu_before_s = giver.process.cpu_s() + taker.process.cpu_s()
    giver.process.reset_peak_rss()
    taker.process.reset_peak_rss()
    started = time.perf_counter()
    call(taker.home, *export)
    return _sample(time.perf_counter() - started, giver.process, taker.process, cpu_before_s)
