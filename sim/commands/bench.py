"""`bench`: how fast the simulator is."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from sim.commands.options import json_option
from sim.speed import CASES, LARGE, Speed, measure


@click.command()
@json_option
@click.option("--large", is_flag=True, help="Also 5,000 nodes: minutes, and gigabytes of memory.")
@click.option("--case", "wanted", help="Only the cases in whose name this is.")
def bench(as_json: bool, large: bool, wanted: str | None) -> None:
    """Measures virtual seconds a second of processor time, on one core."""
    speeds: list[Speed] = []
    for case, nodes, stretches in CASES + (LARGE if large else ()):
        if wanted and wanted not in f"{nodes} {case}":
            continue
        speeds.append(measure(case, nodes, stretches))
        if not as_json:
            _show(speeds[-1])
    if as_json:
        click.echo(json.dumps({"speeds": [asdict(each) for each in speeds]}))


def _show(speed: Speed) -> None:
    line = (
        f"{speed.nodes:5} {speed.case:22} {speed.times_real:7.1f}x real time "
        f"(best {speed.best_times_real:.1f}x)  {speed.memory_mib:6.0f} MiB  "
        f"started in {speed.start_s:.1f} s"
    )
    if speed.pieces_per_s:
        line += f"  {speed.pieces_per_s:.0f} pieces/s"
    click.echo(line)
