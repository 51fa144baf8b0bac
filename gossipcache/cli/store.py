"""Housekeeping of this node's store: ls, pin, unpin, gc, verify."""

from __future__ import annotations

from typing import Any

import click

from gossipcache.cli.context import (
    Shared,
    cid_option,
    named_task,
    no_start_option,
    pass_shared,
    positionals,
    shared_options,
    table,
    task_fields,
    task_name,
    task_options,
)
from gossipcache.client import task_path
from gossipcache.errors import IntegrityError, from_code
from gossipcache.units import format_size


@click.command("ls")
@no_start_option
@shared_options
@pass_shared
def ls_command(shared: Shared, no_start: bool) -> None:
    """List the tasks held by this node."""
    listed = shared.client(may_start=not no_start).call("GET", "/v1/tasks")
    header = ("CID", "TAG", "SIZE", "COMPLETE", "PINNED", "LAST USE", "EXPIRES")
    shared.show(listed, lambda: table(header, map(_row, listed["tasks"])))


@click.command("pin")
@cid_option
@task_options
@shared_options
@click.argument("name", nargs=-1, metavar="[CID]")
@pass_shared
def pin_command(
    shared: Shared,
    cid: str | None,
    tag: str,
    digest: str | None,
    publisher: str | None,
    name: tuple[str, ...],
) -> None:
    """Never evict this node's copy of a task."""
    _set_pin(shared, "PUT", named_task(name, cid), task_fields(tag, digest, publisher))


@click.command("unpin")
@cid_option
@task_options
@shared_options
@click.argument("name", nargs=-1, metavar="[CID]")
@pass_shared
def unpin_command(
    shared: Shared,
    cid: str | None,
    tag: str,
    digest: str | None,
    publisher: str | None,
    name: tuple[str, ...],
) -> None:
    """Let this node's copy of a task be evicted again."""
    _set_pin(shared, "DELETE", named_task(name, cid), task_fields(tag, digest, publisher))


@click.command("gc")
@click.option("--dry-run", is_flag=True, help="Show what would go.")
@shared_options
@pass_shared
def gc_command(shared: Shared, dry_run: bool) -> None:
    """Evict what quota and idle time say; never the last copy of the cluster."""
    result = shared.client().call("POST", "/v1/gc", body={"dry_run": dry_run})
    verb = "would remove" if dry_run else "removed"
    shared.show(
        result,
        lambda: [
            f"{verb} {len(result['removed'])} task(s), {format_size(result['freed_bytes'])}",
            f"kept {result['kept_last_copies']} last copies",
        ],
    )


@click.command("verify")
@cid_option
@task_options
@shared_options
@click.argument("name", nargs=-1, metavar="[CID]")
@pass_shared
def verify_command(
    shared: Shared,
    cid: str | None,
    tag: str,
    digest: str | None,
    publisher: str | None,
    name: tuple[str, ...],
) -> None:
    """Re-hash one task or all; bad pieces are dropped and fetched again from peers (exit 6)."""
    (cid,) = positionals(name, cid=cid)
    body = {"cid": cid} | task_fields(tag, digest, publisher)
    result = shared.client().call("POST", "/v1/verify", body=body)
    shared.show(result, lambda: _verify_lines(result))
    if result["bad"]:
        rotten = sum(len(task["bad"]) for task in result["rotten"])
        repaired = sum(len(task["bad"]) for task in result["rotten"] if task["repaired"])
        raise IntegrityError(
            f"{rotten} piece(s) on this node's disk were not what they were when stored"
            f" ({repaired} repaired from peers)",
            "check the disk; export the task again to fetch what is missing",
        )
    if result["unchecked"]:
        first = result["unchecked"][0]
        raise from_code(
            first["code"],
            f"{len(result['unchecked'])} task(s) could not be checked: {first['cause']}",
            "mend that, then run `gossipcache verify` again",
        )


def _set_pin(shared: Shared, method: str, cid: str, query: dict[str, object]) -> None:
    result = shared.client().call(method, task_path(cid, "pin"), query=query)
    state = "pinned" if result["pinned"] else "not pinned"
    shared.show(result, lambda: [f"{result['cid']}: {state}"])


def _row(task: dict[str, Any]) -> tuple[object, ...]:
    complete = "yes" if task["complete"] else f"{task['pieces_present']}/{task['pieces']}"
    return (
        task["cid"],
        task["tag"] or "-",
        format_size(task["size"]),
        complete,
        "yes" if task["pinned"] else "no",
        _time(task["last_use"]),
        _time(task["expires_at"]),
    )


def _time(seconds: float | None) -> str:
    from datetime import UTC, datetime

    return "-" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%SZ}"


def _verify_lines(result: dict[str, Any]) -> list[str]:
    lines = [f"checked {result['checked']} task(s), {len(result['rotten'])} with bad pieces"]
    for task in result["rotten"]:
        bad = len(task["bad"])
        lines.append(f"{task_name(task)}: {bad} bad, {bad if task['repaired'] else 0} repaired")
    lines += [f"{task_name(task)}: not checked: {task['cause']}" for task in result["unchecked"]]
    return lines
