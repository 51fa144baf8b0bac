"""Contenders with several givers, several takers, or both at once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.contenders import HERE, Contender, free_port
from bench.measure import Process, Sample
from bench.nodes import Node, call, counter, gossipcache_command, running_node

GIVER_PIECES = "piece_bytes_sent"


@dataclass
class Uploads:
    """What the first giver sent in each run, in copies of the file."""

    copies: list[float] = field(default_factory=list)


@contextmanager
def cluster(folder: Path, size: int) -> Iterator[list[Node]]:
    """`size` nodes that know each other; `folder` is made."""
    folder.mkdir()
    with ExitStack() as stack:
        nodes = [stack.enter_context(running_node(folder / "n0"))]
        for number in range(1, size):
            home = folder / f"n{number}"
            nodes.append(stack.enter_context(running_node(home, join=nodes[0].address)))
        for node in nodes:
            call(node.home, "members", "--expect", str(size), "--timeout", "30s")
        yield nodes


@contextmanager
def gossipcache_crowd(
    file: Path,
    folder: Path,
    *,
    givers: int,
    takers: int,
    uploads: Uploads | None = None,
    slow: bool = False,
) -> Iterator[Contender]:
    """Real nodes; a run is one `export --link` on each taker at once, until the last returns.
    `slow`: the last giver sends only 1 MB/s."""
    with cluster(folder / f"gossipcache{'-slow' if slow else ''}", givers + takers) as nodes:
        giving, taking = nodes[:givers], nodes[givers:]
        call(giving[0].home, "import", "-i", "bench", str(file))
        for node in giving[1:]:
            copy = node.home / "copy"
            call(node.home, "export", "-i", "bench", "-O", str(copy), "--link")
        if slow:
            call(giving[-1].home, "limits", "--upload-rate", "1MB/s")
        outputs = [folder / f"exported{number}" for number in range(takers)]

        def run() -> Sample:
            sent_before = counter(giving[0].home, GIVER_PIECES)
            commands = [
                gossipcache_command(node.home, "export", "-i", "bench", "-O", str(out), "--link")
                for node, out in zip(taking, outputs, strict=True)
            ]
            sample = _measured(
                [node.process for node in giving],
                [node.process for node in taking],
                lambda: _run_all(commands),
            )
            if uploads is not None:
                sent = counter(giving[0].home, GIVER_PIECES) - sent_before
                uploads.copies.append(sent / file.stat().st_size)
            for node, out in zip(taking, outputs, strict=True):
                subprocess.run(["cmp", str(file), str(out)], check=True)
                out.unlink()
                call(node.home, "delete", "-i", "bench", "--local")
            return sample

        yield run


@contextmanager
def libtorrent_crowd(
    file: Path, folder: Path, python: str, profile: str, *, givers: int, takers: int
) -> Iterator[Contender]:
    """libtorrent; every leecher is told of all seeders and of the leechers before it."""
    script = [python, "-W", "ignore", str(HERE / "rivals" / "torrent.py")]
    with ExitStack() as stack:
        seeding: list[Process] = []
        leeching: list[Process] = []
        ports = [free_port() for _ in range(givers + takers)]
        for port in ports[:givers]:
            command = [*script, "seed", str(file), str(port), profile]
            seeding.append(_started(stack, command))
        for port in ports[givers:]:
            target = folder / f"torrent-{profile}-{port}"
            target.mkdir()
            leeching.append(_started(stack, [*script, "leech", str(target), str(port), profile]))
        torrents = [process.read_line().split()[1] for process in seeding]
        for process in leeching:
            process.read_line()

        def run() -> Sample:
            def work() -> None:
                for number, process in enumerate(leeching):
                    known = ",".join(map(str, ports[: givers + number]))
                    process.write_line(f"{known} {torrents[0]}")
                for process in leeching:
                    process.read_line()

            sample = _measured(seeding, leeching, work)
            for process in leeching:
                process.write_line("clear")
                process.read_line()
            return sample

        yield run


@contextmanager
def bare_crowd(file: Path, folder: Path, *, givers: int, takers: int) -> Iterator[Contender]:
    """Bare sockets: each taker gets an equal share of each giver, and all of it from givers."""
    script = [sys.executable, str(HERE / "rivals" / "bare.py")]
    with ExitStack() as stack:
        sending = [_started(stack, [*script, "send", str(file)]) for _ in range(givers)]
        receiving = [
            _started(stack, [*script, "receive", str(folder / f"bare-{number}"), str(givers)])
            for number in range(takers)
        ]
        ports = ",".join(process.read_line().split()[1] for process in sending)
        for process in receiving:
            process.read_line()

        def run() -> Sample:
            def work() -> None:
                for process in receiving:
                    process.write_line(f"{ports} {file.stat().st_size}")
                for process in receiving:
                    process.read_line()

            return _measured(sending, receiving, work)

        yield run


def _started(stack: ExitStack, command: Sequence[str]) -> Process:
    process = Process(command)
    stack.callback(process.stop)
    return process


def _measured(
    givers: Sequence[Process], takers: Sequence[Process], work: Callable[[], None]
) -> Sample:
    everybody = [*givers, *takers]
    cpu_before_s = sum(process.cpu_s() for process in everybody)
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    cpu_s = sum(process.cpu_s() for process in everybody) - cpu_before_s
    peaks = {
        "up": max(process.peak_rss_mib() for process in givers),
        "down": max(process.peak_rss_mib() for process in takers),
    }
    return Sample(seconds, cpu_s, peaks)


def _run_all(commands: Sequence[Sequence[str]]) -> None:
    """Runs all at once, to the end of the last. Raises `RuntimeError` if one fails."""
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    codes = [process.wait() for process in running]
    if any(codes):
        raise RuntimeError(f"exports ended with {codes}")
