"""A process of whole nodes for the membership benchmarks; says what they see of each other.

`python -m bench.member_host FOLDER IP FIRST COUNT [SEED_ADDRESS]` runs the nodes numbered FIRST to
FIRST + COUNT - 1 on free ports of IP. On stdout it writes a JSON line a node when it serves
(`{"node": "n7", "address": "…"}`), and one for each change of a view: `{"at_s": …, "viewer":
"n7", "member": "n3", "state": "dead"}`. `at_s` is the machine's monotonic clock, which its
processes share.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

import trio

from gossipcache.cluster import Cluster, cluster_from_secret
from gossipcache.config import NodeConfig
from gossipcache.identity import SEED_BYTES, Identity
from gossipcache.ids import Address, parse_address
from gossipcache.machine import real_env
from gossipcache.node.node import Node

SECRET = b"a secret of a benchmark, only..."


def cluster() -> Cluster:
    """What admits the nodes of a benchmark: their datagrams are sealed, as in earnest."""
    return cluster_from_secret(SECRET)


async def _host(folder: Path, ip: str, numbers: range, join: tuple[Address, ...]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_with_parent, nursery.cancel_scope)
        for number in numbers:
            nursery.start_soon(_live, folder, ip, f"n{number}", join)


async def _live(folder: Path, ip: str, name: str, join: tuple[Address, ...]) -> None:
    home = folder / name
    home.mkdir(parents=True, exist_ok=True)
    config = NodeConfig(home=home, name=name, listen=Address(ip, 0), join=join, plaintext=True)
    node = Node(real_env(), config, Identity(os.urandom(SEED_BYTES)), cluster())
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        _say(node=name, address=str(node.address))
        await _tell_views(node, name)


async def _tell_views(node: Node, name: str) -> None:
    membership = node.services.membership
    told: dict[str, str] = {}
    seen = -1
    while True:
        seen = await membership.wait_change(seen)
        now = time.monotonic()
        for member in membership.members():
            state = "alive" if member.is_live else member.state
            if told.get(member.name) != state:
                told[member.name] = state
                _say(at_s=now, viewer=name, member=member.name, state=state)


async def _end_with_parent(scope: trio.CancelScope) -> None:
    """Ends the process when its standard input does."""
    await trio.lowlevel.wait_readable(sys.stdin.fileno())
    scope.cancel()


def _say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def main() -> None:
    """Runs the nodes that the command line asks for."""
    folder, ip, first, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    join = tuple(parse_address(text) for text in sys.argv[5:])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # each node has a link to each other
    trio.run(_host, folder, ip, range(first, first + count), join)


if __name__ == "__main__":
    main()
