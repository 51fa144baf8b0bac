"""gossipcache demo."""

from __future__ import annotations

import signal

import click

from gossipcache.cli.bar import ProgressBar
from gossipcache.cli.context import SIZE, Shared, pass_shared, shared_options
from gossipcache.units import format_size


@click.command("demo")
@click.option("--size", type=SIZE, default="64MiB", help="Of the file that is passed on.")
@shared_options
@pass_shared
def demo_command(shared: Shared, size: int) -> None:
    """Three nodes on this machine: import on one, kill the owner, export on another, compare."""
    from gossipcache.demo import run_demo

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ProgressBar("demo", enabled=shared.shows_progress) as bar:
        result = run_demo(size, shared.say, bar)
    line = f"done: {format_size(size)} survived the loss of the owner, byte for byte"
    shared.show(result, lambda: [line])
