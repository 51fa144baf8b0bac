"""`check-determinism`: one seed is one run, whatever the hash seed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import click

from sim.commands.options import nodes_option, runs_of, scenarios_option, seeds_option

_HASH_SEEDS = ("0", "4242")


@click.command("check-determinism")
@seeds_option("1..3")
@scenarios_option
@nodes_option
def check_determinism(seeds: str, names: tuple[str, ...], nodes: int | None) -> None:
    """Runs each seed in processes of different hash seeds; exit 1 if digests differ."""
    wanted = runs_of(names, seeds, nodes)
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
