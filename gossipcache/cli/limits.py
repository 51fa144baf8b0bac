"""How much the running node may send and receive: limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from gossipcache.cli.context import RATE, Shared, pass_shared, shared_options, task_name
from gossipcache.client import task_path
from gossipcache.units import format_size


@click.command("limits")
@click.option("-i", "--cid", help="Limits of this task alone.")
@click.option("-t", "--tag", default="", help="Tells tasks of one cid apart.")
@click.option("--upload-rate", type=RATE, help="What is sent; none: no limit.")
@click.option("--download-rate", type=RATE, help="What is fetched.")
@click.option("--task-upload-rate", type=RATE, help="What is sent of each task by itself.")
@click.option("--task-download-rate", type=RATE, help="What is fetched of each task by itself.")
@click.option("--max-uploads", type=click.IntRange(1), help="Pieces sent at once.")
@click.option("--reset", is_flag=True, help="With -i: what holds for each task holds again.")
@shared_options
@pass_shared
def limits_command(shared: Shared, /, cid: str | None, tag: str, **wanted: Any) -> None:
    """Show or change how much the running node sends and fetches.

    A change holds at once, also for what is under way, until the node ends; the settings of
    the same names hold from its next start. Control messages are never held back.
    """
    reset = wanted.pop("reset")
    given = {name: value for name, value in wanted.items() if value is not None}
    client = shared.client()
    if cid is None:
        if reset or tag:
            raise click.UsageError("--reset and -t are for one task: give -i CID.")
        method = "PUT" if given else "GET"
        result = client.call(method, "/v1/limits", body=given or None)
    else:
        _check_of_task(given, reset)
        path = task_path(cid, "limits")
        if reset:
            result = client.call("DELETE", path, query={"tag": tag})
        elif given:
            result = client.call("PUT", path, query={"tag": tag}, body=given)
        else:
            result = client.call("GET", "/v1/limits")
    shared.show(result, lambda: _lines(result))


def _check_of_task(given: dict[str, object], reset: bool) -> None:
    for name in given:
        if name not in ("upload_rate", "download_rate"):
            raise click.UsageError(f"--{name.replace('_', '-')} is no limit of one task.")
    if given and reset:
        raise click.UsageError("--reset takes no rates beside it.")


def _lines(found: dict[str, Any]) -> Iterator[str]:
    for way in ("upload", "download"):
        whole, each = found[f"{way}_rate"], found[f"task_{way}_rate"]
        yield f"{way:<8}  {_rate(whole)}, each task {_rate(each)}"
    running, waiting = found["uploads_running"], found["uploads_waiting"]
    yield f"uploads   {running} running, {waiting} waiting, {found['max_uploads']} at most at once"
    for task in found["tasks"]:
        up, down = _rate(task["upload_rate"]), _rate(task["download_rate"])
        yield f"{task_name(task)}: upload {up}, download {down}"


def _rate(rate: int | None) -> str:
    return "no limit" if rate is None else f"{format_size(rate)}/s"
