"""Options that several commands share, and how what they are given is read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from gossipcache.errors import UsageError
from sim.recording import FOLDER
from sim.registry import find, scenarios
from sim.swarm import Run

Command = TypeVar("Command", bound=Callable[..., Any])

MAX_NODES = 10_000

nodes_option = click.option(
    "--nodes", type=click.IntRange(3, MAX_NODES), help="Default: the scenario's own number."
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="End with one JSON object on stdout."
)
scenarios_option = click.option(
    "--scenario", "names", multiple=True, help="Which, again for more; default: all."
)
jobs_option = click.option(
    "--jobs", type=click.IntRange(1), default=2, show_default=True, help="Processes."
)
failures_option = click.option(
    "--failures",
    type=click.Path(file_okay=False, path_type=Path),
    default=FOLDER,
    show_default=True,
    help="Where a failing run is recorded.",
)


def seeds_option(default: str) -> Callable[[Command], Command]:
    """`--seeds A..B`."""
    return click.option(
        "--seeds", default=default, show_default=True, help="A..B, both included; or one."
    )


@contextmanager
def told() -> Iterator[None]:
    """Ends with the usual line, and 2, where the user asked for what is not there."""
    try:
        yield
    except UsageError as error:
        click.echo(f"error: {error.message}. TRY: {error.hint}.", err=True)
        sys.exit(2)


def runs_of(names: tuple[str, ...], seeds: str, nodes: int | None) -> list[Run]:
    """Every named scenario (none named: all) with every seed."""
    with told():
        chosen = [find(name).name for name in names] or list(scenarios())
        return [Run(name, seed, nodes) for name in chosen for seed in seed_range(seeds)]


def seed_range(text: str) -> range:
    """The seeds in `A..B`, or the one in `A`. Raises `UsageError`."""
    first, separator, last = text.partition("..")
    try:
        return range(int(first), int(last if separator else first) + 1)
    except ValueError:
        raise UsageError(f"{text!r} is not a range of seeds", "--seeds 1..10") from None
