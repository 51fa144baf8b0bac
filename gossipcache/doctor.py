"""Checks the whole path of one node, from its key to a round trip of a small file."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gossipcache.client import ControlClient, task_path
from gossipcache.errors import GossipcacheError, IntegrityError, NotPermitted
from gossipcache.home import Home
from gossipcache.ids import parse_address
from gossipcache.launch import read_settings
from gossipcache.settings import check_exposure
from gossipcache.units import format_size

LOW_DISK_BYTES = 2**30
DIAL_TIMEOUT_S = 3.0
MAX_SKEW_S = 60.0
"""Well inside the 5 minutes that the protocol tolerates."""
TICKET_WARNING_S = 7 * 86400.0
TRIP_TIMEOUT_S = 15.0
TRIP_BYTES = 64 * 1024
TRIP_TTL_S = 60.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was found, and for a failure what to do."""

    check: str
    ok: bool
    detail: str
    hint: str = ""


def examine(home: Home) -> Iterator[Finding]:
    """Runs every check that makes sense, in order; a check that fails does not end the others."""
    for name, check in (
        ("home", _home), ("settings", _settings), ("key", _key), ("ticket", _ticket),
        ("disk", _disk),
    ):  # fmt: skip
        yield _run(name, lambda check=check: check(home))  # type: ignore[misc]
    client = ControlClient(home)
    node = _run("node", lambda: _node(client))
    yield node
    if node.ok:
        yield from _members(client)
        yield from _clocks(client)
        yield _run("round trip", lambda: _round_trip(client))


def _run(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except GossipcacheError as error:
        return Finding(name, False, error.message, error.hint)
    except OSError as error:
        return Finding(name, False, str(error), "check the folder's owner, mode and mount")


def _home(home: Home) -> str:
    home.prepare()
    return f"{home.path}, mode 0700"


def _settings(home: Home) -> str:
    cluster = home.cluster()
    check_exposure(read_settings(home, {}), has_secret=cluster is not None)
    return f"cluster {cluster.cluster_id.hex()}" if cluster else "no cluster secret: loopback only"


def _key(home: Home) -> str:
    home.node_seed()
    return f"{home.key_path}, mode 0600"


def _ticket(home: Home) -> str:
    cluster = home.cluster()
    if cluster is None or not cluster.operator_key:
        return "none is needed: no operator"
    from gossipcache.charter import ticket_for
    from gossipcache.identity import Identity

    ticket, hint = home.ticket(), "ask the operator, then `gossipcache cluster ticket import`"
    if not ticket and cluster.admission == "secret":
        if "scheduler" in read_settings(home, {})["roles"]:
            raise NotPermitted("this node has none, so that it is no scheduler", hint)
        return "none is needed for a peer"
    if not ticket:
        raise NotPermitted("this node has none, so that it is not admitted", hint)
    me = Identity(home.node_seed()).node_id
    found = ticket_for(ticket, cluster.operator_key, cluster.cluster_id, me)
    left_s = found.expires_at - time.time()
    if left_s < TICKET_WARNING_S:
        when = "has run out" if left_s < 0 else f"runs out in {left_s / 86400:.1f} days"
        raise NotPermitted(f"serial {found.serial} {when}", hint)
    return f"serial {found.serial}, {', '.join(found.roles)}, for {left_s / 86400:.0f} more days"


def _disk(home: Home) -> str:
    sample = secrets.token_bytes(TRIP_BYTES)
    with tempfile.TemporaryFile(dir=home.path) as file:
        file.write(sample)
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        if file.read() != sample:
            raise IntegrityError("the disk does not give back what was written", "replace it")
    free = shutil.disk_usage(home.path).free
    if free < LOW_DISK_BYTES:
        raise GossipcacheError(
            f"only {format_size(free)} free", "free space, or move the home to another disk"
        )
    return f"writes and reads back, {format_size(free)} free"


def _node(client: ControlClient) -> str:
    status: dict[str, Any] = client.call("GET", "/v1/status", timeout_s=DIAL_TIMEOUT_S)
    return f"{status['name']} {status['id']} serves, process {status['pid']}"


def _members(client: ControlClient) -> Iterator[Finding]:
    """Each other member: over UDP by what SWIM's probes say, over TCP by a connection of ours."""
    own = client.call("GET", "/v1/status", timeout_s=DIAL_TIMEOUT_S)["id"]
    for member in client.call("GET", "/v1/members", timeout_s=DIAL_TIMEOUT_S)["members"]:
        if member["id"] == own or member["state"] == "left":
            continue
        who = f"{member['name']} {member['address']}"
        alive = member["state"] == "alive"
        hint = f"is it down? else let UDP through to {member['address']} in both directions"
        yield Finding(f"udp {who}", alive, f"probes say: {member['state']}", "" if alive else hint)
        yield _run(f"tcp {who}", lambda address=member["address"]: _dial(address))  # type: ignore[misc]


def _clocks(client: ControlClient) -> Iterator[Finding]:
    """Each other member's clock: expiries are judged by the reader's own."""
    answer = client.call("GET", "/v1/clocks", timeout_s=DIAL_TIMEOUT_S)
    for view in answer["clocks"]:
        side = "ahead of" if view["skew_s"] > 0 else "behind"
        ok = abs(view["skew_s"]) - view["within_s"] <= MAX_SKEW_S
        detail = f"{abs(view['skew_s']):.1f} s {side} this one (± {view['within_s']:.1f} s)"
        hint = "set both machines' clocks by NTP: announcements of a node too far off are refused"
        yield Finding(f"clock {view['name']}", ok, detail, "" if ok else hint)


def _dial(text: str) -> str:
    address = parse_address(text)
    try:
        socket.create_connection((address.host, address.port), DIAL_TIMEOUT_S).close()
    except OSError as error:
        raise GossipcacheError(
            f"cannot connect ({error.strerror or error})", f"let TCP through to {text}"
        ) from error
    return "connects"


def _round_trip(client: ControlClient) -> str:
    sample = secrets.token_bytes(TRIP_BYTES)
    cid = f"gossipcache-doctor-{secrets.token_hex(8)}"
    wanted: dict[str, object] = {"cid": cid, "ttl_s": TRIP_TTL_S, "timeout_s": TRIP_TIMEOUT_S}
    imported = client.upload("/v1/tasks", query=wanted, parts=[sample])
    try:
        limits: dict[str, object] = {"timeout_s": TRIP_TIMEOUT_S}
        if b"".join(client.content(task_path(cid, "content"), query=limits)) != sample:
            raise IntegrityError("the cache gave back other bytes", "run `gossipcache verify`")
    finally:
        client.call("DELETE", task_path(cid), timeout_s=TRIP_TIMEOUT_S)
    return f"{format_size(TRIP_BYTES)} in and out, record on {imported['record_copies']} keepers"
