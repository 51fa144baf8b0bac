"""A node on this machine: its home opened and locked, its key and cluster read, served.

The process of its own (`gossipcache.daemon`) and the library (`gossipcache.open_node`) both
run a node through this.
"""

from __future__ import annotations

import errno
import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from gossipcache.cluster import LOOPBACK, Cluster
from gossipcache.errors import GossipcacheError, NotPermitted, UsageError, from_os_error
from gossipcache.home import Home
from gossipcache.identity import Identity
from gossipcache.ids import Address
from gossipcache.keyfiles import ClusterFile
from gossipcache.machine import real_env
from gossipcache.node.node import Node
from gossipcache.settings import Settings, check_exposure

_ADDRESS_ERRORS = frozenset((errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT))

LEAVE_S = 2.0
"""How long a node that ends tries to tell its members."""


def check_home(home: Home, settings: Settings) -> ClusterFile | None:
    """Makes or checks the home, and that the settings may be used; returns its cluster."""
    home.prepare()
    cluster = home.cluster()
    check_exposure(settings, has_secret=cluster is not None)
    return cluster


@asynccontextmanager
async def running_node(
    home: Home, settings: Settings, *, networked: bool = True
) -> AsyncIterator[Node]:
    """A node that serves inside the block and leaves its cluster in order at the end.

    `networked=False`: it opens no network port. The caller holds the home's lock.
    """
    cluster_file = check_home(home, settings)
    config = settings.node_config(home.path, host_name=platform.node(), networked=networked)
    if cluster_file is not None:
        config = replace(
            config,
            delete_policy=cluster_file.delete_policy,
            admission=cluster_file.admission,
            ticket=home.ticket() if cluster_file.operator_key else b"",
        )
    node = Node(real_env(), config, Identity(home.node_seed()), cluster_of(cluster_file))
    async with trio.open_nursery() as nursery:
        try:
            await nursery.start(node.run)
        except OSError as error:
            raise _cannot_start(config.listen, error) from error
        try:
            yield node
        finally:
            with trio.move_on_after(LEAVE_S, shield=True):
                await node.leave()
            nursery.cancel_scope.cancel()


def cluster_of(file: ClusterFile | None) -> Cluster:
    """What admits this node: the cluster in `file`, or without one the loopback cluster."""
    return LOOPBACK if file is None else Cluster(file.cluster_id, file.secrets, file.operator_key)


def only_error(error: BaseException) -> BaseException:
    """The one error inside nested exception groups, or the group itself if it holds several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _cannot_start(listen: Address | None, error: OSError) -> GossipcacheError:
    if isinstance(error, PermissionError) and not error.filename:
        return NotPermitted(f"may not listen on {listen}", "use a port from 1024")
    if error.errno in _ADDRESS_ERRORS or isinstance(error, trio.socket.gaierror):
        return UsageError(
            f"cannot listen on {listen} ({error.strerror or error})",
            "give another --listen; port 0 picks a free one",
        )
    return from_os_error(error)
