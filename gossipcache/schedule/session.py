"""Shell: one download's membership in its swarm, which outlives any single keeper."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import trio

from gossipcache.config import ScheduleConfig
from gossipcache.env import Env
from gossipcache.errors import GossipcacheError, IntegrityError, ProtocolError, TaskNotFound
from gossipcache.ids import NodeId, TaskId
from gossipcache.link.interface import Links
from gossipcache.manifest import SignedManifest, open_tombstone
from gossipcache.messages.announcements import DeletedTask
from gossipcache.messages.sessions import (
    MAX_PARENTS,
    MAX_REPORTS,
    AssignParents,
    LeaveTask,
    ParentFailure,
    ParentReport,
    RegisterPeer,
    ReportPieces,
    SessionReply,
)
from gossipcache.schedule.alarm import Alarm
from gossipcache.schedule.task import all_bits, bits_of_pieces, cut_runs, runs_of
from gossipcache.swarm import PieceReport

REQUEST_TIMEOUT_S = 2.0
FIRST_TIMEOUT_S = 0.5
"""Of the first try with each keeper: one that hangs is not waited for while there are others."""
REST_S = 0.25
"""How long a keeper that failed is left alone, doubled each time."""
MAX_REST_S = 10.0
LIAR_REST_S = 60.0
MAX_REDIRECTS = 2
MAX_REASON = 200


@dataclass(slots=True)
class _Rest:
    until: float
    times: int


class Session:
    """Implements `gossipcache.swarm.Swarm`.

    Registers with the task's first reachable keeper, reports to it, and when that one dies,
    refuses or is no longer the owner, goes on with the next. The parents assigned last stay
    valid all the while.
    """

    def __init__(
        self,
        env: Env,
        config: ScheduleConfig,
        links: Links,
        manifest: SignedManifest,
        have: Collection[int],
        *,
        number: int,
        keepers_of: Callable[[TaskId], tuple[NodeId, ...]],
        is_alive: Callable[[NodeId], bool],
    ) -> None:
        self._env = env
        self._config = config
        self._links = links
        self._manifest = manifest
        self.task_id = manifest.task_id
        self._piece_count = manifest.manifest.piece_count
        self._number = number
        self._keepers_of = keepers_of
        self._is_alive = is_alive
        self._have = bits_of_pieces(have, self._piece_count)
        self._unsent = 0
        self._reports: dict[NodeId, ParentReport] = {}
        self._failed: dict[NodeId, ParentFailure] = {}
        self._keeper: NodeId | None = None
        self._version = 0
        self._redirects: tuple[NodeId, ...] = ()
        self._hops = 0
        self._resting: dict[NodeId, _Rest] = {}
        self._news = Alarm()
        self._urgent = Alarm()
        self._ring_changed = False
        self._parents: tuple[NodeId, ...] | None = None
        self._is_new = False
        self._assigned = trio.Event()
        self.deletion: DeletedTask | None = None
        """Proof that the task was deleted, once it is known."""

    async def parents(self) -> tuple[NodeId, ...]:
        """See `Swarm.parents`. Raises `TaskNotFound`."""
        while not self._is_new and self.deletion is None:
            await self._assigned.wait()
        if self.deletion is not None:
            name = self._manifest.manifest.cid
            raise TaskNotFound(f"the task {name!r} was deleted", "import it again to have it back")
        self._is_new = False
        self._assigned = trio.Event()
        return self._parents or ()

    def report(self, have: Collection[int], reports: tuple[PieceReport, ...]) -> None:
        """See `Swarm.report`."""
        fresh = bits_of_pieces(have, self._piece_count)
        self._have |= fresh
        self._unsent |= fresh
        for report in reports:
            self._tally(report)
        self._news.ring()

    def failed(self, parent: NodeId, reason: str) -> None:
        """See `Swarm.failed`."""
        self._failed[parent] = ParentFailure(parent, reason[:MAX_REASON])
        self._urgent.ring()
        self._news.ring()

    def assigned(self, message: AssignParents, sender: NodeId) -> None:
        """A push came in; only that of the present keeper, and newer than the last, counts."""
        if sender != self._keeper or message.version <= self._version:
            return
        if message.deleted is not None:
            self._judge_deletion(message.deleted)
        else:
            self._take(message.version, message.parents)

    def ring_changed(self) -> None:
        """The task's owner may be another now."""
        self._ring_changed = True
        self._urgent.ring()
        self._news.ring()

    async def run(self) -> None:
        """Registers and reports until cancelled, or until the task is found deleted."""
        while self.deletion is None:
            keeper = self._next_keeper()
            if keeper is None:
                await self._news.wait_until(self._next_try())
            elif await self._register(keeper):
                await self._follow(keeper)

    async def leave(self) -> None:
        """Tells the keeper that this is over; best effort."""
        if self._keeper is None:
            return
        complete = self._have == all_bits(self._piece_count)
        message = LeaveTask(task_id=self.task_id, session=self._number, complete=complete)
        try:
            await self._links.notify(self._keeper, message)
        except GossipcacheError:
            pass  # the keeper forgets the session when its lease ends

    def _candidates(self) -> list[NodeId]:
        known = dict.fromkeys((*self._redirects, *self._keepers_of(self.task_id)))
        return [keeper for keeper in known if self._is_alive(keeper)]

    def _next_keeper(self) -> NodeId | None:
        now = trio.current_time()
        for keeper in self._candidates():
            rest = self._resting.get(keeper)
            if rest is None or rest.until <= now:
                return keeper
        return None

    def _next_try(self) -> float:
        now = trio.current_time()
        ends = [
            rest.until for rest in map(self._resting.get, self._candidates()) if rest is not None
        ]
        return min(ends, default=now + self._config.lease_interval_s)

    def _rest(self, keeper: NodeId, least_s: float = REST_S) -> None:
        """Leaves a keeper alone for a while."""
        rest = self._resting.setdefault(keeper, _Rest(0.0, 0))
        delay = min(MAX_REST_S, least_s * 2**rest.times) if least_s < MAX_REST_S else least_s
        rest.until = trio.current_time() + delay * (0.75 + 0.5 * self._env.rng.random())
        rest.times = min(rest.times + 1, 10)
        self._keeper = None

    async def _register(self, keeper: NodeId) -> bool:
        now_have, rest = cut_runs(runs_of(self._have))
        self._unsent = 0
        message = RegisterPeer(
            task_id=self.task_id,
            manifest_name=self._manifest.name,
            session=self._number,
            piece_count=self._piece_count,
            have=now_have,
            parents=tuple(parent for parent in self._parents or () if parent not in self._failed)[
                :MAX_PARENTS
            ],
        )
        self._keeper, self._version = keeper, 0
        self._ring_changed = False
        timeout_s = REQUEST_TIMEOUT_S if keeper in self._resting else FIRST_TIMEOUT_S
        try:
            reply = await self._links.request(keeper, message, SessionReply, timeout_s)
        except GossipcacheError:
            self._rest(keeper)
            return False
        for run in rest:
            self._unsent |= all_bits(run.count) << run.first
        if rest:
            self._news.ring()
        return self._judge(keeper, reply)

    async def _follow(self, keeper: NodeId) -> None:
        """Reports to `keeper` for as long as it holds the session."""
        while self.deletion is None:
            started_at = trio.current_time()
            if await self._news.wait_until(started_at + self._config.lease_interval_s):
                await self._urgent.wait_until(started_at + self._config.report_interval_s)
            if self._ring_changed:
                self._ring_changed = False
                self._redirects = ()
                if self._next_keeper() != keeper:
                    return
            if not await self._send_report(keeper):
                return

    async def _send_report(self, keeper: NodeId) -> bool:
        have, rest = cut_runs(runs_of(self._unsent))
        sent = 0
        for run in have:
            sent |= all_bits(run.count) << run.first
        message = ReportPieces(
            task_id=self.task_id,
            session=self._number,
            have=have,
            reports=tuple(self._reports.values())[:MAX_REPORTS],
            failed=tuple(self._failed.values())[:MAX_PARENTS],
        )
        self._reports.clear()
        try:
            reply = await self._links.request(keeper, message, SessionReply, REQUEST_TIMEOUT_S)
        except GossipcacheError:
            self._rest(keeper)
            return False
        self._unsent &= ~sent
        for failure in message.failed:
            if self._failed.get(NodeId(failure.parent)) is failure:
                del self._failed[NodeId(failure.parent)]
        if rest or self._failed:
            self._news.ring()
        return self._judge(keeper, reply)

    def _judge(self, keeper: NodeId, reply: SessionReply) -> bool:
        """Takes a keeper's answer; whether the session stands there."""
        match reply.status:
            case "assigned":
                self._resting.pop(keeper, None)
                self._hops = 0
                if reply.version > self._version:
                    self._take(reply.version, reply.parents)
                return True
            case "deleted":
                if reply.deleted is None or not self._judge_deletion(reply.deleted):
                    self._rest(keeper, LIAR_REST_S)
            case "not_keeper":
                self._rest(keeper)
                self._hops += 1
                self._redirects = ()
                if self._hops <= MAX_REDIRECTS:
                    self._redirects = tuple(NodeId(node_id) for node_id in reply.keepers)
                else:
                    self._hops = 0
            case "unregistered":
                self._keeper = None
        return False

    def _take(self, version: int, parents: tuple[bytes, ...]) -> None:
        self._version = version
        assigned = tuple(NodeId(parent) for parent in parents)
        if assigned != self._parents:
            self._parents = assigned
            self._is_new = True
            self._assigned.set()

    def _judge_deletion(self, proof: DeletedTask) -> bool:
        """Checks that this very manifest, or a later one, was deleted."""
        mine = self._manifest.manifest
        try:
            found = open_tombstone(proof.tombstone, proof.manifest, mine.cluster_id)
        except (IntegrityError, ProtocolError):
            return False
        if found.task_id != self.task_id or found.tombstone.generation < mine.generation:
            return False
        self.deletion = proof
        self._assigned.set()
        self._news.ring()
        return True

    def _tally(self, report: PieceReport) -> None:
        earlier = self._reports.get(report.parent, ParentReport(report.parent, 0, 0, 0))
        self._reports[report.parent] = ParentReport(
            report.parent,
            earlier.size_bytes + report.size_bytes,
            earlier.elapsed_ms + round(report.elapsed_s * 1000),
            earlier.failures + report.failures,
        )
