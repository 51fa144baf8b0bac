"""`python -m sim`: runs scenarios, and checks that a seed is one run."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import asdict
from typing import TextIO

import click

from gossipcache.errors import UsageError
from sim.scenario import Report, find, scenarios
from sim.scenario import run as run_scenario

_HASH_SEEDS = ("0", "4242")


@click.group()
def main() -> None:
    """Runs clusters of real nodes on virtual time, from a seed."""


@main.command("list")
def list_scenarios() -> None:
    """Lists the scenarios."""
    for name, each in scenarios().items():
        click.echo(f"{name:28} {each.nodes:4} nodes  {each.summary}")


@main.command()
@click.option("--scenario", "name", required=True, help="Which; see `list`.")
@click.option("--seed", default=1, show_default=True, help="What all chance is drawn from.")
@click.option("--nodes", type=click.IntRange(3, 500), help="Default: the scenario's own number.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
@click.option("--trace", type=click.File("w"), help="Write every event here, a JSON line each.")
@click.option("--verbose", is_flag=True, help="Let the nodes log to stderr.")
def run(
    name: str, seed: int, nodes: int | None, as_json: bool, trace: TextIO | None, verbose: bool
) -> None:
    """Runs one scenario; exit 1 if an invariant was violated."""
    logging.basicConfig(level=logging.INFO if verbose else logging.CRITICAL)
    report = _run(name, seed, nodes, trace)
    if report.violations:
        again = f"python -m sim run --scenario {name} --seed {seed} --nodes {report.nodes}"
        click.echo(f"run it again: {again}", err=True)
    if as_json:
        click.echo(json.dumps(asdict(report)))
    else:
        _print(report)
    sys.exit(1 if report.violations else 0)


@main.command("check-determinism")
@click.option("--seeds", default="1..3", show_default=True, help="A..B, both included.")
@click.option("--scenario", "name", help="Default: all.")
@click.option("--nodes", type=click.IntRange(3, 500))
def check_determinism(seeds: str, name: str | None, nodes: int | None) -> None:
    """Runs each seed in processes of different hash seeds; exit 1 if digests differ."""
    differing = 0
    for each in [find(name).name] if name else list(scenarios()):
        for seed in _seed_range(seeds):
            digests = {_digest_elsewhere(each, seed, nodes, hashed) for hashed in _HASH_SEEDS}
            same = len(digests) == 1
            differing += not same
            click.echo(f"{each} seed {seed}: {' != '.join(sorted(digests))}")
    sys.exit(1 if differing else 0)


def _run(name: str, seed: int, nodes: int | None, trace: TextIO | None) -> Report:
    try:
        return run_scenario(find(name), seed, nodes, trace)
    except UsageError as error:
        click.echo(f"error: {error.message}. TRY: {error.hint}.", err=True)
        sys.exit(2)


def _digest_elsewhere(name: str, seed: int, nodes: int | None, hash_seed: str) -> str:
    command = [sys.executable, "-m", "sim", "run", "--scenario", name, "--seed", str(seed)]
    command += ["--json", *(["--nodes", str(nodes)] if nodes else [])]
    ended = subprocess.run(
        command,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    lines = ended.stdout.splitlines()
    return str(json.loads(lines[-1])["digest"]) if lines else f"exit {ended.returncode}"


def _seed_range(text: str) -> range:
    first, separator, last = text.partition("..")
    try:
        return range(int(first), int(last if separator else first) + 1)
    except ValueError:
        click.echo(f"error: {text!r} is not a range of seeds. TRY: --seeds 1..10.", err=True)
        sys.exit(2)


def _print(report: Report) -> None:
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


if __name__ == "__main__":
    main()
