"""The services that make up a node, as its verbs see them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from gossipcache.cluster import Cluster
from gossipcache.config import NodeConfig
from gossipcache.dht.membership.charters import Charters
from gossipcache.dht.membership.service import MembershipService
from gossipcache.dht.records.service import RecordService
from gossipcache.env import Env
from gossipcache.errors import Interrupted, TaskNotFound
from gossipcache.identity import Identity
from gossipcache.ids import NodeId, TaskId
from gossipcache.link.interface import Links
from gossipcache.manifest import SignedManifest
from gossipcache.metrics import Metrics
from gossipcache.node.beside import beside
from gossipcache.node.late_syncs import LateSyncs
from gossipcache.requests import TaskQuery
from gossipcache.schedule.service import AnnounceService
from gossipcache.transfer.download.downloads import Downloads
from gossipcache.transfer.limits import TransferLimits
from gossipcache.transfer.store.store import Store

R = TypeVar("R")


@dataclass(frozen=True)
class Services:
    """Everything a verb works with; owned and run by `Node`."""

    env: Env
    config: NodeConfig
    identity: Identity
    cluster: Cluster
    metrics: Metrics
    links: Links
    membership: MembershipService
    charters: Charters
    records: RecordService
    announcer: AnnounceService
    store: Store
    downloads: Downloads
    limits: TransferLimits
    late_syncs: LateSyncs
    show_ticket: Callable[[bytes], None]
    """Has this node present another ticket of the operator."""
    one_round: trio.Lock = field(default_factory=trio.Lock)
    """Held by the round of small files that is read or written: two at once would hand the
    interpreter's lock to and fro at each call of the system."""
    unsettled: dict[TaskId, None] = field(default_factory=dict)
    """Tasks whose import ended before it was known whether their record stands."""

    @property
    def me(self) -> NodeId:
        """This node's id."""
        return self.identity.node_id

    def keepers(self, task_id: TaskId) -> tuple[NodeId, ...]:
        """The owner and replicas of a task on this node's view of the ring."""
        return self.membership.ring.keepers(task_id, self.config.records.replicas)

    def name_of(self, node: NodeId) -> str:
        """A member's name, or its id in hex where this node does not know it."""
        member = self.membership.member(node)
        return member.name if member is not None else node.hex()

    async def run_abandonable(self, work: Callable[[Callable[[], None]], R]) -> R:
        """Runs `work(check)` in a worker; `check` raises there once the caller was cancelled."""
        abandoned = False

        def check() -> None:
            if abandoned:
                raise Interrupted("the work was cancelled")

        async def watch() -> None:
            nonlocal abandoned
            try:
                await trio.sleep_forever()
            finally:
                abandoned = True

        return await beside(watch, lambda: self.env.workers.run(lambda: work(check)))


def fits(query: TaskQuery, found: SignedManifest) -> bool:
    """Whether `found` is what `query` means: its pinned digest and publisher, if any."""
    if query.digest is not None and found.manifest.digest != query.digest.lower():
        return False
    return query.publisher is None or found.publisher.hex() == query.publisher.lower()


def not_found(query: TaskQuery, why: str) -> TaskNotFound:
    """The error for a task that cannot be had, naming it as the user did."""
    name = f"{query.cid!r}" + (f" with tag {query.tag!r}" if query.tag else "")
    return TaskNotFound(f"no task {name} ({why})")
