"""Core: what a child says to the keepers of its task, one at a time, whichever of them are up.

It registers with the first keeper that can be reached, reports what came in, and goes on with the
next keeper, with all its pieces, when that one fails, refuses or is no longer the owner. The
parents assigned last stay valid all the while. Inputs carry the monotonic time `now`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass

from gossipcache.config import ScheduleConfig
from gossipcache.errors import IntegrityError, ProtocolError
from gossipcache.ids import NodeId, TaskId
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
from gossipcache.schedule.task import all_bits, bits_of, bits_of_pieces, cut_runs, runs_of
from gossipcache.swarm import NO_BORDER, Border, PieceReport

REQUEST_TIMEOUT_S = 2.0
FIRST_TIMEOUT_S = 0.5
"""Of the first try with each keeper: one that hangs is not waited for while there are others."""
REST_S = 0.25
"""How long a keeper that failed is left alone, doubled each time."""
MAX_REST_S = 10.0
LIAR_REST_S = 60.0
MAX_REDIRECTS = 2
MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class Ask:
    """Send `message` to `keeper`; its `SessionReply` goes into `answered`, or `unanswered` is
    called after `timeout_s` or a failure."""

    keeper: NodeId
    message: RegisterPeer | ReportPieces
    timeout_s: float


@dataclass(slots=True)
class _Rest:
    until: float
    times: int


class Conversation:
    """The child's end of one session. `keepers_of` and `is_alive` read the present ring and
    membership."""

    def __init__(
        self,
        config: ScheduleConfig,
        manifest: SignedManifest,
        have: Collection[int],
        *,
        number: int,
        keepers_of: Callable[[TaskId], tuple[NodeId, ...]],
        is_alive: Callable[[NodeId], bool],
        rng: random.Random,
    ) -> None:
        self._config = config
        self._manifest = manifest
        self.task_id = manifest.task_id
        self._piece_count = manifest.manifest.piece_count
        self._number = number
        self._keepers_of = keepers_of
        self._is_alive = is_alive
        self._rng = rng
        self._have = bits_of_pieces(have, self._piece_count)
        self._unsent = 0
        self._reports: dict[NodeId, ParentReport] = {}
        self._failed: dict[NodeId, ParentFailure] = {}
        self._keeper: NodeId | None = None
        self._version = 0
        self._redirects: tuple[NodeId, ...] = ()
        self._hops = 0
        self._resting: dict[NodeId, _Rest] = {}
        self._under_way: Ask | None = None
        self._sending = 0
        """The pieces in the report under way."""
        self._answered_at = float("-inf")
        self._look_at: float | None = float("-inf")
        """When a keeper is looked for; None while it stands with one."""
        self._has_news = False
        self._is_urgent = False
        self.parents: tuple[NodeId, ...] | None = None
        """As assigned last, best first; None: not yet."""
        self.border = NO_BORDER
        """Which of them are in other zones."""
        self.deletion: DeletedTask | None = None
        """Proof that the task was deleted, once it is known; the conversation is then over."""

    # What the child has to say.

    def report(self, have: Collection[int], reports: tuple[PieceReport, ...]) -> None:
        """Pieces came in since the last report. The first are told at once: they make the child
        one that can give."""
        self._is_urgent = self._is_urgent or not self._have
        fresh = bits_of_pieces(have, self._piece_count)
        self._have |= fresh
        self._unsent |= fresh
        for report in reports:
            self._tally(report)
        self._has_news = True

    def failed(self, parent: NodeId, reason: str) -> None:
        """`parent` lied, refused or broke off, so another is wanted at once."""
        self._failed[parent] = ParentFailure(parent, reason[:MAX_REASON])
        self._has_news = self._is_urgent = True

    def ring_changed(self) -> None:
        """The task's owner, or who of its keepers is alive, may be another now."""
        self._redirects = ()
        self._look_at = float("-inf")

    def leave(self) -> tuple[NodeId, LeaveTask] | None:
        """The last word, and to whom, if it stands with any keeper."""
        if self._keeper is None:
            return None
        complete = self._have == all_bits(self._piece_count)
        return self._keeper, LeaveTask(
            task_id=self.task_id, session=self._number, complete=complete
        )

    # What keepers say.

    def assigned(self, message: AssignParents, sender: NodeId) -> None:
        """A push came in; only that of the present keeper, and newer than the last, counts."""
        if sender != self._keeper or message.version <= self._version:
            return
        if message.deleted is not None:
            self._judge_deletion(message.deleted)
        else:
            self._take(message)

    def answered(self, reply: SessionReply, now: float) -> None:
        """The keeper that was asked last answered."""
        asked = self._settle(now)
        if asked is None:
            return
        if isinstance(asked.message, ReportPieces):
            self._unsent &= ~self._sending
            for failure in asked.message.failed:
                if self._failed.get(NodeId(failure.parent)) is failure:
                    del self._failed[NodeId(failure.parent)]
        if self._unsent or self._failed:
            self._has_news = True
        self._judge(asked.keeper, reply, now)

    def unanswered(self, now: float) -> None:
        """It did not."""
        asked = self._settle(now)
        if asked is not None:
            self._rest(asked.keeper, now)

    # When to say it.

    def next_timeout(self) -> float | None:
        """When `next_ask` has something to say (monotonic s, in the past if at once), unless it
        waits for an answer; None while it does, or when it is over."""
        if self._under_way is not None or self.deletion is not None:
            return None
        return self._report_at() if self._look_at is None else self._look_at

    def next_ask(self, now: float) -> Ask | None:
        """What to send now, if anything; one request is under way at a time."""
        if self._under_way is not None or self.deletion is not None:
            return None
        if self._look_at is not None and self._look_at <= now:
            best = self._next_keeper(now)
            if best is not None and best != self._keeper:
                self._under_way = self._register(best)
                return self._under_way
            self._look_at = None if self._keeper is not None else self._next_try(now)
        if self._keeper is not None and now >= self._report_at():
            self._under_way = self._next_report(self._keeper)
        return self._under_way

    def _report_at(self) -> float:
        if self._is_urgent:
            return self._answered_at
        interval_s = self._config.lease_interval_s
        return self._answered_at + (
            self._config.report_interval_s if self._has_news else interval_s
        )

    def _candidates(self) -> list[NodeId]:
        known = dict.fromkeys((*self._redirects, *self._keepers_of(self.task_id)))
        return [keeper for keeper in known if self._is_alive(keeper)]

    def _next_keeper(self, now: float) -> NodeId | None:
        for keeper in self._candidates():
            rest = self._resting.get(keeper)
            if rest is None or rest.until <= now:
                return keeper
        return None

    def _next_try(self, now: float) -> float:
        rests = [self._resting.get(keeper) for keeper in self._candidates()]
        ends = [rest.until for rest in rests if rest is not None]
        return min(ends, default=now + self._config.lease_interval_s)

    def _rest(self, keeper: NodeId, now: float, least_s: float = REST_S) -> None:
        """Leaves a keeper alone for a while."""
        rest = self._resting.setdefault(keeper, _Rest(0.0, 0))
        delay = min(MAX_REST_S, least_s * 2**rest.times) if least_s < MAX_REST_S else least_s
        rest.until = now + delay * (0.75 + 0.5 * self._rng.random())
        rest.times = min(rest.times + 1, 10)
        self._lose()

    def _lose(self) -> None:
        self._keeper = None
        self._look_at = float("-inf")

    def _settle(self, now: float) -> Ask | None:
        asked, self._under_way = self._under_way, None
        self._answered_at = now
        return asked

    # Messages.

    def _register(self, keeper: NodeId) -> Ask:
        now_have, rest = cut_runs(runs_of(self._have))
        self._unsent = bits_of(rest, self._piece_count)
        self._keeper, self._version, self._look_at = keeper, 0, None
        parents = tuple(parent for parent in self.parents or () if parent not in self._failed)
        message = RegisterPeer(
            task_id=self.task_id,
            manifest_name=self._manifest.name,
            session=self._number,
            piece_count=self._piece_count,
            have=now_have,
            parents=parents[:MAX_PARENTS],
        )
        timeout_s = REQUEST_TIMEOUT_S if keeper in self._resting else FIRST_TIMEOUT_S
        return Ask(keeper, message, timeout_s)

    def _next_report(self, keeper: NodeId) -> Ask:
        have, _ = cut_runs(runs_of(self._unsent))
        self._sending = bits_of(have, self._piece_count)
        message = ReportPieces(
            task_id=self.task_id,
            session=self._number,
            have=have,
            reports=tuple(self._reports.values())[:MAX_REPORTS],
            failed=tuple(self._failed.values())[:MAX_PARENTS],
        )
        self._reports.clear()
        self._has_news = self._is_urgent = False
        return Ask(keeper, message, REQUEST_TIMEOUT_S)

    def _judge(self, keeper: NodeId, reply: SessionReply, now: float) -> None:
        match reply.status:
            case "assigned":
                self._resting.pop(keeper, None)
                self._hops = 0
                if reply.version > self._version:
                    self._take(reply)
            case "deleted":
                if reply.deleted is None or not self._judge_deletion(reply.deleted):
                    self._rest(keeper, now, LIAR_REST_S)
            case "not_keeper":
                self._rest(keeper, now)
                self._hops += 1
                self._redirects = ()
                if self._hops <= MAX_REDIRECTS:
                    self._redirects = tuple(NodeId(node_id) for node_id in reply.keepers)
                else:
                    self._hops = 0
            case "unregistered":
                self._lose()

    def _take(self, assigned: SessionReply | AssignParents) -> None:
        self._version = assigned.version
        self.parents = tuple(NodeId(parent) for parent in assigned.parents)
        self.border = Border(tuple(NodeId(parent) for parent in assigned.far), assigned.shares)

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
        return True

    def _tally(self, report: PieceReport) -> None:
        earlier = self._reports.get(report.parent, ParentReport(report.parent, 0, 0, 0))
        self._reports[report.parent] = ParentReport(
            report.parent,
            earlier.size_bytes + report.size_bytes,
            earlier.elapsed_ms + round(report.elapsed_s * 1000),
            earlier.failures + report.failures,
        )
