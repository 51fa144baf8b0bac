"""What one keeper holds of each task, and what it lets others write: the core.

A write is prepared on W keepers (a provisional entry each, which expires), then committed. A
keeper lets one candidate at a time through for a task and only for the generation after its
own, so that of two coordinators at most one reaches W = 2 of 3 (compare-and-swap by quorum).
Committed entries then spread by `absorb`, whose merge has one outcome in any order.

Inputs carry `now` (monotonic) or `wall_s` (since 1970), in seconds. What must become durable
comes back as journal changes, to be written before anyone is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gossipcache.charter import Deletion
from gossipcache.config import RecordConfig
from gossipcache.dht.records.antientropy import SharedView, Views
from gossipcache.dht.records.burial import BurialRights, is_of_same_publisher
from gossipcache.dht.records.hearsay import HEARSAY, Hearsay
from gossipcache.dht.records.provisional import Provisional
from gossipcache.dht.records.settling import Settling
from gossipcache.dht.records.standing import Standing, merge, trusted_entry
from gossipcache.dht.records.unproven import Unproven
from gossipcache.dht.records.verdicts import (
    Absorbed,
    Contested,
    Full,
    NotYet,
    Ready,
    Refused,
    Verdict,
)
from gossipcache.dht.ring import Ring
from gossipcache.errors import Busy, NotPermitted, UsageError
from gossipcache.ids import NodeId, TaskId
from gossipcache.journal import Change
from gossipcache.messages.records import RecordEntry
from gossipcache.wire import decode

CLOCK_SKEW_S = 300.0
"""How far the clocks of two nodes may differ."""

MAX_RESTORED_JUMP = 1000
"""By how many generations a record that its keepers lost may be ahead of what they learnt again."""

_COMMITTED = b"s"
_AGREE_STEP = 500


def committed_task(change: Change) -> TaskId | None:
    """The task whose committed entry a change of the journal sets or removes, if it does."""
    key = change[0]
    return TaskId(key[1:]) if key[:1] == _COMMITTED else None


class ReplicationCore:
    """The entries of one keeper and the rules for changing them."""

    def __init__(
        self,
        me: NodeId,
        ring: Ring,
        config: RecordConfig,
        deletion: Callable[[], Deletion],
        now: float,
    ) -> None:
        """`deletion` gives what is known now of who may delete."""
        self.me = me
        self._config = config
        self.rights = BurialRights(deletion)
        self._standing: dict[TaskId, Standing] = {}
        self._provisional = Provisional(config.provisional_ttl_s)
        self.views = Views(config.replicas, self._standing)
        self._unproven = Unproven()
        self._hearsay = Hearsay()
        self.settling = Settling(me, ring, config, now)

    # What is held

    def __len__(self) -> int:
        return len(self._standing)

    def standing(self, task_id: TaskId) -> Standing | None:
        """The committed entry of a task."""
        return self._standing.get(task_id)

    def load(self, key: bytes, value: bytes, now: float) -> None:
        """Takes one entry of the own journal. Raises `ProtocolError`."""
        if key[:1] == HEARSAY:
            self._hearsay.load(TaskId(key[1:]), value)
            return
        standing = trusted_entry(decode(value, RecordEntry))
        if key[:1] == _COMMITTED:
            self._standing[standing.task_id] = standing
        else:
            self._provisional.load(standing, self.me, now)

    def keepers(self, task_id: TaskId) -> tuple[NodeId, ...]:
        """Who keeps the task on the present ring, owner first."""
        return self.ring.keepers(task_id, self._config.replicas)

    def joining_keepers(self, task_id: TaskId, now: float) -> list[NodeId]:
        """Who will keep the task too, and has been given all that was there before."""
        count = self._config.replicas
        return [
            node
            for node in self.settling.expects(now)
            if node in self.ring_with(node).keepers(task_id, count)
        ]

    @property
    def ring(self) -> Ring:
        """The present ring."""
        return self.settling.ring

    def ring_with(self, peer: NodeId) -> Ring:
        """The ring that a joining `peer`, which is not on it yet, will see."""
        ring = self.ring
        return ring if peer in ring.members else ring.with_members((*ring.members, peer))

    def knows_absence(self, task_id: TaskId, now: float) -> bool:
        """Whether holding nothing of the task proves something."""
        return self.settling.is_settled(task_id, now) and not self._hearsay.is_disputed(task_id)

    def is_hearsay(self, task_id: TaskId) -> bool:
        """Whether one keeper alone told this one of the task."""
        return task_id in self._hearsay

    # Writing

    def prepare(
        self,
        candidate: Standing,
        coordinator: NodeId,
        *,
        restore: bool,
        now: float,
        wall_s: float,
    ) -> Verdict:
        """Judges a write. Raises `NotPermitted`, `UsageError` (clock, expiry), `Busy` (full)."""
        task_id = candidate.task_id
        if self._hearsay.is_disputed(task_id):
            return NotYet("those who told this keeper of the task differ", behind=True)
        if candidate.tombstone is not None:
            against = self._against_tombstone(candidate)
        else:
            against = self._against_manifest(candidate, restore, now, wall_s)
        if against is not None:
            return against
        if self._provisional.is_taken(candidate, now):
            return NotYet("another write of the task is under way")
        self._provisional.check_room(task_id)
        if len(self._standing) >= self._config.max_records and task_id not in self._standing:
            raise Busy(f"this keeper has its limit of {self._config.max_records} records")
        is_told = restore and task_id not in self._standing
        return Ready(self._provisional.prepare(candidate, coordinator, now, is_told=is_told))

    def _against_manifest(
        self, candidate: Standing, restore: bool, now: float, wall_s: float
    ) -> Verdict | None:
        _check_times(candidate, wall_s)
        own = self._standing.get(candidate.task_id)
        if own is None:
            if restore:
                return None
            if not self.knows_absence(candidate.task_id, now):
                return NotYet("this keeper is recovering")
            return None if candidate.generation == 1 else Refused(None)
        jump = candidate.generation - own.generation
        if own.is_live(wall_s) or not 1 <= jump <= (MAX_RESTORED_JUMP if restore else 1):
            return Refused(own)
        return None

    def _against_tombstone(self, candidate: Standing) -> Verdict | None:
        own = self._standing.get(candidate.task_id)
        if self.rights.lacks_charter(candidate):
            return NotYet("this keeper has not got the charter that the deletion names")
        if not self.rights.may_bury(candidate, own, vouched=False):
            raise NotPermitted("only its publisher may delete this task (delete_policy)")
        if own is None or own.generation < candidate.generation:
            return NotYet("this keeper has not got the manifest", behind=True)
        if own.generation > candidate.generation or own.tombstone is not None:
            return Refused(own)
        return None

    def commit(self, candidate: Standing, coordinator: NodeId) -> tuple[Change, ...] | None:
        """Makes a prepared candidate stand; None if it is not prepared here by `coordinator`."""
        return self.commit_version(candidate.task_id, candidate.version, coordinator)

    def commit_version(
        self, task_id: TaskId, version: bytes, coordinator: NodeId
    ) -> tuple[Change, ...] | None:
        """`commit` of the candidate of that version."""
        prepared = self._provisional.find(task_id, version, coordinator)
        if prepared is None:
            return None
        changes = self._take_over(prepared.standing, prepared.teller)
        return (*changes, *self._provisional.end(task_id))

    def withdraw(self, task_id: TaskId, version: bytes, coordinator: NodeId) -> tuple[Change, ...]:
        """Forgets a prepared candidate."""
        return self._provisional.withdraw(task_id, version, coordinator)

    # Spreading

    def absorb(
        self,
        candidate: Standing,
        wall_s: float,
        *,
        vouched: bool = False,
        teller: NodeId | None = None,
    ) -> Absorbed | Contested | Full:
        """Merges an entry of which another keeper, `teller`, says that it is committed.

        Without `vouched` nothing that lives here is replaced, except by a tombstone of it that
        its signer may sign: so a single lying keeper cannot put its own in the place of others'.
        """
        own = self._standing.get(candidate.task_id)
        if _is_spent(candidate, wall_s):
            return Absorbed()
        if self.rights.lacks_charter(candidate) or not self.rights.may_bury(
            candidate, own, vouched=True
        ):
            return Contested()
        if own is None:
            full = len(self._standing) >= self._config.max_records
            return Full() if full else Absorbed(self._take_over(candidate, teller))
        if vouched or self._follows(candidate, own, wall_s):
            return Absorbed(self._take_over(candidate, teller, vouched=vouched))
        said = self.heard(teller, candidate)
        own = self._standing[candidate.task_id]
        is_outdone = merge(own, candidate).version == own.version
        if is_outdone and not self._hearsay.is_disputed(candidate.task_id):
            return Absorbed(said)
        return Contested(said)

    def heard(self, teller: NodeId | None, standing: Standing) -> tuple[Change, ...]:
        """`teller` holds `standing`, and is not known to have it by hearsay."""
        task_id, version = standing.task_id, standing.version
        if teller is None or task_id not in self._hearsay:
            return ()
        changes = self._hearsay.note(task_id, teller, version)
        if not self._hearsay.is_agreed(task_id, version):
            return changes
        own = self._standing.get(task_id)
        if own is None or own.version != version:
            # Who told of the other stands alone, be it the later one.
            changes = self._set(standing)
        return (*changes, *self._hearsay.end(task_id))

    def agreed(self, node: NodeId, view: SharedView) -> Iterator[tuple[Change, ...]]:
        """`node` has the same of all that both keep: in steps between which other work may run."""
        for number, task_id in enumerate(self._hearsay.tasks()):
            own = self._standing.get(task_id)
            if own is not None and node in view.keepers(task_id):
                yield self.heard(node, own)
            elif number % _AGREE_STEP == _AGREE_STEP - 1:
                yield ()

    def lacks_deletion(self, task_id: TaskId, generation: int) -> bool:
        """Whether this keeper of the task has not heard that `generation` of it is deleted."""
        if self.me not in self.keepers(task_id):
            return False
        own = self._standing.get(task_id)
        if own is None:
            return all(one.generation < generation for one in self._unproven.of(task_id))
        return own.generation < generation or (
            own.generation == generation and own.tombstone is None
        )

    def recall(
        self, candidate: Standing, wall_s: float, *, own_memory: bool = False
    ) -> Absorbed | Contested | Full:
        """Merges a deletion that a node remembers, be it of a later generation than is known here.

        It needs no other voucher than whoever may delete needs; so nothing can be done by it that
        a delete could not do. Where only publishers delete, and no manifest is known here to tell
        who that is, another's memory waits for one.
        """
        own = self._standing.get(candidate.task_id)
        if self.rights.lacks_charter(candidate) or not self.rights.may_bury(
            candidate, own, vouched=False
        ):
            return Contested()
        strict = self.rights.is_strict
        if own is None and strict and not own_memory:
            self._unproven.keep(candidate)
            return Contested()
        if own is None or candidate.generation == own.generation:
            return self.absorb(candidate, wall_s)
        if merge(own, candidate).version == own.version:
            return Absorbed()
        if strict and not is_of_same_publisher(candidate, own):
            return Contested()
        return Absorbed(self._merge(candidate))

    def _follows(self, candidate: Standing, own: Standing, wall_s: float) -> bool:
        if candidate.tombstone is not None and candidate.generation == own.generation:
            named = candidate.tombstone.manifest.name
            known = own.tombstone is not None or named in [one.name for one in own.manifests]
            return known and self.rights.may_bury(candidate, own, vouched=False)
        return not own.is_live(wall_s) and candidate.generation == own.generation + 1

    def _take_over(
        self, candidate: Standing, teller: NodeId | None, *, vouched: bool = False
    ) -> tuple[Change, ...]:
        """Merges, and minds from whom this keeper has it."""
        task_id = candidate.task_id
        is_told = task_id not in self._standing and teller is not None
        changes = self._merge(candidate)
        if vouched:
            return (*changes, *self._hearsay.end(task_id))
        if changes and (is_told or task_id in self._hearsay):
            source = None if teller == self.me else teller
            version = self._standing[task_id].version
            return (*changes, *self._hearsay.begin(task_id, source, version))
        return changes

    def _merge(self, candidate: Standing) -> tuple[Change, ...]:
        task_id = candidate.task_id
        own = self._standing.get(task_id)
        merged = candidate if own is None else merge(own, candidate)
        for deletion in self._unproven.of(task_id):
            if (
                merged.tombstone is None
                and deletion.generation >= merged.generation
                and is_of_same_publisher(deletion, merged)
                and self.rights.may_bury(deletion, merged, vouched=False)
            ):
                merged = merge(merged, deletion)
        if own is not None and merged.version == own.version:
            return ()
        return self._set(merged)

    def _set(self, standing: Standing) -> tuple[Change, ...]:
        self._standing[standing.task_id] = standing
        self.views.note(standing.task_id, standing.version)
        return ((_COMMITTED + standing.task_id, self._provisional.encoded(standing)),)

    def drop(self, task_id: TaskId) -> tuple[Change, ...]:
        """Forgets an entry that others keep now, or that is spent."""
        if self._standing.pop(task_id, None) is None:
            return ()
        self.views.note(task_id, None)
        return ((_COMMITTED + task_id, None), *self._hearsay.end(task_id))

    # Time

    def next_timeout(self) -> float | None:
        """When the next provisional entry expires."""
        return self._provisional.next_timeout()

    def handle_timeout(self, now: float) -> tuple[Change, ...]:
        """Forgets provisional entries whose time is over."""
        return self._provisional.expire(now)

    def spent(self, wall_s: float) -> list[TaskId]:
        """Tasks whose manifests expired so long ago that all clocks agree. Later generations are
        kept: they are the proof that the earlier ones are over."""
        return [key for key, one in self._standing.items() if _is_spent(one, wall_s)]

    def set_ring(self, ring: Ring, now: float) -> None:
        """Takes a new ring."""
        self.settling.set_ring(ring, now)


def _check_times(candidate: Standing, wall_s: float) -> None:
    for one in candidate.manifests:
        expires_at = one.manifest.expires_at
        if expires_at is not None and expires_at + CLOCK_SKEW_S < wall_s:
            raise UsageError("the task's time to live is already over", "give a longer --ttl")
        if one.manifest.created_at > wall_s + CLOCK_SKEW_S:
            raise UsageError(
                "the manifest was signed in the future",
                "set the clocks of the nodes, `gossipcache doctor` compares them",
            )


def _is_spent(standing: Standing, wall_s: float) -> bool:
    return (
        standing.tombstone is None
        and standing.generation == 1
        and not standing.is_live(wall_s - CLOCK_SKEW_S)
    )
