"""How runs are shown and kept."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from sim.recording import again, drawn, record, smaller
from sim.registry import Report


def keep(report: Report, folder: Path) -> None:
    """Records a run that failed, and says how to play it again and how to look into it."""
    if report.violations:
        path = record(report, folder)
        click.echo(f"run it again: {again(path)}", err=True)
        click.echo(f"make it smaller: {smaller(path)}", err=True)
        click.echo(f"look at it: {drawn(path)}", err=True)


def print_report(report: Report, as_json: bool) -> None:
    """Shows a run; with `as_json` as one JSON object."""
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
