"""The command line of the benchmarks."""

from __future__ import annotations

import compileall
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click

import gossipcache
from bench.keepers import keepers_killed, owner_killed
from bench.large_store import large_store
from bench.latency import stat
from bench.local import import_file, local_export
from bench.many import many_to_one, many_to_one_slow, one_to_eight, one_to_many
from bench.membership import crash_noticed, join_storm, long_partition
from bench.one_to_one import one_to_one
from bench.plot import as_svg
from bench.report import Findings, Job
from bench.shares import profile
from bench.small_files import small_files

RIVALS_HOME = Path(__file__).resolve().parent.parent / ".venv-bench"
RIVALS = ["libtorrent==2.1.1"]

BENCHMARKS: dict[str, Callable[[Job], Findings]] = {
    "one-to-one": one_to_one,
    "one-to-many": one_to_many,
    "one-to-eight": one_to_eight,
    "many-to-one": many_to_one,
    "many-to-one-slow": many_to_one_slow,
    "import": import_file,
    "local-export": local_export,
    "profile": profile,
    "stat": stat,
    "small-files": small_files,
    "large-store": large_store,
    "crash-noticed": crash_noticed,
    "join-storm": join_storm,
    "long-partition": long_partition,
    "owner-killed": owner_killed,
    "keepers-killed": keepers_killed,
}

COLD = {"one-to-one", "one-to-many", "many-to-one", "import", "local-export"}


def rivals_python() -> str:
    """The interpreter of the rivals' virtual environment, made on first use."""
    python = RIVALS_HOME / "bin" / "python"
    marker = RIVALS_HOME / ".installed"
    if not marker.exists() or marker.read_text() != "\n".join(RIVALS):
        venv.create(RIVALS_HOME, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *RIVALS], check=True)
        marker.write_text("\n".join(RIVALS))
    return str(python)


@click.command()
@click.argument("name", type=click.Choice(["list", *BENCHMARKS]))
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on stdout.")
@click.option("--runs", default=5, show_default=True, help="Interleaved runs of each contender.")
@click.option("--size-mib", default=1024, show_default=True, help="Size of the file.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work (default: temp).")
@click.option("--cold", is_flag=True, help="The givers read from the disk.")
@click.option("--plot", type=click.Path(path_type=Path), help="An SVG file for a bar chart.")
def main(
    name: str,
    as_json: bool,
    runs: int,
    size_mib: int,
    folder: Path | None,
    cold: bool,
    plot: Path | None,
) -> None:
    """Runs one benchmark with its rivals interleaved in the same run."""
    if name == "list":
        click.echo("\n".join(BENCHMARKS))
        return

    if cold and name not in COLD:
        raise click.UsageError(f"--cold is for {', '.join(sorted(COLD))}")

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    setting = _setting(datetime.now(UTC), os.getloadavg()[0])
    # An installed package is compiled; without that each command would do it anew.
    compileall.compile_dir(Path(gossipcache.__file__).parent, quiet=1)
    with tempfile.TemporaryDirectory(dir=folder, prefix="gossipcache-bench-") as work:
        job = Job(Path(work).resolve(), size_mib * 2**20, runs, rivals_python, say, cold)
        found = BENCHMARKS[name](job)
    if plot is not None:
        plot.write_text(as_svg(found))
    click.echo(json.dumps(found.as_json()) if as_json else f"{setting}\n\n{found.as_table()}")


def _setting(started: datetime, load: float) -> str:
    """When and of what commit a table is, and what else the machine did before."""
    root = Path(__file__).resolve().parent.parent
    commit = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    told = subprocess.run(commit, capture_output=True, text=True, check=False).stdout.strip()
    return f"{started:%-d %B %Y}, commit {told or 'unknown'}, load average before {load:.2f}"
