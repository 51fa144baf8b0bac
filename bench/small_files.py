"""Many small files through the library on one connection, beside `cp -r` and `tar`."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from statistics import median

from bench.figures import Figure, Figures
from bench.nodes import Node, running_node, two_nodes
from bench.report import Job
from gossipcache import Cache
from gossipcache.api.batches import Ended
from gossipcache.results import ExportResult, ImportResult

FILES = 10_000
FILE_BYTES = 4096
GOAL_PER_S = 2000
_numbers = count()


def small_files(job: Job) -> Figures:
    """Imports and exports 10,000 files of 4 KiB on a lone node, then on two nodes, each file a
    task of its own; the same files by `cp -r` and `tar`, with a sync of the file system.

    Nothing is removed before the end: ext4 does not give out the inodes again that were freed in
    the last minutes, and looks at each of them whenever a file is made.
    """
    source = job.folder / "source"
    _make(source)
    found: dict[str, list[float]] = {}
    for run in range(job.runs):
        found.setdefault("cp -r and sync", []).append(_command(job, "cp", "-r"))
        found.setdefault("tar and sync", []).append(_command(job, "tar"))
        with running_node(job.folder / f"lone-{run}") as node:
            _pass(found, "lone", node, node, source, job)
        with two_nodes(job.folder / f"pair-{run}") as (one, other):
            _pass(found, "two nodes", one, other, source, job)
    figures = [Figure(name, median(rates), "files/s") for name, rates in found.items()]
    ours = [figure for figure in figures if "import" in figure.name or "export" in figure.name]
    missed = [figure.name for figure in ours if figure.value < GOAL_PER_S]
    setting = {"files": FILES, "bytes each": FILE_BYTES, "runs": job.runs, "below 2,000/s": missed}
    return Figures("small-files", setting, figures)


def _pass(
    found: dict[str, list[float]], name: str, one: Node, other: Node, source: Path, job: Job
) -> None:
    paths = sorted(source.iterdir())
    nodes = [one] if other is one else [one, other]
    with_names = [(path, path.name) for path in paths]
    work: dict[str, Callable[[], object]] = {
        "import": lambda: _all(Cache(one.home, start=False).import_files(with_names), FILES),
        "export where they are": lambda: _exported(
            one, paths, one.home.with_name(f"{one.home.name}-here")
        ),
    }
    if other is not one:
        work["export elsewhere"] = lambda: _exported(
            other, paths, other.home.with_name(f"{other.home.name}-got")
        )
    for verb, once in work.items():
        before_s = sum(node.process.cpu_s() for node in nodes)
        took_s = _timed(once)
        cpu_s = sum(node.process.cpu_s() for node in nodes) - before_s
        found.setdefault(f"{name}: {verb}", []).append(FILES / took_s)
        told = f"{FILES / took_s:8.0f} files/s  {1e3 * cpu_s / FILES:6.2f} CPU ms a file"
        job.say(f"{name + ': ' + verb:<36} {told}")
    job.say(f"peak {one.process.peak_rss_mib():.0f} MiB")


def _exported(node: Node, paths: list[Path], target: Path) -> None:
    target.mkdir()
    tasks = [(path.name, target / path.name) for path in paths]
    _all(Cache(node.home, start=False).export_files(tasks), len(tasks))
    for path in paths[:: max(1, len(paths) // 100)]:
        assert (target / path.name).read_bytes() == path.read_bytes()


def _all(
    outcomes: Iterable[Ended[ImportResult]] | Iterable[Ended[ExportResult]], expected: int
) -> None:
    seen = 0
    for ended in outcomes:
        ended.get()
        seen += 1
    assert seen == expected, seen


def _make(folder: Path) -> None:
    folder.mkdir()
    for number in range(FILES):
        (folder / f"file-{number:05}").write_bytes(os.urandom(FILE_BYTES))
    os.sync()


def _command(job: Job, *command: str) -> float:
    target = job.folder / f"copied-{next(_numbers)}"
    if command[0] == "tar":
        command = ("tar", "-cf", str(target), "-C", str(job.folder), "source")
    else:
        command = (*command, str(job.folder / "source"), str(target))
    line = f"{shlex.join(command)} && sync -f {shlex.quote(str(target))}"
    took_s = _timed(lambda: subprocess.run(["sh", "-c", line], check=True))
    job.say(f"{command[0]:<36} {FILES / took_s:8.0f} files/s")
    return FILES / took_s


def _timed(once: Callable[[], object]) -> float:
    started = time.perf_counter()
    once()
    return time.perf_counter() - started
