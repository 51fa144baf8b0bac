"""`python -m sim`: runs scenarios, many at once, again from a file, and checks that a seed is
one run."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

import click

from gossipcache.errors import UsageError
from sim.recording import FOLDER, again, read_recording, record, replay
from sim.scenario import Report, find, scenarios
from sim.scenario import run as run_scenario
from sim.swarm import Run, Summary, play_all

_HASH_SEEDS = ("0", "4242")

_nodes = click.option(
    "--nodes", type=click.IntRange(3, 500), help="Default: the scenario's own number."
)
_json = click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
_some = click.option(
    "--scenario", "names", multiple=True, help="Which, again for more; default: all."
)
_failures = click.option(
    "--failures",
    type=click.Path(file_okay=False, path_type=Path),
    default=FOLDER,
    show_default=True,
    help="Where a failing run is recorded.",
)


@click.group()
def main() -> None:
    """Runs clusters of real nodes on virtual time, from a seed; see docs/simulator.md."""


@main.command("list")
@_json
def list_scenarios(as_json: bool) -> None:
    """Lists the scenarios: name, number of nodes, story."""
    found = scenarios().values()
    if as_json:
        listed = [{"name": e.name, "nodes": e.nodes, "summary": e.summary} for e in found]
        click.echo(json.dumps({"scenarios": listed}))
        return
    for each in found:
        click.echo(f"{each.name:27} {each.nodes:2} nodes  {each.summary}")
    click.echo("\nRun one: python -m sim run --scenario NAME --seed N", err=True)


@main.command()
@click.option("--scenario", "name", required=True, help="Which; see `list`.")
@click.option("--seed", default=1, show_default=True, help="What all chance is drawn from.")
@_nodes
@_json
@_failures
@click.option("--trace", type=click.File("w"), help="Write every event here, a JSON line each.")
@click.option("--verbose", is_flag=True, help="Let the nodes log to stderr.")
def run(
    name: str,
    seed: int,
    nodes: int | None,
    as_json: bool,
    failures: Path,
    trace: TextIO | None,
    verbose: bool,
) -> None:
    """Runs one scenario; exit 1 if an invariant was violated."""
    logging.basicConfig(level=logging.INFO if verbose else logging.CRITICAL)
    with _told():
        report = run_scenario(find(name), seed, nodes, trace)
    _keep(report, failures)
    _print(report, as_json)
    sys.exit(1 if report.violations else 0)


@main.command("replay")
@click.argument("file", type=click.Path(path_type=Path))
@_json
def replay_file(file: Path, as_json: bool) -> None:
    """Plays a recorded run again, on the faults in its FILE; exit 1 on a violation."""
    logging.basicConfig(level=logging.CRITICAL)
    with _told():
        recording = read_recording(file)
        report = replay(recording)
    _print(report, as_json)
    if recording.digest:
        same = report.digest == recording.digest
        click.echo("the recorded run" if same else "another run than the recorded one", err=True)
    sys.exit(1 if report.violations else 0)


@main.command()
@click.option("--seeds", default="1..10", show_default=True, help="A..B, both included.")
@_some
@_nodes
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Processes.")
@_json
@_failures
def swarm(
    seeds: str,
    names: tuple[str, ...],
    nodes: int | None,
    jobs: int,
    as_json: bool,
    failures: Path,
) -> None:
    """Runs scenarios × seeds; exit 1 if an invariant was violated in one of the runs."""
    wanted = _runs(names, seeds, nodes)
    summaries: dict[str, Summary] = {}
    digests = []
    for report in play_all(wanted, jobs):
        summary = summaries.setdefault(report.scenario, Summary(report.scenario))
        summary.add(report)
        digests.append([report.scenario, report.seed, report.digest])
        if summary.runs == len(wanted) // len({each.scenario for each in wanted}) and not as_json:
            _print_summary(summary)
        for violation in report.violations:
            click.echo(f"{report.scenario} seed {report.seed}: {violation}", err=True)
        _keep(report, failures)
    failed = sum(len(each.failed) for each in summaries.values())
    if as_json:
        told = [{**asdict(each), "metrics": each.spread()} for each in summaries.values()]
        click.echo(
            json.dumps(
                {"runs": len(wanted), "failed": failed, "scenarios": told, "digests": digests}
            )
        )
    else:
        click.echo(f"{len(wanted)} runs, {failed} failed")
    sys.exit(1 if failed else 0)


@main.command("check-determinism")
@click.option("--seeds", default="1..3", show_default=True, help="A..B, both included.")
@_some
@_nodes
def check_determinism(seeds: str, names: tuple[str, ...], nodes: int | None) -> None:
    """Runs each seed in processes of different hash seeds; exit 1 if digests differ."""
    wanted = _runs(names, seeds, nodes)
    started = [_digests_elsewhere(names, seeds, nodes, hash_seed) for hash_seed in _HASH_SEEDS]
    found = [_digests(process) for process in started]
    differing = 0
    for each in wanted:
        digests = sorted({run.get((each.scenario, each.seed), "none") for run in found})
        differing += len(digests) > 1
        click.echo(f"{each.scenario} seed {each.seed}: {' != '.join(digests)}")
    sys.exit(1 if differing else 0)


def _digests_elsewhere(
    names: tuple[str, ...], seeds: str, nodes: int | None, hash_seed: str
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sim", "swarm", "--json", "--jobs", "1", "--seeds", seeds]
    command += [part for name in names for part in ("--scenario", name)]
    command += ["--nodes", str(nodes)] if nodes else []
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _digests(process: subprocess.Popen[str]) -> dict[tuple[str, int], str]:
    lines = process.communicate()[0].splitlines()
    if not lines:
        return {}
    return {(name, seed): digest for name, seed, digest in json.loads(lines[-1])["digests"]}


def _runs(names: tuple[str, ...], seeds: str, nodes: int | None) -> list[Run]:
    with _told():
        chosen = [find(name).name for name in names] or list(scenarios())
    return [Run(name, seed, nodes) for name in chosen for seed in _seed_range(seeds)]


@contextmanager
def _told() -> Iterator[None]:
    """Ends with the usual line, and 2, where the user asked for what is not there."""
    try:
        yield
    except UsageError as error:
        click.echo(f"error: {error.message}. TRY: {error.hint}.", err=True)
        sys.exit(2)


def _seed_range(text: str) -> range:
    first, separator, last = text.partition("..")
    try:
        return range(int(first), int(last if separator else first) + 1)
    except ValueError:
        click.echo(f"error: {text!r} is not a range of seeds. TRY: --seeds 1..10.", err=True)
        sys.exit(2)


def _keep(report: Report, folder: Path) -> None:
    if report.violations:
        click.echo(f"run it again: {again(record(report, folder))}", err=True)


def _print(report: Report, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(report)))
        return
    click.echo(f"{report.scenario}, seed {report.seed}, {report.nodes} nodes")
    click.echo(f"  digest   {report.digest} over {report.events} events")
    click.echo(f"  time     {report.virtual_s:.3f} s virtual, {report.wall_s:.3f} s real")
    for kind, count in report.faults.items():
        click.echo(f"  fault    {kind}: {count['armed']} armed, {count['bit']} bit")
    for key, value in report.metrics.items():
        click.echo(f"  metric   {key}: {value:g}")
    for violation in report.violations:
        click.echo(f"  WRONG    {violation}")
    if report.vacuous:
        click.echo("  vacuous  a fault never took effect: this run proves nothing about it")
    click.echo("  violated" if report.violations else "  all invariants held")


def _print_summary(each: Summary) -> None:
    verdict = f"{len(each.failed)} FAILED" if each.failed else "all held"
    click.echo(
        f"{each.scenario:27} {each.runs:4} runs  {verdict:10} {len(each.vacuous):3} vacuous  "
        f"{each.virtual_s:8.0f} s virtual in {each.wall_s:6.1f} s"
    )


if __name__ == "__main__":
    main()
