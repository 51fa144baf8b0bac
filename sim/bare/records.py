"""Records on the heap of events: what keepers hold, and reading it from any node.

The cores are those of `gossipcache.dht.records`: `ReplicationCore` on each scheduler, `ReadTally`
for each read. Reading goes in rounds, with hedging and redirects, as `records.client` does it. Of
writing and X"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from gossipcache.charter import Deletion
from gossipcache.config import RecordConfig
from gossipcache.dht.membership.member import Member
from gossipcache.dht.records.client import FIRST_ASKED
from gossipcache.dht.records.reading import Absent, Accept, Fork, ReadTally, TaskRecord
from gossipcache.dht.records.replication import ReplicationCore
from gossipcache.dht.records.standing import Standing
from gossipcache.dht.records.upkeep import GATHER_S
from gossipcache.dht.records.verdicts import Absorbed
from gossipcache.dht.ring import Ring
from gossipcache.errors import GossipcacheError, ProtocolError
from gossipcache.ids import NodeId, TaskId
from gossipcache.messages.records import (
    BUCKET_DIGEST_BYTES,
    MAX_ENTRIES,
    CompareShared,
    PushRecords,
    ReadRecord,
    RecordAnswer,
    RecordEntry,
    RecordsTaken,
    SharedCompared,
)
from gossipcache.wire import Message
from sim.bare.membership import BareMembership
from sim.bare.outcome import Outcome, begin
from sim.bare.timeline import Timeline

Open = Callable[[RecordEntry], Standing]
"""Checks an entry that came from another node; see `standing.Opener`."""

_FIRST_BACKOFF_S = 0.05
_MAX_BACKOFF_S = 1.0
_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Lookup:
    """What came of one read."""

    record: TaskRecord | None
    """None: there certainly is none, or it could not be had in time."""
    redirects: int
    """How often an answer named keepers that were not known to be asked."""
    took_s: float


class BareRecords:
    """The records as one process sees them."""

    answers: frozenset[type[Message]] = frozenset((ReadRecord, CompareShared, PushRecords))

    def __init__(
        self,
        membership: BareMembership,
        timeline: Timeline,
        opener: Open,
        rng: random.Random,
        *,
        is_scheduler: bool,
        wall_time: Callable[[], float],
        config: RecordConfig | None = None,
    ) -> None:
        self._membership = membership
        self._process = membership.process
        self._timeline = timeline
        self._open = opener
        self._rng = rng
        self._wall_time = wall_time
        self._config = config or RecordConfig()
        self._is_due = False
        self._tasks: dict[TaskId, None] = {}
        self.core: ReplicationCore | None = None
        """Of a scheduler."""
        if is_scheduler:
            now = timeline.now
            self.core = ReplicationCore(
                self._process.node_id, membership.ring, self._config, Deletion, now
            )

    # Keeping.

    def hold(self, standing: Standing) -> None:
        """An entry was committed, and this keeper has it."""
        if self.core is not None:
            self._tasks[standing.task_id] = None
            self.core.absorb(standing, self._wall_time())

    def rest(self) -> None:
        """All that has happened so far is long settled."""
        if self.core is not None:
            self.core.set_ring(self._membership.ring, self._timeline.now)
            self.core.settling.give_up()

    def on_view_change(self, changed: Sequence[Member], *, new_ring: bool) -> None:
        """A ring is taken once it rests."""
        if new_ring:
            self._take_ring_later()

    def _take_ring_later(self) -> None:
        if self.core is not None and not self._is_due:
            self._is_due = True
            self._timeline.push(
                self._timeline.now + GATHER_S, self._process.step, self._take_ring, self.core
            )

    def answer(self, peer: NodeId, message: Message) -> Message:
        """Answers a request. Raises `GossipcacheError`."""
        core = self.core
        if core is None:
            raise ProtocolError("this node keeps no records")
        match message:
            case ReadRecord(task_id=asked, epoch=epoch):
                return self._answer_read(core, TaskId(asked), epoch)
            case CompareShared():
                begin(self._give(core, peer))
                return SharedCompared(
                    epoch=_with(core.ring, peer).epoch, equal=False, graves=0, recovering_ms=0
                )
            case PushRecords(entries=entries):
                return self._take(core, peer, entries)
            case _:
                raise ProtocolError(f"no bare keeper answers {type(message).__name__}")

    def _answer_read(self, core: ReplicationCore, task_id: TaskId, epoch: bytes) -> RecordAnswer:
        keepers = core.keepers(task_id)
        answer = self._known(core, task_id)
        if answer.state != "not_keeper" and epoch == core.ring.epoch:
            return answer
        met = self._membership.introduce(keepers)
        return replace(answer, keepers=keepers, introductions=met)

    def _known(self, core: ReplicationCore, task_id: TaskId) -> RecordAnswer:
        standing = core.standing(task_id)
        if core.me not in core.keepers(task_id):
            return RecordAnswer(state="not_keeper")
        settled = core.knows_absence(task_id, self._timeline.now)
        if standing is not None:
            return RecordAnswer(state="held", entry=standing.entry, settled=settled)
        return RecordAnswer(state="absent" if settled else "recovering")

    # Repair.

    def _take_ring(self, core: ReplicationCore) -> None:
        self._is_due = False
        core.set_ring(self._membership.ring, self._timeline.now)
        for node in core.settling.waiting():
            begin(self._compare(core, node))
        if not core.settling.settled:
            self._timeline.push(self._timeline.now + _RETRY_S, self._process.step, self._retry)

    def _retry(self) -> None:
        core = self.core
        if core is not None and not core.settling.settled:
            if self._timeline.now >= core.settling.gives_up_at():
                core.settling.give_up()
            self._take_ring_later()

    async def _compare(self, core: ReplicationCore, node: NodeId) -> None:
        """Asks `node` for all that it shares with this keeper; it pushes that before the answer
        counts, since one connection carries both in order."""
        asked = CompareShared(epoch=core.ring.epoch, digest=bytes(BUCKET_DIGEST_BYTES), graves=0)
        try:
            compared = await self._request(node, asked)
        except GossipcacheError:
            return
        core.settling.compared(node, compared.epoch, self._timeline.now)

    async def _give(self, core: ReplicationCore, node: NodeId) -> None:
        ring = _with(core.ring, node)
        shared = [
            standing.entry
            for task_id in self._tasks
            if node in ring.keepers(task_id, self._config.replicas)
            and (standing := core.standing(task_id)) is not None
        ]
        with suppress(GossipcacheError):
            for start in range(0, len(shared), MAX_ENTRIES):
                batch = tuple(shared[start : start + MAX_ENTRIES])
                await self._process.links.notify(node, PushRecords(entries=batch))

    def _take(
        self, core: ReplicationCore, peer: NodeId, entries: tuple[RecordEntry, ...]
    ) -> RecordsTaken:
        taken = 0
        for entry in entries:
            standing = self._open(entry)
            self._tasks[standing.task_id] = None
            absorbed = core.absorb(standing, self._wall_time(), teller=peer)
            taken += isinstance(absorbed, Absorbed)
        return RecordsTaken(count=taken)

    # Reading.

    def look_up(
        self, task_id: TaskId, *, accept: Accept | None = None, timeout_s: float = 10.0
    ) -> Outcome[Lookup]:
        """Reads the record of a task."""
        outcome: Outcome[Lookup] = Outcome()
        begin(self._read(task_id, accept, self._timeline.now + timeout_s, outcome))
        return outcome

    async def _read(
        self, task_id: TaskId, accept: Accept | None, deadline: float, outcome: Outcome[Lookup]
    ) -> None:
        """See `RecordClient.read`."""
        started, count = self._timeline.now, self._config.replicas
        told: tuple[NodeId, ...] = ()
        redirecting: set[NodeId] = set()
        redirects = 0
        backoff_s = _FIRST_BACKOFF_S
        found: TaskRecord | Absent | Fork | None = None
        while self._timeline.now < deadline:
            keepers = self._membership.ring.keepers(task_id, count)
            needed = max(1, min(self._config.write_quorum, len(keepers)))
            tally = ReadTally(needed, accept, self._wall_time())
            asked = dict.fromkeys((*told, *keepers))
            nodes = tuple(node for node in asked if node not in redirecting) or keepers
            question = ReadRecord(task_id=task_id, epoch=self._membership.ring.epoch)
            found, followed = await self._read_round(nodes, question, tally)
            redirects += followed
            if found is not None:
                break
            told = tally.redirects or told
            redirecting = tally.redirecting | (redirecting - set(nodes))
            await self._sleep(backoff_s * self._rng.uniform(0.5, 1.5))
            backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)
        record = found if isinstance(found, TaskRecord) else None
        outcome.set(Lookup(record, redirects, self._timeline.now - started))

    async def _read_round(
        self, nodes: tuple[NodeId, ...], question: ReadRecord, tally: ReadTally
    ) -> tuple[TaskRecord | Absent | Fork | None, int]:
        """Asks the first nodes at once, each further one when an answer fails or is slow; last
        those to whom some node redirects. Also how often one did."""
        known = list(nodes)
        begun = running = redirects = 0
        heard: Outcome[bool] = Outcome()

        async def ask(node: NodeId) -> None:
            nonlocal running, redirects
            await self._read_one(node, question, tally)
            news = [one for one in tally.redirects if one not in known]
            redirects += bool(news)
            known.extend(news)
            running -= 1
            heard.set(True)

        def ask_next() -> None:
            nonlocal begun, running
            begun, running = begun + 1, running + 1
            begin(ask(known[begun - 1]))

        while begun < len(known) or running:
            heard = Outcome()
            while begun < len(known) and running < FIRST_ASKED:
                ask_next()
            self._later(self._config.read_budget_s, heard.set, False)
            in_time = await heard
            if (decision := tally.decision()) is not None:
                return decision, redirects
            if not in_time and begun < len(known):
                ask_next()
        return None, redirects

    async def _read_one(self, node: NodeId, question: ReadRecord, tally: ReadTally) -> None:
        try:
            answer: RecordAnswer = await self._request(node, question)
        except GossipcacheError:
            return
        if answer.entry is not None:
            tally.held(node, self._open(answer.entry), settled=answer.settled)
        elif answer.state == "absent":
            tally.absent(node)
        elif answer.state == "not_keeper":
            tally.no_keeper(node)
        if answer.introductions:
            self._membership.absorb(answer.introductions, ())
        tally.told(NodeId(keeper) for keeper in answer.keepers)

    def _request(self, node: NodeId, message: Message) -> Outcome[Any]:
        return self._process.request(node, message, self._config.request_timeout_s)

    def _sleep(self, seconds: float) -> Outcome[None]:
        over: Outcome[None] = Outcome()
        self._later(seconds, over.set, None)
        return over

    def _later(self, wait_s: float, work: Callable[..., None], *args: object) -> None:
        self._timeline.push(self._timeline.now + wait_s, self._process.step, work, *args)


def _with(ring: Ring, node: NodeId) -> Ring:
    return ring if node in ring.members else ring.with_members((*ring.members, node))
