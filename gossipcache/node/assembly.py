"""How the services of a node fit together, and the trio tasks that run them."""

from __future__ import annotations

from functools import partial

import trio

from gossipcache.admission import Admission
from gossipcache.budget import VerificationBudget
from gossipcache.cluster import Cluster
from gossipcache.config import NodeConfig
from gossipcache.dht.membership.charters import Charters
from gossipcache.dht.membership.member import Member
from gossipcache.dht.membership.service import MembershipService
from gossipcache.dht.records.service import RecordService
from gossipcache.dht.records.surroundings import Surroundings
from gossipcache.env import Env, Port
from gossipcache.errors import TaskNotFound
from gossipcache.identity import Identity, Signed
from gossipcache.ids import Address, NodeId, TaskId
from gossipcache.link.interface import Peer
from gossipcache.link.loopback import LoopbackLinks
from gossipcache.link.pool import LinkPool
from gossipcache.manifest import open_tombstone
from gossipcache.messages.batches import GetContents
from gossipcache.messages.clock import AskClock
from gossipcache.messages.holding import DropTask
from gossipcache.metrics import Metrics
from gossipcache.node.clocks import handle_ask_clock
from gossipcache.node.copies import CopyDuty
from gossipcache.node.deleting import accept_tombstone, drop_if_over, handle_drop
from gossipcache.node.fetching import announce
from gossipcache.node.giving import ContentServer
from gossipcache.node.housekeeping import keep_in_order
from gossipcache.node.importing import settle_unpublished
from gossipcache.node.late_syncs import LateSyncs
from gossipcache.node.looking import check_reach
from gossipcache.node.scrubbing import scrub
from gossipcache.node.services import Services
from gossipcache.schedule.scheduling import SchedulerService
from gossipcache.schedule.service import AnnounceService
from gossipcache.transfer.download.client import Downloader
from gossipcache.transfer.download.downloads import Downloads
from gossipcache.transfer.limits import TransferLimits
from gossipcache.transfer.server import PieceServer
from gossipcache.transfer.store.store import Store
from gossipcache.wire import PROTOCOL_MAX


class Assembly:
    """All services of one node, made and joined; `run` runs them."""

    def __init__(
        self,
        env: Env,
        config: NodeConfig,
        identity: Identity,
        cluster: Cluster,
        metrics: Metrics,
        store: Store,
    ) -> None:
        self._config = config
        admission = Admission(cluster, env.wall_time, config.admission, config.delete_policy)
        budget = VerificationBudget()
        pool = LinkPool(
            env,
            config,
            identity,
            cluster,
            metrics,
            self._resolve,
            self._on_refused,
            admission,
            budget,
        )
        me = Peer(
            identity.node_id,
            identity.public_key,
            frozenset(config.roles),
            PROTOCOL_MAX,
            config.listen or Address("localhost", 0),
        )
        links = LoopbackLinks(pool, me)
        self._pool = pool
        self._charters = Charters(
            env,
            admission,
            links,
            metrics,
            config.home / "charter",
            others=self._others,
            on_change=self._reconsider,
        )
        self._membership = MembershipService(
            env, config, identity, cluster, links, metrics, admission, self._charters.meet, budget
        )
        self._records = RecordService(
            env,
            config.records,
            identity,
            cluster,
            links,
            metrics,
            Surroundings(
                ring=lambda: self._membership.ring,
                is_alive=self._membership.is_alive,
                may_keep=lambda node: self._membership.scheduler_key(node) is not None,
                bystanders=self._bystanders,
                introduce=self._membership.introduce,
                meet=self._membership.meet,
                deletion=lambda: admission.deletion,
                reach_charter=self._charters.reach,
                on_over=lambda task_id: self._scheduler.generation_over(task_id),
                on_void=lambda node, count: budget.blame(node, count, trio.current_time()),
            ),
            config.home / "records",
            store,
            is_scheduler="scheduler" in config.roles,
            whispers=self._membership,
        )
        self._scheduler = SchedulerService(
            env,
            config.schedule,
            identity,
            cluster,
            links,
            metrics,
            record_of=self._records.local,
            ring=lambda: self._membership.ring,
            is_alive=self._membership.is_alive,
            zone_of=self._membership.zone_of,
            record_copies=config.records.replicas,
            on_void=lambda node, count: budget.blame(node, count, trio.current_time()),
        )
        announcer = AnnounceService(
            env,
            config.schedule,
            identity,
            cluster,
            links,
            metrics,
            ring=lambda: self._membership.ring,
            is_alive=self._membership.is_alive,
            on_deleted=self._on_deleted,
            restore=self._restore,
            record_copies=config.records.replicas,
        )
        limits = TransferLimits(config.transfer)
        downloader = Downloader(env, config.transfer, links, store, metrics, limits)
        server = PieceServer(
            identity.node_id, env, config.transfer, store, metrics, downloader.arrivals, limits
        )
        links.handle_channels(server.serve)
        contents = ContentServer(env.workers, store, metrics, limits, self._scheduler.name_holders)
        links.handle(GetContents, contents.answer)
        self.services = Services(
            env=env,
            config=config,
            identity=identity,
            cluster=cluster,
            metrics=metrics,
            links=links,
            membership=self._membership,
            charters=self._charters,
            records=self._records,
            announcer=announcer,
            store=store,
            downloads=Downloads(
                downloader,
                announcer.session,
                lambda signed: check_reach(self.services, signed),
                lambda task_id: announce(self.services, task_id),
            ),
            limits=limits,
            late_syncs=LateSyncs(env.disk, env.workers, metrics, store.outputs),
            show_ticket=self._show_ticket,
        )
        links.handle(DropTask, partial(handle_drop, self.services))
        links.handle(AskClock, partial(handle_ask_clock, self.services))
        self._copies = CopyDuty(self.services)

    async def run(
        self,
        port: Port | None,
        address: Address | None,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Serves until cancelled; `started` when the verbs may be called."""
        services = self.services
        async with trio.open_nursery() as nursery:
            await nursery.start(self._charters.run)
            await nursery.start(self._pool.serve, port)
            datagrams = None if port is None else port.datagrams
            await nursery.start(self._membership.run, datagrams, address)
            await nursery.start(services.announcer.run)
            await nursery.start(services.downloads.run)
            if "scheduler" in self._config.roles:
                await nursery.start(self._scheduler.run)
            nursery.start_soon(services.late_syncs.run)
            nursery.start_soon(services.late_syncs.tidy)
            nursery.start_soon(self._follow_membership)
            if datagrams is None or not self._config.join:
                await self._become_active(nursery)
            else:
                nursery.start_soon(self._become_active, nursery)
            for stored in services.store.tasks():
                announce(services, stored.task_id)
            nursery.start_soon(settle_unpublished, services)
            nursery.start_soon(keep_in_order, services)
            nursery.start_soon(scrub, services)
            nursery.start_soon(self._copies.run)
            task_status.started()

    # What services need of each other.

    def _resolve(self, node: NodeId) -> Address | None:
        return self._membership.resolve(node)

    def _others(self) -> list[NodeId]:
        return [node for node in self._live() if node != self.services.me]

    def _reconsider(self) -> None:
        self._membership.reconsider()
        self._pool.reconsider()

    def _show_ticket(self, ticket: bytes) -> None:
        self._membership.show_ticket(ticket)
        self._pool.show_ticket(ticket)

    def _on_refused(self, node: NodeId) -> None:
        self._membership.report_refused(node)

    def _bystanders(self) -> list[NodeId]:
        return [
            member.node_id
            for member in self._membership.members()
            if member.state == "alive" and "scheduler" not in member.roles
        ]

    async def _follow_membership(self) -> None:
        """Passes on what changes of the ring, and who is gone."""
        live = self._live()
        myself = self._membership.member(self.services.me)
        while True:
            seen = self._membership.version
            before_me, myself = myself, self._membership.member(self.services.me)
            if before_me and myself and _has_refuted(before_me, myself):
                self._records.was_away()
            self._records.on_ring_change()
            self.services.announcer.on_ring_change()
            before, live = live, self._live()
            for gone in before:
                if gone not in live:
                    self._scheduler.member_down(gone)
            await self._membership.wait_change(seen)

    def _live(self) -> dict[NodeId, None]:
        return {member.node_id: None for member in self._membership.members() if member.is_live}

    async def _become_active(self, nursery: trio.Nursery) -> None:
        """Owns keys once it is a member and its keeper has synced with the others.

        A node none of whose seeds answers goes on alone after a while: what it keeps is merged
        when they meet.
        """
        with trio.move_on_after(self._config.records.recovery_s):
            await self._membership.joined.wait()
        await nursery.start(self._records.run)
        await self._records.synced.wait()
        self._membership.set_active()

    async def _on_deleted(self, tombstone: Signed, manifest: Signed) -> None:
        """A keeper says so. Where a later generation is held here, it lost that one's record."""
        await accept_tombstone(self.services, tombstone, manifest)
        dead = open_tombstone(tombstone, manifest, self.services.cluster.cluster_id)
        stored = self.services.store.find(dead.task_id)
        if stored is not None and stored.generation > dead.tombstone.generation:
            await self._restore(dead.task_id)

    async def _restore(self, task_id: TaskId) -> None:
        stored = self.services.store.find(task_id)
        if stored is None or not stored.published:
            raise TaskNotFound(f"task {task_id.hex()} is not held here any more")
        if not await self._records.restore(stored.signed):
            await drop_if_over(self.services, task_id)


def _has_refuted(before: Member, now: Member) -> bool:
    return now.incarnation > before.incarnation and now.phase == before.phase
