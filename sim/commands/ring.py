"""`ring`: how evenly the ring spreads tasks, and what a change of members moves and costs."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from sim.balance import PEAK_BOUNDS, measure
from sim.commands.options import json_option


@click.command("ring")
@click.option("--rings", type=click.IntRange(1), default=200, show_default=True, help="Of a size.")
@click.option("--seed", default=1, show_default=True, help="What node ids are drawn from.")
@json_option
def ring(rings: int, seed: int, as_json: bool) -> None:
    """Measures rings of 10, 100 and 500 schedulers; exit 1 if a bound does not hold."""
    measured = [measure(schedulers, rings, seed) for schedulers in PEAK_BOUNDS]
    for each in measured:
        if not as_json:
            click.echo(
                f"{each.schedulers:4} schedulers, {each.rings} rings: "
                f"peak/mean {each.peak_over_mean:.3f} (bound {PEAK_BOUNDS[each.schedulers]}), "
                f"{each.strayed} strayed, lookup {each.lookup_us:.2f} µs, "
                f"change {each.change_ms:.2f} ms"
            )
        for what in each.missed:
            click.echo(f"  WRONG  {each.schedulers} schedulers: {what}", err=True)
    if as_json:
        click.echo(json.dumps({"rings": [asdict(each) for each in measured]}))
    sys.exit(1 if any(each.missed for each in measured) else 0)
