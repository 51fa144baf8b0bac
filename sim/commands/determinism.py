"""`check-determinism`: one seed is one run, whatever the hash seed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path

import click

from sim.commands.options import nodes_option, runs_of, scenarios_option, seeds_option
from sim.swarm import Run

_HASH_SEEDS = ("0", "4242")


@click.command("check-determinism")
@seeds_option("1..3")
@scenarios_option
@nodes_option
def check_determinism(seeds: str, names: tuple[str, ...], nodes: int | None) -> None:
    """Runs each seed in processes of different hash seeds; where digests differ, says at which
    event the runs part, and exits with 1."""
    wanted = runs_of(names, seeds, nodes)
    with tempfile.TemporaryDirectory() as folder:
        started = [_swarm(names, seeds, nodes, hash_seed, folder) for hash_seed in _HASH_SEEDS]
        found = [_digests(process) for process in started]
        differing = 0
        for each in wanted:
            digests = sorted({run.get((each.scenario, each.seed), "none") for run in found})
            click.echo(f"{each.scenario} seed {each.seed}: {' != '.join(digests)}")
            if len(digests) > 1:
                differing += 1
                click.echo(_parting(each, Path(folder)))
    sys.exit(1 if differing else 0)


def first_difference(one: Iterable[str], other: Iterable[str]) -> str | None:
    """Where two traces part: the number of the event and what it was in each; None if they
    are equal."""
    for number, (line, opposite) in enumerate(zip_longest(one, other), start=1):
        if line != opposite:
            return f"  event {number} is\n    {_event(line)}\n  or\n    {_event(opposite)}"
    return None


def _event(line: str | None) -> str:
    if line is None:
        return "none: the run is over"
    event = json.loads(line)
    return (
        f"{event['t']:.9f} s: {event['kind']} {event['where']}, {event['size']} bytes "
        f"with the digest {event['bytes']}"
    )


def _parting(run: Run, folder: Path) -> str:
    """Plays a run again under each hash seed, traced."""
    traces = [folder / f"trace-{hash_seed}" for hash_seed in _HASH_SEEDS]
    for hash_seed, trace in zip(_HASH_SEEDS, traces, strict=True):
        asked = ["--scenario", run.scenario, "--seed", str(run.seed), "--trace", str(trace)]
        asked += ["--failures", str(folder), *_nodes(run.nodes)]
        _sim("run", *asked, hash_seed=hash_seed).communicate()
    with traces[0].open() as one, traces[1].open() as other:
        return first_difference(one, other) or "  played again, the runs are equal"


def _swarm(
    names: tuple[str, ...], seeds: str, nodes: int | None, hash_seed: str, folder: str
) -> subprocess.Popen[str]:
    asked = ["--json", "--jobs", "1", "--seeds", seeds, "--failures", folder, *_nodes(nodes)]
    asked += [part for name in names for part in ("--scenario", name)]
    return _sim("swarm", *asked, hash_seed=hash_seed)


def _nodes(nodes: int | None) -> list[str]:
    return ["--nodes", str(nodes)] if nodes else []


def _sim(*command: str, hash_seed: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sim", *command],
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
