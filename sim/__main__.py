"""`python -m sim`: runs scenarios, many at once, again from a file, and checks that a seed is
one run."""

from __future__ import annotations

import click

from sim.commands.determinism import check_determinism
from sim.commands.many import swarm
from sim.commands.ring import ring
from sim.commands.single import list_scenarios, replay, run


@click.group()
def main() -> None:
    """Runs clusters of real nodes on virtual time, from a seed; see docs/simulator.md."""


for command in (list_scenarios, run, replay, swarm, check_determinism, ring):
    main.add_command(command)

if __name__ == "__main__":
    main()
