"""`shrink` and `report`: a failing run made smaller, and drawn."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import click
import msgspec

from sim.chronicle import Chronicle
from sim.commands.options import json_option, told
from sim.page.document import page
from sim.recording import again, drawn, read_recording, replay, write
from sim.shrinking.trial import Budget, Shrunk
from sim.shrinking.trial import shrink as shrink_recording


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--seconds", type=click.FloatRange(0), default=60.0, show_default=True, help="Real time."
)
@click.option("--runs", type=click.IntRange(1), default=10_000, show_default=True, help="At most.")
@click.option(
    "--any-of",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="K",
    help="A schedule fails if it does with one of K seeds.",
)
@json_option
def shrink(file: Path, seconds: float, runs: int, any_of: int, as_json: bool) -> None:
    """Finds a smaller schedule that breaks the same invariant as the recorded run in FILE, and
    writes it beside it; exit 1 if that run does not fail any more.

    --seconds ends the search when it is over, and with it the result depends on the machine;
    --runs alone gives the same result everywhere.
    """
    logging.basicConfig(level=logging.CRITICAL)
    with told():
        recording = read_recording(file)
        found = shrink_recording(
            recording, Budget(seconds, runs), any_of, lambda line: click.echo(line, err=True)
        )
    if found is None:
        click.echo(f"{file} does not fail any more: no invariant is violated", err=True)
        sys.exit(1)
    path = file.with_name(f"{file.stem.removesuffix('-shrunk')}-shrunk.json")
    write(found.recording, path)
    if as_json:
        click.echo(json.dumps({**_plain(found), "file": str(path)}))
    else:
        _print(found, path)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Default: FILE with .html at its end.",
)
def report(file: Path, output: Path | None) -> None:
    """Plays a recorded run again and draws it on one HTML page: nodes, messages, faults, views,
    and the invariant that broke."""
    logging.basicConfig(level=logging.CRITICAL)
    with told():
        recording = read_recording(file)
        chronicle = Chronicle()
        played = replay(recording, chronicle)
    path = output or file.with_suffix(".html")
    path.write_text(page(played, chronicle, file))
    if not played.violations:
        click.echo("no invariant is violated in this run", err=True)
    click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def _print(found: Shrunk, path: Path) -> None:
    for fault in found.recording.faults or []:
        if fault is not None:
            click.echo(f"  {msgspec.json.encode(fault).decode()}")
    click.echo(f"  WRONG    {found.recording.violations[0]}")
    ended = "nothing smaller fails" if found.is_finished else "the search was cut short"
    click.echo(
        f"{found.before} faults → {found.after}, {found.recording.nodes} nodes, "
        f"in {found.runs} runs and {found.seconds:.1f} s; {ended}"
    )
    click.echo(f"look at it: {drawn(path)}")
    click.echo(f"run it again: {again(path)}")


def _plain(found: Shrunk) -> dict[str, object]:
    plain: dict[str, object] = msgspec.to_builtins(found)
    return plain
