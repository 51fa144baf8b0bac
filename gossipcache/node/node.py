"""The unit that a machine, a program or the simulator runs: all services over one `Env`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import trio

from gossipcache import __version__
from gossipcache.cluster import Cluster
from gossipcache.config import NodeConfig
from gossipcache.env import Env, Port
from gossipcache.errors import TimedOut
from gossipcache.identity import Identity
from gossipcache.ids import Address, task_id_of
from gossipcache.metrics import Metrics
from gossipcache.node import (
    clocks,
    deleting,
    evicting,
    export_batches,
    exporting,
    housekeeping,
    import_batches,
    importing,
    limiting,
    looking,
    operating,
    reading,
)
from gossipcache.node.assembly import Assembly
from gossipcache.node.progress import ReportProgress
from gossipcache.node.services import Services
from gossipcache.requests import (
    DeleteRequest,
    ExportRequest,
    ImportRequest,
    LimitsChange,
    TaskLimitsChange,
    TaskQuery,
)
from gossipcache.results import (
    CharterView,
    ClockView,
    DeleteResult,
    ExportResult,
    GcResult,
    ImportResult,
    LimitsView,
    LocalTask,
    MemberView,
    NodeStatus,
    Outcome,
    RingResult,
    RingShare,
    StatResult,
    VerifyResult,
)
from gossipcache.transfer.store.store import Store

STAT_TIMEOUT_S = 10.0
_MARK_BYTES = 8


class Node:
    """One node. `run` serves until cancelled; the verbs may be called while it serves."""

    def __init__(self, env: Env, config: NodeConfig, identity: Identity, cluster: Cluster) -> None:
        self._env = env
        self._config = config
        self._identity = identity
        self._cluster = cluster
        self._services: Services | None = None
        self._started_at = 0.0
        self.metrics = Metrics()
        self.node_id = identity.node_id
        self.address: Address | None = None
        """What others dial; None before `run`, and for a node without a network port."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Opens the store, listens, joins and serves; `started` when verbs may be called.

        Raises `OSError` if it cannot listen, `VersionUnsupported` for a newer store.
        """
        run_in_worker = self._env.workers.run
        store = await run_in_worker(
            lambda: Store.open(
                self._env.disk,
                self._config.home / "store",
                self._env.wall_time,
                self._config.store,
                mark=self._env.entropy(_MARK_BYTES).hex(),
            )
        )
        port: Port | None = None
        try:
            if self._config.listen is not None:
                port = await self._env.network.bind(self._config.listen)
                self.address = self._config.advertise or port.address
            assembly = Assembly(
                self._env, self._config, self._identity, self._cluster, self.metrics, store
            )
            self._services = assembly.services
            self._started_at = trio.current_time()
            await assembly.run(port, self.address, task_status)
        finally:
            self._services = None
            with trio.CancelScope(shield=True):
                if port is not None:
                    await port.aclose()
                await run_in_worker(store.close)

    async def leave(self) -> None:
        """Tells the members that this node goes; call it before `run` is cancelled."""
        await self.services.membership.leave()

    @property
    def services(self) -> Services:
        """What the node is made of, while it runs."""
        if self._services is None:
            raise RuntimeError("the node does not run")
        return self._services

    # The verbs.

    async def import_file(
        self,
        request: ImportRequest,
        *,
        stream: AsyncIterator[bytes] | None = None,
        progress: ReportProgress | None = None,
    ) -> ImportResult:
        """Puts a file, a folder or `stream` into the cache; see `node.importing`."""
        return await importing.import_file(self.services, request, stream, progress)

    async def import_files(
        self, requests: Sequence[ImportRequest], tell: Callable[[int, Outcome], None]
    ) -> None:
        """Imports many files at once; see `node.import_batches`."""
        await import_batches.import_files(self.services, requests, tell)

    async def export_files(
        self, requests: Sequence[ExportRequest], tell: Callable[[int, Outcome], None]
    ) -> None:
        """Exports many tasks at once; see `node.export_batches`."""
        await export_batches.export_files(self.services, requests, tell)

    async def stat(
        self, task: TaskQuery, *, local: bool = False, timeout_s: float = STAT_TIMEOUT_S
    ) -> StatResult:
        """What the cluster, or with `local` this node, has of a task. Raises `TaskNotFound`."""
        return await looking.stat(self.services, task, local=local, timeout_s=timeout_s)

    async def export(
        self, request: ExportRequest, *, progress: ReportProgress | None = None
    ) -> ExportResult:
        """Writes a task to a path; see `node.exporting`."""
        return await exporting.export(self.services, request, progress)

    def reader(
        self, task: TaskQuery, *, local: bool = False, timeout_s: float | None = None
    ) -> AbstractAsyncContextManager[reading.Reader]:
        """Opens a task for reading by ranges or as a stream; see `node.reading`."""
        return reading.reader(self.services, task, local=local, timeout_s=timeout_s)

    async def delete(self, request: DeleteRequest) -> DeleteResult:
        """Deletes a task everywhere, or this node's copy; see `node.deleting`."""
        return await deleting.delete(self.services, request)

    def list_tasks(self) -> tuple[LocalTask, ...]:
        """The tasks held here."""
        return housekeeping.list_tasks(self.services)

    async def pin(self, task: TaskQuery, pinned: bool) -> None:
        """Keeps this node's copy from eviction, or ends that."""
        await housekeeping.pin(self.services, task, pinned=pinned)

    async def gc(self, dry_run: bool) -> GcResult:
        """Evicts what may go."""
        return await evicting.gc(self.services, dry_run=dry_run)

    async def verify(self, task: TaskQuery | None) -> VerifyResult:
        """Re-hashes one task, or all, and repairs what is bad from peers."""
        return await housekeeping.verify(self.services, task)

    def limits(self) -> LimitsView:
        """What transfers may take; see `node.limiting`."""
        return limiting.limits(self.services)

    def change_limits(self, wanted: LimitsChange) -> LimitsView:
        """New limits from now on; see `node.limiting`."""
        return limiting.change_limits(self.services, wanted)

    def change_task_limits(self, task: TaskQuery, wanted: TaskLimitsChange) -> LimitsView:
        """New limits for one task from now on; see `node.limiting`."""
        return limiting.change_task_limits(self.services, task, wanted)

    # What the operator brings.

    async def charter(self, *, fresh: bool = False) -> CharterView:
        """The cluster's settings and revocations; see `node.operating`."""
        return await operating.charter(self.services, fresh=fresh)

    async def enact(self, signed: str) -> CharterView:
        """Takes a charter of the operator; see `node.operating`."""
        return await operating.enact(self.services, signed)

    def take_ticket(self, ticket: bytes) -> None:
        """Uses another ticket from now on; see `node.operating`."""
        operating.take_ticket(self.services, ticket)

    # The view.

    def members(self) -> tuple[MemberView, ...]:
        """All known members, this node among them, in the order of their ids."""
        return tuple(
            MemberView(
                id=member.node_id.hex(),
                name=member.name,
                address=str(member.address),
                state=member.state,
                roles=tuple(sorted(member.roles)),
                incarnation=member.incarnation,
                protocol_min=member.protocol_min,
                protocol_max=member.protocol_max,
                zone=member.zone,
            )
            for member in self.services.membership.members()
        )

    async def wait_members(self, expect: int, timeout_s: float) -> tuple[MemberView, ...]:
        """Waits until exactly `expect` members are alive on this node's view.

        Raises `TimedOut`.
        """
        membership = self.services.membership
        with trio.move_on_after(timeout_s):
            while True:
                seen = membership.version
                if self._alive_count() == expect:
                    return self.members()
                await membership.wait_change(seen)
        raise TimedOut(
            f"{self._alive_count()} members are alive after {timeout_s:.3g} s, not {expect}",
            "see `gossipcache members`, and the logs of the nodes that are missing",
        )

    def _alive_count(self) -> int:
        return sum(member.state == "alive" for member in self.services.membership.members())

    async def clocks(self) -> tuple[ClockView, ...]:
        """How far the clocks of the other alive members are from this node's."""
        return await clocks.read_clocks(self.services)

    def ring(self, task: TaskQuery | None) -> RingResult:
        """The ring's shares; with a task also who keeps its record."""
        services = self.services
        ring = services.membership.ring
        keepers = () if task is None else services.keepers(task_id_of(task.cid, task.tag))
        return RingResult(
            epoch=ring.epoch.hex(),
            schedulers=tuple(
                RingShare(node.hex(), services.name_of(node), share)
                for node, share in ring.shares().items()
            ),
            owner=keepers[0].hex() if keepers else None,
            replicas=tuple(node.hex() for node in keepers[1:]),
        )

    def status(self) -> NodeStatus:
        """How the node is. `pid` is 0: a node does not know its process."""
        services = self.services
        return NodeStatus(
            id=self.node_id.hex(),
            name=self._config.name,
            version=__version__,
            listen=None if self.address is None else str(self.address),
            roles=tuple(sorted(self._config.roles)),
            members_alive=self._alive_count(),
            tasks=len(services.store.tasks()),
            store_bytes=services.store.used_bytes,
            uptime_s=trio.current_time() - self._started_at,
            pid=0,
            metrics=self.metrics.snapshot(),
            records=services.records.record_count,
        )
