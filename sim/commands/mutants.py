"""`mutants`: plants bugs one by one and shows what finds each."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
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
        _show(hunt)
    control = innocent(hunts, jobs)
    broken = [one for one in control if one.violation is not None]
    for one in broken:
        click.echo(f"without any mutant {one.scenario} seed {one.seed}: {one.violation}", err=True)
    found = sum(hunt.found is not None for hunt in hunts)
    if as_json:
        click.echo(json.dumps(_plain(hunts, control)))
    else:
        click.echo("\n".join(_table(hunts)))
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
    where = "NOT FOUND" if found is None else f"{found.scenario}: {found.violation}"
    click.echo(f"{hunt.mutant.name:38} {hunt.seeds:3} seeds {hunt.cpu_s:6.1f} s  {where}", err=True)
    if found is not None and (less := found.shrinkage) is not None:
        click.echo(
            f"{'':38} {less.before} faults → {less.after} in {less.runs} runs, {less.cpu_s:.1f} s",
            err=True,
        )


def _table(hunts: list[Hunt]) -> Iterator[str]:
    """For `sim/RESULTS.md`."""
    yield "| mutant | what it breaks | found by | with the words | seeds | CPU s |"
    yield "|---|---|---|---|---|---|"
    for hunt in hunts:
        scenario, words = "**not found**", ""
        if hunt.found is not None and hunt.found.violation is not None:
            scenario, words = hunt.found.scenario, hunt.found.violation.replace("|", "/")
        mutant = hunt.mutant
        yield (
            f"| {mutant.name} | {mutant.breaks} | {scenario} | {words} "
            f"| {hunt.seeds} | {hunt.cpu_s} |"
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
