"""`python -m sim`: runs scenarios, many at once, again from a file, makes a failing run
smaller, checks that a seed is one run, and that planted bugs are found."""

from __future__ import annotations

import click

from sim.commands.bench import bench
from sim.commands.determinism import check_determinism
from sim.commands.many import swarm
from sim.commands.mutants import mutants
from sim.commands.narrowing import report, shrink
from sim.commands.ring import ring
from sim.commands.single import list_scenarios, replay, run

COMMANDS = (
    list_scenarios,
    run,
    swarm,
    replay,
    shrink,
    report,
    check_determinism,
    mutants,
    bench,
    ring,
)


@click.group()
def main() -> None:
    """Runs clusters of real nodes on virtual time, from a seed; see docs/simulator.md."""


for command in COMMANDS:
    main.add_command(command)

if __name__ == "__main__":
    main()
