"""The cluster as this node sees it, and the key that admits nodes to it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from gossipcache.cli.context import (
    DURATION,
    Shared,
    cid_option,
    pass_shared,
    positionals,
    shared_options,
    table,
)
from gossipcache.cli.operator import (
    admission_option,
    operator_group,
    revoke_command,
    settings_group,
    ticket_group,
    with_operator,
)
from gossipcache.client import ControlClient
from gossipcache.errors import Conflict, UsageError
from gossipcache.home import cluster_exists, existing_cluster
from gossipcache.keyfiles import (
    RotationStep,
    decode_cluster,
    encode_cluster,
    new_cluster,
    read_private,
    write_private,
)
from gossipcache.launch import await_listening

EXPECT_TIMEOUT_S = 10.0
SHORTEST_WAIT_S = 0.1

_ROTATED = {
    "begin": "made a new secret, accepted but not used yet",
    "switch": "the other secret is the one used now",
    "finish": "dropped the secret not used",
}
_NEXT = {
    "begin": ", then run `rotate --switch`",
    "switch": ", then `rotate --finish`",
    "finish": "",
}


@click.command("members")
@click.option("--expect", type=click.IntRange(min=1), help="Wait until exactly N are alive.")
@click.option("--timeout", type=DURATION, help="How long to wait, also for the node to come up.")
@shared_options
@pass_shared
def members_command(shared: Shared, expect: int | None, timeout: float | None) -> None:
    """List the members of the cluster; with --expect exit 5 if N is not reached."""
    client = ControlClient(shared.home)
    query: dict[str, object] = {}
    if expect is not None and timeout is None:
        timeout = EXPECT_TIMEOUT_S
    if timeout is not None:
        deadline = time.monotonic() + timeout
        await_listening(client, timeout)
        timeout = max(SHORTEST_WAIT_S, deadline - time.monotonic())
    if expect is not None:
        query = {"expect": expect, "timeout_s": timeout}
    view = client.call("GET", "/v1/members", query=query, timeout_s=timeout)
    header = ("NAME", "STATE", "ADDRESS", "ROLES", "ZONE", "INCARNATION", "ID")
    shared.show(view, lambda: table(header, sorted(map(_member_row, view["members"]))))


@click.command("ring")
@cid_option
@click.option("-t", "--tag", default="", help="Tells tasks of one cid apart.")
@shared_options
@click.argument("name", nargs=-1, metavar="[CID]")
@pass_shared
def ring_command(shared: Shared, cid: str | None, tag: str, name: tuple[str, ...]) -> None:
    """Show each scheduler's share of the ring; with a cid, who keeps its record."""
    (cid,) = positionals(name, cid=cid)
    view = ControlClient(shared.home).call("GET", "/v1/ring", query={"cid": cid, "tag": tag})
    shared.show(view, lambda: _ring_lines(view, with_task=cid is not None))


@click.group("cluster")
def cluster_group() -> None:
    """Make and carry the key that admits nodes to a cluster."""


@cluster_group.command("init")
@click.option("--delete-policy", type=click.Choice(("any", "publisher")), default="any",
              help="Who may delete: any member, or the publisher only.")  # fmt: skip
@click.option("--operator", metavar="PATH", help="Also make an operator's key at PATH (0600).")
@admission_option
@shared_options
@pass_shared
def init_command(shared: Shared, delete_policy: Any, operator: str | None, admission: Any) -> None:
    """Make a new cluster's key in this home; the first step before listening beyond loopback."""
    home = shared.home
    home.prepare()
    if home.cluster_path.exists():
        raise cluster_exists(home)
    cluster = new_cluster(delete_policy)
    if operator is not None:
        cluster = with_operator(cluster, operator, admission)
    elif admission == "ticket":
        raise UsageError("tickets need an operator", "give --operator PATH too")
    home.write_cluster(cluster, replace=False)
    result = {
        "path": str(home.cluster_path),
        "cluster_id": cluster.cluster_id.hex(),
        "delete_policy": delete_policy,
        "operator_key": cluster.operator_key.hex(),
        "admission": admission,
    }
    shared.show(
        result,
        lambda: [
            f"made cluster {cluster.cluster_id.hex()}; its key is {home.cluster_path}",
            "copy that file to the other machines by a safe way, and there run:",
            "  gossipcache cluster key import FILE",
        ],
    )


@cluster_group.group("key")
def key_group() -> None:
    """The cluster's key file."""


@key_group.command("make")
@click.option("-O", "--output", "target", required=True, metavar="PATH", help="Must not exist.")
@shared_options
@pass_shared
def make_command(shared: Shared, target: str) -> None:
    """Make a new cluster's key at PATH (0600), for `key import` on every node."""
    path = Path(target).absolute()
    if path.exists():
        raise Conflict(f"{path} exists already", "give another -O PATH")
    write_private(path, encode_cluster(new_cluster()))
    shared.show({"path": str(path)}, lambda: [str(path)])


@key_group.command("show-path")
@shared_options
@pass_shared
def show_path_command(shared: Shared) -> None:
    """Print where the key file is, never the key."""
    existing_cluster(shared.home)
    path = shared.home.cluster_path
    if shared.asked_format == "json":
        shared.show({"path": str(path)}, list)
    else:
        click.echo(path)


@key_group.command("rotate")
@click.option("--switch", "step", flag_value="switch", help="Second step: use the new secret.")
@click.option("--finish", "step", flag_value="finish", help="Last step: drop the one not used.")
@shared_options
@pass_shared
def rotate_command(shared: Shared, step: RotationStep | None) -> None:
    """Replace the secret in three steps, without an outage: accept a new one, --switch to it,
    --finish. After each, import the file on every other node and restart the nodes one by one.
    """
    home = shared.home
    cluster = existing_cluster(home)
    step = step or "begin"
    home.write_cluster(cluster.rotated(step), replace=True)
    shared.show(
        {"path": str(home.cluster_path), "cluster_id": cluster.cluster_id.hex(), "step": step},
        lambda: [
            f"{_ROTATED[step]}: {home.cluster_path}",
            "import this file on every other node, restart the nodes one by one" + _NEXT[step],
        ],
    )


@key_group.command("import")
@click.argument("file")
@click.option("--replace", is_flag=True, help="Leave the cluster this home belongs to.")
@shared_options
@pass_shared
def import_key_command(shared: Shared, file: str, replace: bool) -> None:
    """Take a cluster's key from FILE (- for stdin) into this home."""
    data = sys.stdin.buffer.read(64 * 1024) if file == "-" else _key_file(file)
    cluster = decode_cluster(data, file)
    home = shared.home
    home.prepare()
    present = home.cluster()
    is_same = present is not None and present.cluster_id == cluster.cluster_id
    home.write_cluster(cluster, replace=replace or is_same)
    shared.show(
        {"path": str(home.cluster_path), "cluster_id": cluster.cluster_id.hex()},
        lambda: [f"this home belongs to cluster {cluster.cluster_id.hex()}; restart its node"],
    )


for _group in (operator_group, ticket_group, settings_group, revoke_command):
    cluster_group.add_command(_group)


def _key_file(file: str) -> bytes:
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"there is no file {file}", "give the cluster.key of another node")
    return read_private(path)


def _member_row(member: dict[str, Any]) -> tuple[object, ...]:
    return (
        member["name"],
        member["state"],
        member["address"],
        ",".join(member["roles"]),
        member["zone"] or "-",
        member["incarnation"],
        member["id"],
    )


def _ring_lines(view: dict[str, Any], *, with_task: bool) -> list[str]:
    lines = [f"epoch {view['epoch']}"]
    rows = ((node["name"], f"{node['share']:.1%}", node["id"]) for node in view["schedulers"])
    lines += table(("NAME", "SHARE", "ID"), rows)
    if with_task:
        lines.append(f"owner {view['owner']}, replicas {', '.join(view['replicas']) or 'none'}")
    return lines
