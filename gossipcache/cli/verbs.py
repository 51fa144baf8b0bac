"""The four verbs: import, stat, export, delete."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from gossipcache.cli.bar import ProgressBar
from gossipcache.cli.context import (
    DURATION,
    Shared,
    cid_option,
    named_task,
    no_start_option,
    pass_shared,
    positionals,
    required,
    shared_options,
    task_fields,
    task_name,
    task_options,
    tell,
)
from gossipcache.client import ControlClient, task_path
from gossipcache.errors import PartlyDone, TaskNotFound
from gossipcache.ids import checked_name
from gossipcache.units import format_size

STDIN_BYTES = 1024 * 1024


@click.command("import")
@click.option("-i", "--cid", help="Content id; default: made from the content.")
@click.option("-t", "--tag", default="", help="Tells tasks of one cid apart.")
@click.option("-I", "--input", "source", metavar="PATH", help="File, folder, or - for stdin.")
@click.option("--ttl", type=DURATION, help="Drop it everywhere after this long.")
@click.option("--replicas", type=click.IntRange(1, 1000), default=1, help="Copies wanted.")
@click.option("--pin", is_flag=True, help="Never evict this node's copy.")
@click.option("--link", is_flag=True, help="Hard link the file into the store, do not copy it.")
@click.option("--timeout", type=DURATION, default=0.0, help="Give up after this long (0: never).")
@no_start_option
@shared_options
@click.argument("path", nargs=-1)
@pass_shared
def import_command(
    shared: Shared,
    cid: str | None,
    tag: str,
    source: str | None,
    ttl: float | None,
    replicas: int,
    pin: bool,
    link: bool,
    timeout: float,
    no_start: bool,
    path: tuple[str, ...],
) -> None:
    """Put a file, a folder or stdin into the cache.

    Without -i the cid is sha256:HEX of the content (of a folder: tree:HEX of its listing).
    """
    (given,) = positionals(path, source=source)
    source = required(given, "the file", "PATH or -I PATH")
    if cid is not None:
        checked_name(cid, tag)
    wanted: dict[str, object] = {
        "cid": cid,
        "tag": tag,
        "ttl_s": ttl,
        "replicas": replicas,
        "pin": pin,
        "link": link,
        "timeout_s": timeout,
    }
    client = shared.client(may_start=not no_start)
    with ProgressBar("import", enabled=shared.shows_progress) as bar:
        if source == "-":
            parts = _stdin_parts(bar)
            result = client.upload("/v1/tasks", query=wanted, parts=parts, on_progress=bar)
        else:
            named = wanted | {"path": os.path.abspath(source)}
            result = client.run("/v1/tasks", body=named, on_progress=bar)
    shared.show(result, lambda: _import_lines(result))


@click.command("stat")
@cid_option
@task_options
@click.option("-l", "--local", is_flag=True, help="Ask this node's store only.")
@click.option("--timeout", type=DURATION, default=10.0, help="Give up after this long (0: never).")
@no_start_option
@shared_options
@click.argument("name", nargs=-1, metavar="[CID]")
@pass_shared
def stat_command(
    shared: Shared,
    cid: str | None,
    tag: str,
    digest: str | None,
    publisher: str | None,
    local: bool,
    timeout: float,
    no_start: bool,
    name: tuple[str, ...],
) -> None:
    """Show a task: exit 0 if it can be had, 3 if not."""
    cid = named_task(name, cid)
    query = task_fields(tag, digest, publisher) | {"local": local, "timeout_s": timeout}
    client = shared.client(may_start=not no_start)
    found = client.call("GET", task_path(cid), query=query, timeout_s=timeout or None)
    if local and not found["local"]["complete"]:
        raise TaskNotFound(f"{cid} is not complete on this node", "leave out --local, or export it")
    for warning in found["warnings"]:
        shared.say(f"warning: {warning}")
    shared.show(found, lambda: _stat_lines(found))


@click.command("export")
@cid_option
@task_options
@click.option("-O", "--output", "target", metavar="PATH", help="Where to write; - for stdout.")
@click.option("-l", "--local", is_flag=True, help="Use this node's store only.")
@click.option("--overwrite", is_flag=True, help="Replace what is at PATH.")
@click.option("--link", is_flag=True, help="Make a hard link of the cache's read-only file.")
@click.option("--sync", is_flag=True, help="Wait until the output would survive a power cut.")
@click.option("--timeout", type=DURATION, default=0.0, help="Give up after this long (0: never).")
@no_start_option
@shared_options
@click.argument("name", nargs=-1, metavar="[CID] [PATH]")
@pass_shared
def export_command(
    shared: Shared,
    cid: str | None,
    tag: str,
    digest: str | None,
    publisher: str | None,
    target: str | None,
    local: bool,
    overwrite: bool,
    link: bool,
    sync: bool,
    timeout: float,
    no_start: bool,
    name: tuple[str, ...],
) -> None:
    """Write a task to a file or folder, whole and verified, or not at all."""
    given, target = positionals(name, cid=cid, target=target)
    cid = required(given, "the task", "-i CID")
    target = required(target, "the output", "-O PATH")
    wanted = task_fields(tag, digest, publisher) | {"local": local, "timeout_s": timeout}
    client = shared.client(may_start=not no_start)
    with ProgressBar("export", enabled=shared.shows_progress) as bar:
        if target == "-":
            _to_stdout(shared, client, cid, wanted, bar)
            return
        wanted |= {
            "path": os.path.abspath(target),
            "overwrite": overwrite,
            "link": link,
            "sync": sync,
            "umask": f"{_umask():03o}",
        }
        result = client.run(task_path(cid, "export"), body=wanted, on_progress=bar)
    shared.show(result, lambda: _export_lines(result))


@click.command("delete")
@cid_option
@task_options
@click.option("-l", "--local", is_flag=True, help="Drop this node's copy only.")
@click.option("--force", is_flag=True, help="With --local: even the cluster's last copy.")
@click.option("--timeout", type=DURATION, default=10.0, help="How long holders may take.")
@no_start_option
@shared_options
@click.argument("name", nargs=-1, metavar="[CID]")
@pass_shared
def delete_command(
    shared: Shared,
    cid: str | None,
    tag: str,
    digest: str | None,
    publisher: str | None,
    local: bool,
    force: bool,
    timeout: float,
    no_start: bool,
    name: tuple[str, ...],
) -> None:
    """Delete a task everywhere; it does not come back by itself."""
    cid = named_task(name, cid)
    query = task_fields(tag, digest, publisher)
    query |= {"local": local, "force": force, "timeout_s": timeout}
    client = shared.client(may_start=not no_start)
    wait_s = timeout + timeout if timeout else None
    result = client.call("DELETE", task_path(cid), query=query, timeout_s=wait_s)
    pending = result["pending"]
    shared.show(result, lambda: [f"deleted {cid}", *(f"pending on {node}" for node in pending)])
    if pending:
        raise PartlyDone(f"{len(pending)} holder(s) did not confirm the deletion in time")


def _stdin_parts(bar: ProgressBar) -> Iterator[bytes]:
    done = 0
    while part := os.read(0, STDIN_BYTES):
        done += len(part)
        yield part
        bar({"phase": "sending", "done_bytes": done, "total_bytes": None})


def _to_stdout(
    shared: Shared, client: ControlClient, cid: str, wanted: dict[str, object], bar: ProgressBar
) -> None:
    size = 0
    path = task_path(cid, "content")
    for part in client.content(path, query=wanted, on_progress=bar):
        sys.stdout.buffer.write(part)
        size += len(part)
    sys.stdout.buffer.flush()
    if shared.asked_format == "json":
        tell(json.dumps({"path": "-", "size": size}))


def _umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def _import_lines(result: dict[str, Any]) -> list[str]:
    state = "was already there" if result["already_present"] else "imported"
    return [
        f"{state}: {task_name(result)}",
        f"size {format_size(result['size'])}, {result['pieces']} pieces, {result['digest']}",
        f"record on {result['record_copies']} keepers, {result['seconds']:.2f} s",
    ]


def _stat_lines(found: dict[str, Any]) -> Iterator[str]:
    yield task_name(found)
    yield f"size       {found['size']} ({format_size(found['size'])}), {found['pieces']} pieces"
    yield f"digest     {found['digest']}"
    yield f"publisher  {found['publisher']}"
    yield f"keepers    {', '.join([found['owner'] or 'unknown', *found['replicas']])}"
    if found["expires_at"] is not None:
        yield f"expires    {datetime.fromtimestamp(found['expires_at'], UTC):%Y-%m-%d %H:%M:%SZ}"
    for holder in found["holders"]:
        part = "complete" if holder["complete"] else f"{holder['pieces']} pieces"
        yield f"holder     {holder['name']} {holder['address']} {part}"


def _export_lines(result: dict[str, Any]) -> Iterator[str]:
    seconds = result["seconds"]
    rate = f", {format_size(result['size'] / seconds)}/s" if seconds > 0 else ""
    yield f"wrote {result['path']}: {format_size(result['size'])} in {seconds:.2f} s{rate}"
    for source in sorted(result["sources"], key=lambda source: str(source["name"])):
        yield f"{format_size(source['size_bytes'])} from {source['name']}"
    if result["resumed_bytes"]:
        yield f"{format_size(result['resumed_bytes'])} were here already"
