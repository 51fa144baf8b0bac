"""What a cluster's operator does: make the key, give tickets, change settings, revoke.

The key signs on the machine where the command runs; no node ever sees it. What signs is
imported by the commands that need it only: it would slow down the start of all others.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gossipcache.cli.context import DURATION, Shared, pass_shared, shared_options
from gossipcache.client import ControlClient
from gossipcache.errors import Conflict, NotPermitted, UsageError
from gossipcache.home import existing_cluster
from gossipcache.keyfiles import (
    SEED_BYTES,
    ClusterFile,
    decode_ticket,
    encode_ticket,
    read_seed,
    write_private,
)

if TYPE_CHECKING:
    from gossipcache.identity import Identity

DEFAULT_TTL = "90d"
ROLES = ("peer", "scheduler")
SETTINGS = {"delete_policy": ("any", "publisher"), "admission": ("secret", "ticket")}
_KEY_HINT = "it is the file that `cluster operator make` or `cluster init --operator` made"

operator_key_option = click.option(
    "--operator-key", required=True, metavar="FILE", help="The operator's key; it is only read."
)
admission_option = click.option(
    "--admission", type=click.Choice(SETTINGS["admission"]), default="secret",
    help="Whether the secret alone admits (as a peer), or only with a ticket.",
)  # fmt: skip


def with_operator(cluster: ClusterFile, target: str, admission: Any) -> ClusterFile:
    """`cluster` with a new operator, whose key is made at `target` (0600). Raises `Conflict`."""
    path = Path(target).absolute()
    if cluster.operator_key:
        raise Conflict("this cluster has an operator already", "begin a new cluster for another")
    if path.exists():
        raise Conflict(f"{path} exists already", "give another path")
    seed = os.urandom(SEED_BYTES)
    write_private(path, seed.hex().encode() + b"\n")
    return replace(cluster, operator_key=_identity(seed).public_key, admission=admission)


@click.group("operator")
def operator_group() -> None:
    """The key above all nodes of a cluster."""


@operator_group.command("make")
@click.option("-O", "--output", "target", required=True, metavar="PATH", help="Must not exist.")
@admission_option
@shared_options
@pass_shared
def make_operator_command(shared: Shared, target: str, admission: str) -> None:
    """Make an operator's key at PATH (0600) and name it in this home's cluster key. Take the
    key off this machine, import the cluster key on every node, and restart the nodes."""
    home = shared.home
    cluster = with_operator(existing_cluster(home), target, admission)
    home.write_cluster(cluster, replace=True)
    shared.show(
        {"path": target, "operator_key": cluster.operator_key.hex(), "admission": admission},
        lambda: [
            f"made the operator's key {target}; keep it off the nodes, whoever has it rules",
            f"import {home.cluster_path} on every other node and restart the nodes",
        ],
    )


@click.group("ticket")
def ticket_group() -> None:
    """What admits one node, signed by the operator."""


@ticket_group.command("make")
@click.argument("node", metavar="NODE")
@click.option("--role", "roles", multiple=True, type=click.Choice(ROLES), help="Default: both.")
@click.option("--ttl", type=DURATION, default=DEFAULT_TTL, help="How long it is valid.",
              show_default=True)  # fmt: skip
@click.option("-O", "--output", "target", metavar="PATH", help="Default: stdout.")
@operator_key_option
@shared_options
@pass_shared
def make_ticket_command(
    shared: Shared,
    node: str,
    roles: tuple[Any, ...],
    ttl: float,
    target: str | None,
    operator_key: str,
) -> None:
    """Make a ticket for a node's public key (`gossipcache node key`) or id. A newer ticket of a
    node takes the place of the older one."""
    cluster = existing_cluster(shared.home)
    operator = _operator(operator_key, cluster.operator_key)
    from gossipcache.charter import Ticket, sign_ticket

    now = time.time()
    ticket = Ticket(
        cluster_id=cluster.cluster_id,
        node_id=_node_id(node),
        roles=roles or ROLES,
        not_before=int(now),
        expires_at=int(now + ttl),
        serial=_serial(),
    )
    text = encode_ticket(sign_ticket(ticket, operator), _shown(ticket))
    if target is None:
        click.echo(text, nl=False)
        return
    write_private(Path(target).absolute(), text)
    shared.show({"path": target, **_shown(ticket)}, lambda: [f"{target}: serial {ticket.serial}"])


@ticket_group.command("import")
@click.argument("file")
@shared_options
@pass_shared
def import_ticket_command(shared: Shared, file: str) -> None:
    """Take this node's ticket from FILE (- for stdin); a running node uses it at once."""
    from gossipcache.charter import ticket_for

    home = shared.home
    cluster = existing_cluster(home)
    with click.open_file(file, "rb") as source:
        data: bytes = source.read(64 * 1024)
    ticket = decode_ticket(data, file)
    me = _identity(home.node_seed()).node_id
    found = ticket_for(ticket, cluster.operator_key, cluster.cluster_id, me)
    write_private(home.ticket_path, data)
    if home.is_held():
        ControlClient(home).call("PUT", "/v1/ticket", body={"ticket": ticket.hex()})
    shared.show(_shown(found), lambda: [f"{home.ticket_path}: valid until {_date(found)}"])


@click.group("settings")
def settings_group() -> None:
    """What holds for the whole cluster, by word of its operator."""


@settings_group.command("show")
@shared_options
@pass_shared
def show_settings_command(shared: Shared) -> None:
    """Show the settings and the revoked, as this home's node knows them."""
    view = ControlClient(shared.home).call("GET", "/v1/charter")
    shared.show(view, lambda: _charter_lines(view))


@settings_group.command("set")
@click.argument("changes", nargs=-1, required=True, metavar="NAME=VALUE...")
@operator_key_option
@shared_options
@pass_shared
def set_command(shared: Shared, changes: tuple[str, ...], operator_key: str) -> None:
    """Change delete_policy (any, publisher) or admission (secret, ticket) on all nodes."""
    _amend(shared, operator_key, dict(map(_setting, changes)))


@click.command("revoke")
@click.argument("names", nargs=-1, required=True, metavar="NODE|SERIAL...")
@operator_key_option
@shared_options
@pass_shared
def revoke_command(shared: Shared, names: tuple[str, ...], operator_key: str) -> None:
    """Put nodes out (by id or public key, with all tickets up to now), or void single tickets.
    A ticket that is made later admits the node again."""
    from gossipcache.charter import RevokedNode

    serials = [int(name) for name in names if _is_serial(name)]
    nodes = [RevokedNode(_node_id(name), _serial()) for name in names if not _is_serial(name)]
    _amend(shared, operator_key, {"revoked_nodes": nodes, "revoked_serials": serials})


def _amend(shared: Shared, operator_key: str, changes: dict[str, Any]) -> None:
    """Signs the cluster's next charter and gives it to this home's node."""
    from gossipcache.charter import amended, first_charter, open_charter, sign_charter
    from gossipcache.identity import Signed
    from gossipcache.wire import decode, encode

    cluster = existing_cluster(shared.home)
    operator = _operator(operator_key, cluster.operator_key)
    client = ControlClient(shared.home)
    view = client.call("GET", "/v1/charter", query={"fresh": True})
    if view["signed"]:
        signed = decode(bytes.fromhex(view["signed"]), Signed)
        present = open_charter(signed, cluster.operator_key, cluster.cluster_id)
    else:
        present = first_charter(cluster.cluster_id, cluster.admission, cluster.delete_policy)
    charter = amended(present, view["number"] + 1, int(time.time()), **changes)
    body = {"signed": encode(sign_charter(charter, operator)).hex()}
    view = client.call("PUT", "/v1/charter", body=body)
    shared.show(view, lambda: _charter_lines(view))


def _operator(file: str, public_key: bytes) -> Identity:
    if not public_key:
        raise NotPermitted(
            "this home's cluster has no operator", "make one with `cluster operator make`"
        )
    operator = _identity(read_seed(Path(file), _KEY_HINT))
    if operator.public_key != public_key:
        raise NotPermitted(f"{file} is not the key of this cluster's operator", _KEY_HINT)
    return operator


def _identity(seed: bytes) -> Identity:
    from gossipcache.identity import Identity

    return Identity(seed)


def _node_id(name: str) -> bytes:
    if not re.fullmatch("[0-9a-fA-F]{32}|[0-9a-fA-F]{64}", name):
        raise UsageError(
            f"{name!r} is neither a public key nor a node's id",
            "`gossipcache node key` on that machine, or `gossipcache members`, shows it",
        )
    from gossipcache.ids import node_id_of

    given = bytes.fromhex(name)
    return node_id_of(given) if len(given) == 32 else given


def _serial() -> int:
    """Rises from ticket to ticket without a ledger: microseconds since 1970."""
    return time.time_ns() // 1000


def _is_serial(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 20


def _setting(change: str) -> tuple[str, str]:
    name, _, value = change.partition("=")
    if value not in SETTINGS.get(name, ()):
        known = "; ".join(f"{name}={'|'.join(values)}" for name, values in SETTINGS.items())
        raise UsageError(f"{change!r} is no setting of a cluster", f"use {known}")
    return name, value


def _shown(ticket: Any) -> dict[str, object]:
    return {
        "node": ticket.node_id.hex(),
        "roles": list(ticket.roles),
        "not_before": ticket.not_before,
        "expires_at": ticket.expires_at,
        "serial": ticket.serial,
    }


def _date(ticket: Any) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(ticket.expires_at))


def _charter_lines(view: dict[str, Any]) -> list[str]:
    lines = [
        f"charter        {view['number'] or 'none yet'}",
        f"operator       {view['operator_key'] or 'none'}",
        f"admission      {view['admission']}",
        f"delete_policy  {view['delete_policy']}",
    ]
    lines += [f"revoked node   {node}" for node in view["revoked_nodes"]]
    lines += [f"void ticket    {serial}" for serial in view["revoked_serials"]]
    return lines
