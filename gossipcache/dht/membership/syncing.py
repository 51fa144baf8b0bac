"""Carries push/pulls over links, those that this node opens and those of others."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

import trio

from gossipcache.admission import Admission
from gossipcache.cluster import Cluster
from gossipcache.dht.membership import sync
from gossipcache.dht.membership.effects import Effect
from gossipcache.dht.membership.pushpull import SYNC_TIMEOUT_S, PushPull, PushPulls
from gossipcache.dht.membership.swim import SwimCore
from gossipcache.errors import GossipcacheError, NotReady
from gossipcache.identity import Signed
from gossipcache.ids import Address, NodeId
from gossipcache.link.interface import Links, Peer
from gossipcache.messages.gossip import (
    Accusation,
    SyncDiff,
    SyncOpen,
    SyncOpened,
    SyncPush,
    SyncRange,
)
from gossipcache.metrics import Metrics

_WARN_EVERY = 30
"""Of so many failures to reach a seed one is told."""

_log = logging.getLogger(__name__)


class Syncing:
    """Both sides of the push/pulls of one node."""

    def __init__(
        self,
        cluster: Cluster,
        links: Links,
        metrics: Metrics,
        admission: Admission,
        on_charter: Callable[[NodeId, int], Awaitable[None]] | None,
        act: Callable[[Iterable[Effect]], None],
    ) -> None:
        """To be made before `links` serves; `act` carries out what the core wants."""
        self._cluster = cluster
        self._links = links
        self._metrics = metrics
        self._admission = admission
        self._on_charter = on_charter
        self._act = act
        self._core: SwimCore | None = None
        self._push_pulls: PushPulls | None = None
        self._seed_failures: dict[Address, int] = {}
        self.joined = trio.Event()
        """Set once a seed or another member has answered, or at once if the node has no seeds."""
        links.handle(SyncOpen, self._answer_open)
        links.handle(SyncRange, self._answer_range)
        links.handle(SyncPush, self._take_push)

    def begin(self, core: SwimCore, seeds: tuple[Address, ...]) -> None:
        """From now on this node has a view, and is to join by `seeds`."""
        self._core = core
        self._push_pulls = PushPulls(core, self._cluster.cluster_id, seeds)
        if not seeds:
            self.joined.set()

    async def sync(self, node: NodeId) -> None:
        """A push/pull that this node opens; a failure is met by the next one."""
        push_pulls = self._running
        push_pull = push_pulls.begin(node)
        if push_pull is None:
            return
        try:
            opening = push_pulls.opening(self._admission.number)
            opened = await self._links.request(node, opening, SyncOpened, SYNC_TIMEOUT_S)
            await self._carry(push_pull, node, opened)
            self.joined.set()
        except GossipcacheError:
            self._metrics.count("syncs_failed")
        finally:
            push_pulls.end(push_pull)

    async def join(self, seed: Address) -> None:
        """The same with whoever has the address of a seed."""
        push_pulls = self._running
        push_pull = push_pulls.begin_join(seed)
        if push_pull is None:
            return
        try:
            opening = push_pulls.opening(self._admission.number)
            peer, opened = await self._links.request_address(
                seed, opening, SyncOpened, SYNC_TIMEOUT_S
            )
            await self._carry(push_pull, peer.node_id, opened)
            if push_pulls.is_joined_by(peer.node_id):
                self.joined.set()
            self._seed_failures.pop(seed, None)
        except GossipcacheError as error:
            self._warn(seed, error)
        finally:
            push_pulls.end(push_pull)

    async def _carry(self, push_pull: PushPull, node: NodeId, opened: SyncOpened) -> None:
        if not push_pull.answered_by(node):
            return
        if self._on_charter is not None:
            await self._on_charter(node, opened.charter)
        self._act(push_pull.opened(opened, trio.current_time()))
        while (asked := push_pull.asks()) is not None:
            found = await self._links.request(node, asked, SyncDiff, SYNC_TIMEOUT_S)
            self._act(push_pull.found(found, trio.current_time()))
            for push in push_pull.pushes():
                await self._links.notify(node, push)
        self._metrics.count("syncs_done")

    def _warn(self, seed: Address, error: GossipcacheError) -> None:
        failures = self._seed_failures[seed] = self._seed_failures.get(seed, 0) + 1
        if failures == 1 or failures % _WARN_EVERY == 0:
            _log.warning(
                "seed %s cannot be joined (%s); tried %d times, trying on",
                seed, error.message, failures,
            )  # fmt: skip

    # What others open.

    @property
    def _running(self) -> PushPulls:
        if self._push_pulls is None:
            raise NotReady("the node is starting")
        return self._push_pulls

    def absorb(
        self, payer: NodeId, records: Iterable[Signed], accusations: Iterable[Accusation]
    ) -> SwimCore:
        """Takes what `payer` brought. Raises `NotReady`."""
        core = self._core
        if core is None:
            raise NotReady("the node is starting")
        self._act(core.absorb(records, accusations, trio.current_time(), payer=payer))
        return core

    async def _answer_open(self, peer: Peer, message: SyncOpen) -> SyncOpened:
        self._running.check(peer.node_id, message)
        view = self.absorb(peer.node_id, [message.record], ()).view
        return sync.answer_open(view, message, self._admission.number)

    async def _answer_range(self, _peer: Peer, message: SyncRange) -> SyncDiff:
        if self._core is None:
            raise NotReady("the node is starting")
        return sync.diff(self._core.view, message)

    async def _take_push(self, peer: Peer, message: SyncPush) -> None:
        self.absorb(peer.node_id, message.records, message.accusations)
