"""Records on the heap of events: keeping them, and reading and writing them from any node.

All of it is the code of `gossipcache.dht.records`: the keeper with its coordination of writes, its
comparisons and its upkeep, the asking side, the graves. It is written as procedures, which
`BarePerformer` carries out here. What `records.service` adds to them on Trio is done here again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gossipcache.charter import Deletion
from gossipcache.config import RecordConfig
from gossipcache.dht.membership.member import Member
from gossipcache.dht.records.client import Asked, RecordClient
from gossipcache.dht.records.graves import Graves
from gossipcache.dht.records.keeper import ANSWERS, ASKED, Keeper
from gossipcache.dht.records.publishing import Published, Publisher
from gossipcache.dht.records.reading import Accept, TaskRecord
from gossipcache.dht.records.reminding import Reminder
from gossipcache.dht.records.replication import ReplicationCore, committed_task
from gossipcache.dht.records.standing import Opener, Standing
from gossipcache.dht.records.steps import Steps, Wait
from gossipcache.dht.records.surroundings import Means, Surroundings
from gossipcache.dht.records.verdicts import Absorbed
from gossipcache.errors import GossipcacheError, NotReady
from gossipcache.ids import NodeId, TaskId
from gossipcache.journal import Change
from gossipcache.link.interface import Peer
from gossipcache.manifest import SignedManifest, SignedTombstone
from gossipcache.messages.batches import ReadRecords, WriteRecords
from gossipcache.messages.graves import AskGraves, AskProofs
from gossipcache.messages.records import ReadRecord, WriteRecord
from gossipcache.metrics import Metrics
from gossipcache.wire import Message
from sim.bare.disk import BareDisk
from sim.bare.membership import BareMembership
from sim.bare.outcome import Answer, Outcome
from sim.bare.performing import BarePerformer
from sim.bare.timeline import Timeline

T = TypeVar("T")
WRITE_TIMEOUT_S = 10.0


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

    answers: frozenset[type[Message]] = frozenset((*ASKED, AskGraves, AskProofs, *ANSWERS))

    def __init__(
        self,
        membership: BareMembership,
        timeline: Timeline,
        opener: Opener,
        rng: random.Random,
        *,
        is_scheduler: bool,
        roles_of: Callable[[NodeId], frozenset[str]],
        cluster_id: bytes,
        disk: BareDisk,
        wall_time: Callable[[], float],
        config: RecordConfig | None = None,
    ) -> None:
        self._membership = membership
        self._timeline = timeline
        self._is_scheduler = is_scheduler
        self._roles_of = roles_of
        self._disk = disk
        self._wall_time = wall_time
        self._config = config = config or RecordConfig()
        me = membership.process.node_id
        self._performer = BarePerformer(
            membership.process, timeline, disk, wall_time, self._note_written
        )
        self._means = Means(config, me, Metrics(), opener, rng)
        self._around = self._surroundings()
        ring = self._around.ring
        self._graves = Graves(disk, cluster_id, ring, config.replicas)
        self._reminder = Reminder(me, disk, ring, config.replicas)
        self._client = RecordClient(self._means, self._around, self._answer_itself)
        self._publisher = Publisher(self._client, opener)
        self._myself = membership.core.me
        self._keeper: Keeper | None = None
        self.core: ReplicationCore | None = None
        """Of a scheduler that has joined."""
        self.on_entry: Callable[[TaskId, Standing | None], None] = lambda _task_id, _standing: None
        """Hears of each entry that becomes durable at this keeper, or is dropped."""
        self.on_over: Callable[[TaskId], None] = lambda _task_id: None
        """See `Surroundings.on_over`."""
        membership.on_joined = self._open
        if membership.is_joined and membership.core.me.phase == "active":
            self._open()

    # Keeping.

    def hold(self, standing: Standing) -> None:
        """An entry was committed, and this keeper has it."""
        if self.core is not None:
            absorbed = self.core.absorb(standing, self._wall_time())
            if isinstance(absorbed, Absorbed):
                self._disk.journal.update(
                    (key, value) for key, value in absorbed.changes if value is not None
                )

    def rest(self) -> None:
        """All that has happened so far is long settled."""
        if self._keeper is not None and self.core is not None:
            self._keeper.set_ring(self._membership.ring, self._timeline.now)
            self.core.settling.give_up()

    def on_view_change(self, changed: Sequence[Member], *, new_ring: bool) -> None:
        """Passes on that the ring is another, and that this node refuted its own death."""
        now, before, self._myself = self._timeline.now, self._myself, self._membership.core.me
        is_refuted = (
            self._myself.incarnation > before.incarnation and self._myself.phase == before.phase
        )
        if self._keeper is not None and is_refuted:
            self._keeper.was_away(now)
        if new_ring:
            self._reminder.on_ring_change()
            if self._keeper is not None:
                self._keeper.set_ring(self._membership.ring, now)

    def answer(self, peer: NodeId, message: Message) -> Answer:
        """Answers a request. Raises `GossipcacheError`."""
        return self._performer.perform(self._answer(peer, message))

    def _answer(self, peer: NodeId, message: Message) -> Steps[Any]:
        match message:
            case AskGraves():
                return self._graves.tell(peer, message)
            case AskProofs():
                return self._graves.prove(message)
            case ReadRecord() | ReadRecords() | WriteRecord() | WriteRecords():
                return self._serving().answer(peer, message)
            case _:
                address = self._membership.process.host.address
                known = Peer(peer, b"", self._roles_of(peer), 1, address)
                return ANSWERS[type(message)](self._serving(), known, message)

    def _answer_itself(self, message: Asked) -> Steps[Message]:
        return self._serving().answer(self._means.me, message)

    def _serving(self) -> Keeper:
        if self._keeper is None:
            raise NotReady("this keeper is starting, or the node keeps no records")
        return self._keeper

    def _open(self) -> None:
        """This node is a member: it keeps records, and is active once it has what it should."""
        self._performer.later(0.0, self._perform, self._reminder.loop())
        if not self._is_scheduler:
            self._membership.enter("active")
            return
        now, around = self._timeline.now, self._around
        core = ReplicationCore(self._means.me, around.ring(), self._config, Deletion, now)
        for key, value in self._disk.journal.items():
            core.load(key, value, now)
        self.core = core
        self._keeper = keeper = Keeper(self._means, around, core, self._graves)
        for loop in (*keeper.upkeep.loops(), self._become_active(keeper)):
            self._performer.later(0.0, self._perform, loop)

    def _become_active(self, keeper: Keeper) -> Steps[None]:
        yield Wait(keeper.upkeep.synced)
        if self._membership.core.me.phase == "joining":
            self._membership.enter("active")

    def _note_written(self, change: Change) -> None:
        task_id = committed_task(change)
        if task_id is None or self.core is None:
            return
        standing = self.core.standing(task_id)
        self.on_entry(task_id, standing)
        if standing is not None and (standing.tombstone or standing.generation > 1):
            self.on_over(task_id)

    def _surroundings(self) -> Surroundings:
        membership = self._membership

        def bystanders() -> list[NodeId]:
            return [
                member.node_id
                for member in membership.core.table
                if member.state == "alive" and "scheduler" not in member.roles
            ]

        def may_keep(node: NodeId) -> bool:
            member = membership.core.table.get(node)
            return member is not None and "scheduler" in member.roles

        return Surroundings(
            ring=lambda: membership.ring,
            is_alive=membership.is_alive,
            reach_charter=_reach_none,
            may_keep=may_keep,
            bystanders=bystanders,
            introduce=membership.introduce,
            meet=lambda _teller, records: membership.absorb(records, ()),
        )

    # Reading and writing.

    def look_up(
        self, task_id: TaskId, *, accept: Accept | None = None, timeout_s: float = 10.0
    ) -> Outcome[Lookup]:
        """Reads the record of a task."""
        return self._performer.perform(self._look_up(task_id, accept, timeout_s))

    def _look_up(self, task_id: TaskId, accept: Accept | None, timeout_s: float) -> Steps[Lookup]:
        means = Means(self._config, self._means.me, Metrics(), self._means.opener, self._means.rng)
        client = RecordClient(means, self._around, self._answer_itself)
        started = self._timeline.now
        try:
            record = yield from client.read(task_id, accept, started + timeout_s)
        except GossipcacheError:
            record = None
        redirects = means.metrics.value("record_redirects")
        return Lookup(record, redirects, self._timeline.now - started)

    def read(self, task_id: TaskId, timeout_s: float) -> Outcome[TaskRecord | None]:
        """See `RecordClient.read`."""
        deadline = self._timeline.now + timeout_s
        return self._performer.perform(self._client.read(task_id, None, deadline))

    def publish(
        self,
        candidate: Callable[[int], SignedManifest],
        task_id: TaskId,
        timeout_s: float = WRITE_TIMEOUT_S,
    ) -> Outcome[Published]:
        """See `Publisher.publish`."""
        deadline = self._timeline.now + timeout_s
        return self._performer.perform(self._publisher.publish(candidate, task_id, deadline))

    def publish_many(self, manifests: Sequence[SignedManifest]) -> Outcome[dict[TaskId, Published]]:
        """See `Publisher.publish_many`."""
        return self._performer.perform(self._publisher.publish_many(manifests))

    def bury(self, tombstone: SignedTombstone, timeout_s: float = WRITE_TIMEOUT_S) -> Outcome[int]:
        """See `Publisher.bury`."""
        deadline = self._timeline.now + timeout_s
        return self._performer.perform(self._publisher.bury(tombstone, deadline))

    def restore(
        self, manifest: SignedManifest, timeout_s: float = WRITE_TIMEOUT_S
    ) -> Outcome[bool]:
        """See `Publisher.restore`."""
        deadline = self._timeline.now + timeout_s
        return self._performer.perform(self._publisher.restore(manifest, deadline))

    def _perform(self, loop: Steps[None]) -> None:
        self._performer.perform(loop)


async def _reach_none(number: int) -> None:
    raise NotReady(f"there is no charter {number}")
