"""`swarm`: many runs in several processes."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from sim.commands.options import (
    failures_option,
    jobs_option,
    json_option,
    nodes_option,
    runs_of,
    scenarios_option,
    seeds_option,
)
from sim.commands.showing import keep
from sim.swarm import Summary, play_all


@click.command()
@seeds_option("1..10")
@scenarios_option
@nodes_option
@jobs_option
@json_option
@failures_option
def swarm(
    seeds: str,
    names: tuple[str, ...],
    nodes: int | None,
    jobs: int,
    as_json: bool,
    failures: Path,
) -> None:
    """Runs scenarios × seeds; exit 1 if an invariant was violated in one of the runs."""
    wanted = runs_of(names, seeds, nodes)
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
        keep(report, failures)
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


def _print_summary(each: Summary) -> None:
    verdict = f"{len(each.failed)} FAILED" if each.failed else "all held"
    click.echo(
        f"{each.scenario:27} {each.runs:4} runs  {verdict:10} {len(each.vacuous):3} vacuous  "
        f"{each.virtual_s:8.0f} s virtual in {each.wall_s:6.1f} s"
    )
