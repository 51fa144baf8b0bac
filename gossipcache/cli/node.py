"""The node itself: node run, start, stop, status."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from gossipcache.cli.context import Shared, pass_shared, shared_options
from gossipcache.client import ControlClient
from gossipcache.errors import GossipcacheError, NodeUnreachable, TimedOut
from gossipcache.home import Home
from gossipcache.units import format_size

F = TypeVar("F", bound=Callable[..., Any])

_KEYS = {
    "quota": "store.quota_bytes",
    "upload_rate": "transfer.upload_rate",
    "download_rate": "transfer.download_rate",
    "max_uploads": "transfer.max_uploads",
}
"""The settings whose flags have other names."""
END_WITHIN_S = 6.0
KILL_WITHIN_S = 2.0


def _run_options(command: F) -> F:
    """What `run` and `start` take; each value is checked by `gossipcache.settings`."""
    for decorate in reversed((
        click.option("--name", help="What members call this node; default: the machine's name."),
        click.option("--listen", metavar="HOST:PORT", help="TCP and UDP; port 0 picks one."),
        click.option("--join", multiple=True, metavar="HOST:PORT", help="Any member; repeatable."),
        click.option("--advertise", metavar="HOST:PORT", help="What others dial, if it differs."),
        click.option("--role", "roles", multiple=True, type=click.Choice(("peer", "scheduler")),
                     help="Default: both."),
        click.option("--zone", help="Where it stands; nodes fetch within their zone if they can."),
        click.option("--http", metavar="HOST:PORT", help="Control API on TCP; needs the token."),
        click.option("--quota", metavar="SIZE", help="Limit of the store."),
        click.option("--upload-rate", metavar="RATE", help="What is sent at most, as 100MiB/s."),
        click.option("--download-rate", metavar="RATE", help="What is fetched at most."),
        click.option("--max-uploads", metavar="N", help="Pieces sent at once; default 64."),
        click.option("--insecure-plaintext", is_flag=True, help="No TLS beyond loopback."),
        click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error."),
        click.option("--log-format", metavar="FORMAT", help="human or json."),
    )):  # fmt: skip
        command = decorate(command)
    return command


@click.group("node")
def node_group() -> None:
    """Run, start, stop this home's node."""


@node_group.command("run")
@_run_options
@shared_options
@pass_shared
def run_command(shared: Shared, /, **flags: object) -> None:
    """Run in the foreground until SIGINT or SIGTERM; a second signal forces the end."""
    from gossipcache.daemon import run_foreground

    run_foreground(shared.home, _plain(flags))


@node_group.command("start")
@_run_options
@shared_options
@pass_shared
def start_command(shared: Shared, /, **flags: object) -> None:
    """Run in the background; returns when the node serves."""
    from gossipcache.launch import start_background

    ready = start_background(shared.home, "background", _plain(flags))
    words = dict(word.partition("=")[::2] for word in ready.split()[1:])
    shared.show(words, lambda: [ready])


@node_group.command("stop")
@shared_options
@pass_shared
def stop_command(shared: Shared) -> None:
    """End the node; it tells its members first."""
    home = shared.home
    was_running = home.is_held()
    if was_running:
        _end(home)
    message = "stopped" if was_running else f"no node runs on the home {home.path}"
    shared.show({"stopped": was_running}, lambda: [message])


@node_group.command("status")
@shared_options
@pass_shared
def status_command(shared: Shared) -> None:
    """Show how the node is: exit 0 if it serves, 4 if not."""
    status = ControlClient(shared.home).call("GET", "/v1/status", timeout_s=5.0)
    shared.show(status, lambda: _status_lines(status))


@node_group.command("key")
@shared_options
@pass_shared
def key_command(shared: Shared) -> None:
    """Show this node's public key and id, for the operator's ticket; the key is made if need be."""
    from gossipcache.identity import Identity

    home = shared.home
    home.prepare()
    identity = Identity(home.node_seed())
    key, node = identity.public_key.hex(), identity.node_id.hex()
    shared.show(
        {"public_key": key, "id": node}, lambda: [f"public key  {key}", f"id          {node}"]
    )


def _plain(flags: dict[str, object]) -> dict[str, object]:
    """The flags as JSON can carry them."""
    plain = {key: list(flag) if isinstance(flag, tuple) else flag for key, flag in flags.items()}
    return {_KEYS.get(name, name): value for name, value in plain.items()}


def _end(home: Home) -> None:
    try:
        ControlClient(home).call("POST", "/v1/stop", timeout_s=END_WITHIN_S)
    except (NodeUnreachable, TimedOut):
        _signal(home, signal.SIGTERM)
    if home.wait_free(END_WITHIN_S):
        return
    _signal(home, signal.SIGKILL)
    if not home.wait_free(KILL_WITHIN_S):
        raise GossipcacheError(f"the node on {home.path} does not end", "look at its process")


def _signal(home: Home, number: signal.Signals) -> None:
    running = home.running()
    if running is not None and home.is_held():
        try:
            os.kill(running.pid, number)
        except ProcessLookupError:
            pass


def _status_lines(status: dict[str, Any]) -> list[str]:
    since = time.strftime("%H:%M:%S", time.gmtime(status["uptime_s"] % 86400))
    return [
        f"node     {status['name']} {status['id']}",
        f"version  {status['version']}, process {status['pid']}",
        f"listens  {status['listen'] or 'on no network port'} ({', '.join(status['roles'])})",
        f"members  {status['members_alive']} alive",
        f"store    {status['tasks']} tasks, {format_size(status['store_bytes'])}",
        f"keeps    {status['records']} records of tasks",
        f"up       {int(status['uptime_s'] // 86400)} d {since}",
    ]
