"""`mutants`: plants bugs one by one and shows what finds each."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, fields
from statistics import median

import click

from gossipcache.errors import UsageError
from sim.commands.options import jobs_option, json_option, seed_range, seeds_option, told
from sim.mutation.catalogue import MUTANTS
from sim.mutation.hunt import Hunt, hunt_all, innocent
from sim.mutation.mutant import Mutant
from sim.mutation.trial import Outcome, Shrinkage
from sim.registry import find


@click.command()
@click.option("--mutant", "names", multiple=True, help="Which, again for more; default: all.")
@seeds_option("1..5")
@click.option("--scenario", "scenarios", multiple=True, help="Instead of the mutant's own.")
@click.option(
    "--shrink",
    "shrink_s",
    type=click.FloatRange(0),
    default=0.0,
    metavar="SECONDS",
    help="Make each failing run smaller, for so much processor time; says what it came to.",
)
@jobs_option
@json_option
def mutants(
    names: tuple[str, ...],
    seeds: str,
    scenarios: tuple[str, ...],
    shrink_s: float,
    jobs: int,
    as_json: bool,
) -> None:
    """Plants bugs one by one, each until a seed finds it; exit 1 if one is not found."""
    with told():
        chosen, wanted = _chosen(names), seed_range(seeds)
        for name in scenarios:
            find(name)
    hunts: list[Hunt] = []
    for hunt in hunt_all(chosen, wanted, jobs, scenarios=scenarios, shrink_s=shrink_s):
        hunts.append(hunt)
        if not as_json:
            _show(hunt)
    control = innocent(hunts, jobs)
    broken = [one for one in control if one.violation is not None]
    for one in broken:
        click.echo(f"without any mutant {one.scenario} seed {one.seed}: {one.violation}", err=True)
    found = sum(hunt.found is not None for hunt in hunts)
    if as_json:
        click.echo(json.dumps(_plain(hunts, control)))
    else:
        click.echo(f"\n{found} of {len(hunts)} mutants found")
        click.echo(f"{len(control)} runs without mutants, {len(broken)} failed")
        _show_shrinkage(hunts)
    sys.exit(1 if broken or found < len(hunts) else 0)


def _chosen(names: tuple[str, ...]) -> list[Mutant]:
    for name in names:
        if name not in MUTANTS:
            raise UsageError(f"no mutant {name!r}", f"one of: {', '.join(MUTANTS)}")
    return [MUTANTS[name] for name in names or MUTANTS]


def _show(hunt: Hunt) -> None:
    found = hunt.found
    if found is None:
        click.echo(f"{hunt.mutant.name:34} NOT FOUND in {hunt.seeds} seeds, {hunt.cpu_s:.1f} s")
        return
    seeds = "1 seed " if hunt.seeds == 1 else f"{hunt.seeds} seeds"
    click.echo(f"{hunt.mutant.name:34} {seeds} {hunt.cpu_s:6.1f} s  {found.scenario}")
    click.echo(f"{'':34} {found.violation}")
    if (less := found.shrinkage) is not None:
        click.echo(
            f"{'':34} {less.before} faults → {less.after} in {less.runs} runs, {less.cpu_s:.1f} s"
        )


def _show_shrinkage(hunts: list[Hunt]) -> None:
    shrunk = [hunt.found.shrinkage for hunt in hunts if hunt.found and hunt.found.shrinkage]
    if shrunk:
        before, after, runs, cpu_s = (
            median(getattr(less, field.name) for less in shrunk) for field in fields(Shrinkage)
        )
        click.echo(
            f"{len(shrunk)} failures made smaller, medians: {before:g} faults → {after:g} in "
            f"{runs:g} runs and {cpu_s:.1f} s of processor time"
        )


def _plain(hunts: list[Hunt], control: list[Outcome]) -> dict[str, object]:
    return {
        "mutants": [
            {
                "name": hunt.mutant.name,
                "breaks": hunt.mutant.breaks,
                "found": hunt.found is not None,
                "scenario": hunt.found and hunt.found.scenario,
                "violation": hunt.found and hunt.found.violation,
                "seeds": hunt.seeds,
                "cpu_s": hunt.cpu_s,
                "shrinkage": hunt.found and hunt.found.shrinkage and asdict(hunt.found.shrinkage),
            }
            for hunt in hunts
        ],
        "runs_without": len(control),
        "failed_without": sum(one.violation is not None for one in control),
    }
