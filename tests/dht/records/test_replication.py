"""The rules of one keeper: who may write what, and what is merged."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipcache.charter import Deletion, PolicyChange
from gossipcache.config import DeletePolicy, RecordConfig
from gossipcache.dht.records.provisional import MAX_PROVISIONAL
from gossipcache.dht.records.replication import ReplicationCore
from gossipcache.dht.records.standing import Standing, standing_manifest, standing_tombstone
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
from gossipcache.ids import NodeId
from gossipcache.manifest import SignedManifest, sign_tombstone
from tests.dht.records.harness import (
    EPOCH_S,
    identity,
    manifest,
    task,
    tombstone,
    who_may_delete,
)

CID = "a task"
NODES = tuple(identity(number).node_id for number in range(3))
RING = Ring(NODES)
ONE = manifest(CID, 1, "one")
TWO = manifest(CID, 1, "two")


def keeper(
    me: NodeId = NODES[0],
    policy: DeletePolicy = "any",
    config: RecordConfig | None = None,
    settled: bool = True,
) -> ReplicationCore:
    core = ReplicationCore(me, RING, config or RecordConfig(), who_may_delete(policy), 0.0)
    if settled:
        core.settling.give_up()
    return core


def prepare(
    core: ReplicationCore,
    candidate: Standing | SignedManifest,
    *,
    coordinator: NodeId = NODES[0],
    restore: bool = False,
    now: float = 0.0,
) -> Verdict:
    if isinstance(candidate, SignedManifest):
        candidate = standing_manifest(candidate)
    return core.prepare(candidate, coordinator, restore=restore, now=now, wall_s=EPOCH_S + now)


def committed(core: ReplicationCore, candidate: SignedManifest) -> ReplicationCore:
    assert isinstance(core.absorb(standing_manifest(candidate), EPOCH_S), Absorbed)
    return core


def buried(core: ReplicationCore, dead: SignedManifest) -> ReplicationCore:
    core.absorb(standing_tombstone(tombstone(dead)), EPOCH_S)
    return core


def test_what_is_prepared_is_not_held_before_the_commit() -> None:
    core = keeper()
    verdict = prepare(core, ONE)
    assert isinstance(verdict, Ready)
    assert verdict.changes
    assert core.standing(task(CID)) is None
    assert core.commit(standing_manifest(ONE), NODES[0])
    assert core.standing(task(CID)) == standing_manifest(ONE)


def test_one_candidate_at_a_time() -> None:
    core = keeper()
    assert isinstance(prepare(core, ONE), Ready)
    assert isinstance(prepare(core, TWO), NotYet)
    assert isinstance(prepare(core, ONE), Ready)  # The same again does no harm.
    core.withdraw(task(CID), standing_manifest(ONE).version, NODES[0])
    assert isinstance(prepare(core, TWO), Ready)


def test_a_provisional_entry_expires() -> None:
    core = keeper()
    prepare(core, ONE)
    assert core.next_timeout() == 10.0
    assert isinstance(prepare(core, TWO, now=9.9), NotYet)
    assert core.handle_timeout(10.0)
    assert core.next_timeout() is None
    assert isinstance(prepare(core, TWO, now=10.0), Ready)


def test_only_the_coordinator_that_prepared_commits_or_withdraws() -> None:
    core = keeper()
    prepare(core, ONE, coordinator=NODES[1])
    assert core.commit(standing_manifest(ONE), NODES[2]) is None
    assert core.withdraw(task(CID), standing_manifest(ONE).version, NODES[2]) == ()
    assert core.commit(standing_manifest(ONE), NODES[1])


@pytest.mark.parametrize("generation", [1, 3, 9])
def test_only_the_next_generation_is_taken(generation: int) -> None:
    core = buried(committed(keeper(), ONE), ONE)
    assert isinstance(prepare(core, manifest(CID, generation, "new")), Refused)
    assert isinstance(prepare(core, manifest(CID, 2, "new")), Ready)


def test_a_first_generation_is_one() -> None:
    assert prepare(keeper(), manifest(CID, 2)) == Refused(None)


def test_what_lives_is_not_replaced() -> None:
    core = committed(keeper(), ONE)
    for other in (TWO, manifest(CID, 2, "two")):
        assert prepare(core, other) == Refused(standing_manifest(ONE))


def test_a_recovering_keeper_does_not_vouch_for_absence_but_takes_a_restored_record() -> None:
    core = keeper(settled=False)
    assert isinstance(prepare(core, ONE), NotYet)
    assert isinstance(prepare(core, manifest(CID, 4), restore=True), Ready)


def test_a_restored_record_does_not_bring_back_a_deleted_one() -> None:
    core = buried(committed(keeper(), ONE), ONE)
    assert isinstance(prepare(core, ONE, restore=True), Refused)


def test_a_tombstone_needs_the_manifest_that_it_deletes() -> None:
    candidate = standing_tombstone(tombstone(ONE))
    assert prepare(keeper(), candidate) == NotYet(
        "this keeper has not got the manifest", behind=True
    )
    assert isinstance(prepare(committed(keeper(), ONE), candidate), Ready)


def test_expired_and_future_manifests_are_refused_beyond_the_clock_skew() -> None:
    core = keeper()
    with pytest.raises(UsageError, match="time to live"):
        prepare(core, manifest(CID, expires_at=int(EPOCH_S) - 301))
    with pytest.raises(UsageError, match="future"):
        prepare(core, ONE, now=-301.0)
    assert isinstance(prepare(core, manifest(CID, expires_at=int(EPOCH_S) - 299)), Ready)


def test_an_expired_first_generation_is_collected_later_ones_are_kept_as_proof() -> None:
    core = committed(keeper(), manifest(CID, 1, expires_at=int(EPOCH_S) + 10))
    committed(core, manifest("later", 2, expires_at=int(EPOCH_S) + 10))
    assert core.spent(EPOCH_S + 300) == []
    assert core.spent(EPOCH_S + 311) == [task(CID)]
    assert core.drop(task(CID))
    assert core.standing(task(CID)) is None


def test_a_full_keeper_says_so() -> None:
    core = committed(keeper(config=RecordConfig(max_records=1)), ONE)
    with pytest.raises(Busy):
        prepare(core, manifest("another"))


def test_under_the_publisher_policy_a_forged_manifest_gives_no_right() -> None:
    liar = identity(66)
    core = committed(keeper(policy="publisher"), ONE)
    for dead in (ONE, manifest(CID, 1, "forged", liar)):
        forged = standing_tombstone(tombstone(dead, liar))
        with pytest.raises(NotPermitted):
            prepare(core, forged)
        assert core.absorb(forged, EPOCH_S) == Contested()
    assert isinstance(prepare(core, standing_tombstone(tombstone(ONE))), Ready)


def test_under_the_publisher_policy_a_rival_of_ones_own_gives_no_right_over_the_others() -> None:
    liar = identity(66)
    rival = manifest(CID, 1, "rival", liar)
    core = committed(keeper(policy="publisher"), ONE)
    core.absorb(standing_manifest(rival), EPOCH_S, vouched=True)  # a fork now
    forged = standing_tombstone(tombstone(rival, liar))
    with pytest.raises(NotPermitted):
        prepare(core, forged)
    assert core.absorb(forged, EPOCH_S, vouched=True) == Contested()


def test_a_made_up_deletion_that_a_new_keeper_hears_of_does_not_outlast_the_manifest() -> None:
    liar = identity(66)
    for generation in (1, 2):
        core = keeper(policy="publisher", settled=False)
        made_up = standing_tombstone(tombstone(manifest(CID, generation, "forged", liar), liar))
        assert core.recall(made_up, EPOCH_S) == Contested()
        assert core.standing(task(CID)) is None
        core.absorb(standing_manifest(ONE), EPOCH_S)
        assert core.standing(task(CID)) == standing_manifest(ONE)


def test_a_true_deletion_that_a_new_keeper_hears_of_meets_the_manifest_when_it_comes_back() -> None:
    core = keeper(policy="publisher", settled=False)
    core.recall(standing_tombstone(tombstone(ONE)), EPOCH_S)
    assert not core.lacks_deletion(task(CID), 1)
    core.absorb(standing_manifest(ONE), EPOCH_S)
    assert core.standing(task(CID)) == standing_tombstone(tombstone(ONE))


def deletion_under(number: int) -> Standing:
    """A deletion of `ONE` by somebody else, who knew charter `number`."""
    dead = sign_tombstone(ONE, identity(66), policy_number=number, deleted_at=int(EPOCH_S))
    return standing_tombstone(dead)


@pytest.mark.parametrize(
    ("present", "named", "may_delete", "may_have_deleted"),
    [
        (2, 2, True, True),
        (3, 2, False, True),  # who deletes now cannot choose an earlier charter
        (3, 3, False, False),
        (4, 3, False, False),
        (5, 4, False, False),
        (5, 5, True, True),
    ],
)
def test_a_deletion_stands_before_the_charter_that_it_names_and_a_new_one_before_the_last_too(
    present: int, named: int, may_delete: bool, may_have_deleted: bool
) -> None:
    history = (PolicyChange(0, "any"), PolicyChange(3, "publisher"), PolicyChange(5, "any"))
    deletion = Deletion(present, tuple(one for one in history if one.number <= present))
    core = ReplicationCore(NODES[0], RING, RecordConfig(), lambda: deletion, 0.0)
    core.settling.give_up()
    committed(core, ONE)
    if may_delete:
        assert isinstance(prepare(core, deletion_under(named)), Ready)
    else:
        with pytest.raises(NotPermitted):
            prepare(core, deletion_under(named))
    taken = core.absorb(deletion_under(named), EPOCH_S, vouched=True)
    assert isinstance(taken, Absorbed if may_have_deleted else Contested)


def test_a_deletion_under_a_charter_that_is_not_known_waits() -> None:
    core = committed(keeper(policy="publisher"), ONE)
    assert core.rights.lacks_charter(deletion_under(1))
    assert isinstance(prepare(core, deletion_under(1)), NotYet)
    assert core.absorb(deletion_under(1), EPOCH_S, vouched=True) == Contested()


@pytest.mark.parametrize(
    "forged",
    [
        standing_manifest(manifest(CID, 1, "forged")),
        standing_manifest(manifest(CID, 2, "forged")),
        standing_tombstone(tombstone(manifest(CID, 2**62, "forged"))),
        standing_tombstone(tombstone(manifest(CID, 1, "forged"))),
    ],
)
def test_one_keeper_alone_cannot_replace_what_lives_here(forged: Standing) -> None:
    core = committed(keeper(), ONE)
    assert core.absorb(forged, EPOCH_S) == Contested()
    assert core.standing(task(CID)) == standing_manifest(ONE)
    assert core.absorb(forged, EPOCH_S, vouched=True) != Contested()


def test_absorbing_twice_changes_nothing() -> None:
    core = committed(keeper(), ONE)
    assert core.absorb(standing_manifest(ONE), EPOCH_S) == Absorbed()


def test_the_journal_brings_everything_back() -> None:
    core, again = keeper(), keeper()
    absorbed = core.absorb(standing_manifest(ONE), EPOCH_S)
    assert isinstance(absorbed, Absorbed)
    verdict = prepare(core, manifest("other"))
    assert isinstance(verdict, Ready)
    for key, value in (*absorbed.changes, *verdict.changes):
        assert value is not None
        again.load(key, value, now=0.0)
    assert again.standing(task(CID)) == standing_manifest(ONE)
    assert isinstance(prepare(again, manifest("other", 1, "else")), NotYet)


@settings(max_examples=150)
@given(st.integers(0, 10**9))
def test_two_coordinators_never_both_commit_one_generation(seed: int) -> None:
    rng = random.Random(seed)
    cores = {node: keeper(node) for node in NODES}
    writers = [Writer(cores, ONE, NODES[0], rng), Writer(cores, TWO, NODES[1], rng)]
    for _ in range(40):
        rng.choice(writers).step()
    assert sum(writer.won for writer in writers) <= 1
    assert not any(
        len(standing.manifests) > 1
        for core in cores.values()
        if (standing := core.standing(task(CID)))
    )


class Writer:
    """A coordinator that asks the keepers one by one, in any order, and tries again."""

    def __init__(
        self,
        cores: dict[NodeId, ReplicationCore],
        candidate: SignedManifest,
        me: NodeId,
        rng: random.Random,
    ) -> None:
        self.cores = cores
        self.candidate = standing_manifest(candidate)
        self.me = me
        self.rng = rng
        self.won = False
        self._restart()

    def _restart(self) -> None:
        self.left = self.rng.sample(NODES, 3)
        self.ready: list[NodeId] = []
        self.committing: list[NodeId] = []

    def step(self) -> None:
        if self.committing:
            self.cores[self.committing.pop()].commit(self.candidate, self.me)
        elif self.left and not self.won:
            node = self.left.pop()
            verdict = prepare(self.cores[node], self.candidate, coordinator=self.me)
            if isinstance(verdict, Ready):
                self.ready.append(node)
            if len(self.ready) == 2:
                self.won, self.committing = True, list(self.ready)
        elif not self.won:
            for node in NODES:
                self.cores[node].withdraw(task(CID), self.candidate.version, self.me)
            self._restart()


def test_a_full_keeper_takes_no_further_task_from_another_either() -> None:
    core = committed(keeper(config=RecordConfig(max_records=1)), ONE)
    assert core.absorb(standing_manifest(manifest("another", 1, "x")), EPOCH_S) == Full()
    assert core.absorb(standing_tombstone(tombstone(ONE)), EPOCH_S) != Full()
    assert len(core) == 1


def test_the_writes_under_way_are_limited_until_they_expire() -> None:
    core = keeper()
    for number in range(MAX_PROVISIONAL):
        prepare(core, manifest(f"task {number}", 1, "x"))
    with pytest.raises(Busy, match="under way"):
        prepare(core, ONE)
    prepare(core, manifest("task 0", 1, "x"))
    core.handle_timeout(RecordConfig().provisional_ttl_s)
    assert isinstance(prepare(core, ONE), Ready)


def test_of_two_coordinators_of_one_candidate_each_may_commit_and_both_must_withdraw() -> None:
    candidate = standing_manifest(ONE)
    core = keeper()
    for coordinator in NODES[:2]:
        assert isinstance(prepare(core, ONE, coordinator=coordinator), Ready)
    assert core.withdraw(task(CID), candidate.version, NODES[1]) == ()
    assert isinstance(prepare(core, TWO, coordinator=NODES[2]), NotYet)
    assert core.commit(candidate, NODES[0])
    assert core.standing(task(CID)) == candidate


def test_a_deletion_that_a_node_remembers_is_believed_like_one_that_is_asked_for() -> None:
    later = manifest(CID, 3, "three")
    dead = standing_tombstone(tombstone(later))
    for core in (keeper(), committed(keeper(), ONE), buried(committed(keeper(), ONE), ONE)):
        assert core.lacks_deletion(task(CID), 3)
        assert core.recall(dead, EPOCH_S) != Absorbed()
        assert core.standing(task(CID)) == dead
        assert not core.lacks_deletion(task(CID), 3)
        assert core.recall(dead, EPOCH_S) == Absorbed()


def test_a_remembered_deletion_does_not_end_what_was_imported_since() -> None:
    later = manifest(CID, 2, "later")
    core = committed(buried(committed(keeper(), ONE), ONE), later)
    assert not core.lacks_deletion(task(CID), 1)
    core.recall(standing_tombstone(tombstone(ONE)), EPOCH_S)
    assert core.standing(task(CID)) == standing_manifest(later)


def test_under_the_publisher_policy_only_its_own_deletion_is_remembered() -> None:
    other = manifest(CID, 9, publisher=identity(77))
    for live, stone in ((ONE, tombstone(ONE, identity(77))), (ONE, tombstone(other, identity(77)))):
        core = committed(keeper(policy="publisher"), live)
        assert core.recall(standing_tombstone(stone), EPOCH_S) == Contested()
        assert core.standing(task(CID)) == standing_manifest(live)
    core = committed(keeper(policy="publisher"), ONE)
    assert core.recall(standing_tombstone(tombstone(ONE)), EPOCH_S) != Contested()


def test_a_restored_record_may_be_ahead_of_the_deletions_that_a_keeper_learnt_again() -> None:
    core = buried(committed(keeper(), ONE), ONE)
    later = manifest(CID, 4, "later")
    assert isinstance(prepare(core, later), Refused)
    assert isinstance(prepare(core, later, restore=True), Ready)
    assert isinstance(prepare(core, manifest(CID, 2**40), restore=True), Refused)
    assert isinstance(prepare(core, ONE, restore=True), Refused)
