"""`list`, `run` and `replay`: single runs."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import TextIO

import click

from sim.commands.options import failures_option, json_option, nodes_option, told
from sim.commands.showing import keep, print_report
from sim.recording import read_recording
from sim.recording import replay as replay_recording
from sim.registry import find, scenarios
from sim.registry import run as run_scenario


@click.command("list")
@json_option
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


@click.command()
@click.option("--scenario", "name", required=True, help="Which; see `list`.")
@click.option("--seed", default=1, show_default=True, help="What all chance is drawn from.")
@nodes_option
@json_option
@failures_option
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
    with told():
        report = run_scenario(find(name), seed, nodes, trace)
    keep(report, failures)
    print_report(report, as_json)
    sys.exit(1 if report.violations else 0)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def replay(file: Path, as_json: bool) -> None:
    """Plays a recorded run again, on the faults in its FILE; exit 1 on a violation."""
    logging.basicConfig(level=logging.CRITICAL)
    with told():
        recording = read_recording(file)
        report = replay_recording(recording)
    print_report(report, as_json)
    if recording.digest:
        same = report.digest == recording.digest
        click.echo("the recorded run" if same else "another run than the recorded one", err=True)
    sys.exit(1 if report.violations else 0)
