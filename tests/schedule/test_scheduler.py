"""The keeper's core: announcements taken, leases, sessions and who feeds whom."""

from __future__ import annotations

from typing import Any

import pytest

from gossipcache.errors import Busy, NotReady, ProtocolError
from gossipcache.identity import Identity
from gossipcache.ids import NodeId
from gossipcache.manifest import SignedManifest
from gossipcache.messages.announcements import AskRelease, HeartbeatReply, HolderEntry
from gossipcache.messages.sessions import (
    LeaveTask,
    ParentFailure,
    ParentReport,
    ReportPieces,
    SessionReply,
)
from gossipcache.schedule.announcement import (
    Held,
    HeldSet,
    LeaseHeartbeat,
    sign_batch,
    sign_heartbeat,
)
from gossipcache.schedule.assignments import (
    EXTRA_PARENTS,
    FAR_PARENTS,
    MAX_CANDIDATES,
    MAX_CHILDREN,
    PATIENCE_S,
)
from gossipcache.schedule.gateways import GATEWAY_PATIENCE_S
from gossipcache.schedule.scheduler import HOPELESS_S, KEPT_PARENTS, REVIEW_INTERVAL_S, Push
from gossipcache.schedule.swarms import MAX_PIECES_IN_ALL, MAX_PIECES_PER_PEER
from gossipcache.schedule.task import STARVED_S, bits_of_pieces, runs_of
from gossipcache.swarm import SHARES
from tests.schedule.fixtures import (
    CLUSTER,
    CONFIG,
    WALL,
    Keeper,
    Record,
    batch_of,
    held_of,
    identity,
    manifest_of,
    tombstone_of,
)

TASK = manifest_of("a")
LARGE = manifest_of("large", pieces=64)
SEED = identity(2)
CHILDREN = [identity(10 + number) for number in range(8)]


@pytest.fixture
def keeper() -> Keeper:
    """Keeps the record of TASK, which SEED has announced."""
    keeper = Keeper()
    keeper.knows(TASK)
    keeper.announce(SEED, held_of(TASK))
    return keeper


def holders(keeper: Keeper, manifest: SignedManifest = TASK) -> list[tuple[NodeId, int]]:
    return [
        (NodeId(entry.node_id), entry.pieces)
        for entry in keeper.core.holders(manifest.task_id).holders
    ]


def heartbeat(keeper: Keeper, node: Identity, *held: Held, **changed: Any) -> HeartbeatReply:
    announced = HeldSet()
    for entry in held:
        announced.put(entry)
    keeper.sequence += 1
    fields: dict[str, Any] = {
        "cluster_id": CLUSTER.cluster_id,
        "sequence": keeper.sequence,
        "issued_at": int(WALL + keeper.now),
        "expires_at": int(WALL + keeper.now) + 30,
        "entries": len(announced),
        "set_digest": announced.digest,
    }
    signed = sign_heartbeat(LeaseHeartbeat(**(fields | changed)), node)
    return keeper.core.heartbeat(signed, node.node_id, keeper.now, WALL + keeper.now)


def report(
    keeper: Keeper,
    child: Identity,
    *have: int,
    session: int = 1,
    task: SignedManifest = TASK,
    **changed: Any,
) -> SessionReply:
    fields: dict[str, Any] = {
        "task_id": task.task_id,
        "session": session,
        "have": tuple(runs_of(bits_of_pieces(have, task.manifest.piece_count))),
        "reports": (),
        "failed": (),
    }
    return keeper.core.report(ReportPieces(**(fields | changed)), child.node_id, keeper.now)


def run(keeper: Keeper, seconds: float) -> list[Push]:
    """Lets time pass; what was pushed meanwhile."""
    pushes: list[Push] = []
    end = keeper.now + seconds
    while (due := keeper.core.next_timeout()) is not None and due <= end:
        keeper.now = max(keeper.now, due)
        pushes += keeper.core.handle_timeout(keeper.now)
    keeper.now = end
    return pushes


class TestAnnouncements:
    def test_an_announced_holder_is_found(self, keeper: Keeper) -> None:
        assert keeper.core.holders(TASK.task_id).holders == (
            HolderEntry(SEED.node_id, 8, complete=True),
        )

    def test_complete_holders_come_first(self, keeper: Keeper) -> None:
        keeper.announce(identity(3), held_of(TASK, 3))
        keeper.announce(identity(4), held_of(TASK, 5))
        assert [pieces for _, pieces in holders(keeper)] == [8, 5, 3]

    def test_a_dead_holder_is_not_named(self, keeper: Keeper) -> None:
        keeper.dead.add(SEED.node_id)
        assert holders(keeper) == []

    def test_a_batch_taken_once_is_not_taken_again(self, keeper: Keeper) -> None:
        old = sign_batch(batch_of(held_of(TASK), sequence=50), SEED)
        keeper.receive(SEED, old)
        keeper.announce(SEED, withdrawn=(TASK.task_id,), sequence=51)
        reply = keeper.receive(SEED, old)
        assert (reply.dropped, reply.sequence_seen) == ("replayed", 51)
        assert holders(keeper) == []

    def test_it_is_not_taken_again_even_after_the_node_was_gone(self, keeper: Keeper) -> None:
        old = sign_batch(batch_of(held_of(TASK), sequence=50), SEED)
        keeper.receive(SEED, old)
        keeper.core.member_down(SEED.node_id, keeper.now)
        assert keeper.receive(SEED, old).dropped == "replayed"
        run(keeper, 3600 + 300)
        keeper.announce(identity(3), sequence=1, expires_at=int(WALL + 7200))
        assert keeper.receive(SEED, old).dropped in ("replayed", "expired")

    def test_nobody_announces_for_another(self, keeper: Keeper) -> None:
        stolen = sign_batch(batch_of(held_of(TASK), sequence=50), identity(3))
        assert keeper.receive(identity(4), stolen).dropped == "forged"
        assert holders(keeper) == [(SEED.node_id, 8)]

    def test_another_manifest_is_not_taken(self, keeper: Keeper) -> None:
        other = manifest_of("a", pieces=5)
        reply = keeper.announce(identity(3), held_of(other))
        assert reply.mismatched == (TASK.task_id,)
        assert holders(keeper) == [(SEED.node_id, 8)]

    def test_pieces_that_the_manifest_has_not_are_neither_announced_nor_fetched(
        self, keeper: Keeper
    ) -> None:
        reply = keeper.announce(identity(3), Held(TASK.task_id, TASK.name, 5, 5))
        assert reply.mismatched == (TASK.task_id,)
        with pytest.raises(ProtocolError):
            keeper.register(identity(3), TASK, piece_count=5)
        assert holders(keeper) == [(SEED.node_id, 8)]

    def test_pieces_told_before_the_record_came_count_only_if_the_manifest_has_so_many(
        self,
    ) -> None:
        keeper = Keeper()
        keeper.announce(identity(3), Held(TASK.task_id, TASK.name, 5, 5))
        keeper.announce(SEED, held_of(TASK))
        keeper.register(identity(4), TASK, *range(5), piece_count=5)
        keeper.knows(TASK)
        assert holders(keeper) == [(SEED.node_id, 8)]
        asked = AskRelease(task_id=TASK.task_id)
        assert not keeper.core.release(asked, SEED.node_id, keeper.now)
        assert identity(3).node_id not in keeper.register(identity(5), TASK).parents

    def test_a_manifest_that_the_keeper_has_not_yet_may_have_other_pieces(
        self, keeper: Keeper
    ) -> None:
        later = manifest_of("a", pieces=5)
        assert keeper.register(identity(3), later).status == "assigned"

    def test_a_holder_of_an_unknown_task_is_taken_and_told(self, keeper: Keeper) -> None:
        lost = manifest_of("lost")
        assert keeper.announce(SEED, held_of(lost)).unknown == (lost.task_id,)
        assert holders(keeper, lost) == [(SEED.node_id, 8)]

    def test_what_is_kept_elsewhere_is_refused(self, keeper: Keeper) -> None:
        elsewhere = manifest_of("elsewhere")
        keeper.foreign.add(elsewhere.task_id)
        assert keeper.announce(SEED, held_of(elsewhere)).refused == (elsewhere.task_id,)
        assert keeper.core.holders(elsewhere.task_id).keepers == (identity(101).node_id,)

    def test_a_returning_holder_of_a_deleted_task_gets_the_proof(self, keeper: Keeper) -> None:
        tombstone = tombstone_of(TASK)
        keeper.records[TASK.task_id] = Record(tombstone=tombstone)
        (proof,) = keeper.announce(identity(3), held_of(TASK)).deleted
        assert (proof.tombstone, proof.manifest) == (tombstone.signed, TASK.signed)
        assert holders(keeper) == []

    def test_proofs_that_do_not_fit_in_a_reply_follow_later(self, keeper: Keeper) -> None:
        tasks = [manifest_of(f"task {number}") for number in range(100)]
        for task in tasks:
            keeper.records[task.task_id] = Record(tombstone=tombstone_of(task))
        reply = keeper.announce(SEED, *map(held_of, tasks))
        assert 0 < len(reply.deleted) <= 32
        assert len(reply.deleted) + len(reply.refused) == 100

    def test_a_fresh_batch_replaces_all_before_it(self, keeper: Keeper) -> None:
        other = manifest_of("b")
        keeper.announce(SEED, held_of(other), fresh=True)
        assert (holders(keeper), holders(keeper, other)) == ([], [(SEED.node_id, 8)])


class TestLeases:
    def test_a_silent_holder_is_forgotten(self, keeper: Keeper) -> None:
        run(keeper, CONFIG.lease_ttl_s - 1)
        assert holders(keeper)
        run(keeper, 1)
        assert holders(keeper) == []

    def test_a_heartbeat_renews_all(self, keeper: Keeper) -> None:
        other = held_of(manifest_of("b"))
        keeper.announce(SEED, other)
        for _ in range(4):
            run(keeper, CONFIG.lease_ttl_s - 1)
            assert not heartbeat(keeper, SEED, other, held_of(TASK)).resync
        assert holders(keeper)

    def test_a_heartbeat_over_another_set_asks_for_all_anew(self, keeper: Keeper) -> None:
        assert heartbeat(keeper, SEED, held_of(TASK, 7)).resync
        assert heartbeat(keeper, SEED).resync
        assert heartbeat(keeper, identity(3)).resync

    def test_a_replayed_heartbeat_renews_nothing(self, keeper: Keeper) -> None:
        run(keeper, 20)
        assert heartbeat(keeper, SEED, held_of(TASK), sequence=1).dropped == "replayed"
        run(keeper, 10)
        assert holders(keeper) == []

    def test_a_holder_that_missed_the_deletion_learns_it_by_heartbeat(self, keeper: Keeper) -> None:
        keeper.records[TASK.task_id] = Record(tombstone=tombstone_of(TASK))
        keeper.core.generation_over(TASK.task_id)
        (proof,) = heartbeat(keeper, SEED, held_of(TASK)).deleted
        assert proof.task_id == TASK.task_id
        keeper.announce(SEED, withdrawn=(TASK.task_id,))
        assert heartbeat(keeper, SEED) == HeartbeatReply(sequence_seen=keeper.sequence)


class TestHopelessParents:
    def test_who_gives_a_child_nothing_for_ever_is_replaced(self, keeper: Keeper) -> None:
        liars = [identity(200 + number) for number in range(20)]
        child = CHILDREN[0]
        had: set[bytes] = set()
        for _ in range(12 * int(HOPELESS_S / 10)):
            for holder in (*liars, SEED):
                keeper.announce(holder, held_of(TASK))
            if not had:
                had.update(keeper.register(child, TASK).parents)
            had.update(report(keeper, child).parents)
            run(keeper, 10.0)
        assert SEED.node_id in had

    def test_some_stay_and_who_gives_something_does(self, keeper: Keeper) -> None:
        for holder in (identity(200 + number) for number in range(3)):
            keeper.announce(holder, held_of(TASK))
        parents = keeper.register(CHILDREN[0], TASK).parents
        for _ in range(2 * int(HOPELESS_S / 10)):
            keeper.announce(SEED, held_of(TASK))
            for number in range(3):
                keeper.announce(identity(200 + number), held_of(TASK))
            found = report(keeper, CHILDREN[0]).parents
            run(keeper, 10.0)
        assert found == parents[:KEPT_PARENTS]


class TestZones:
    """The seed is in one zone, children 0 to 2 are in another."""

    @pytest.fixture
    def far(self, keeper: Keeper) -> Keeper:
        keeper.zones = {SEED.node_id: "a"} | {child.node_id: "b" for child in CHILDREN[:3]}
        return keeper

    def test_the_children_of_a_zone_share_what_they_fetch_from_another(self, far: Keeper) -> None:
        first = far.register(CHILDREN[0], TASK)
        assert (first.far, first.shares) == ((SEED.node_id,), 0b1111_1111)
        second = far.register(CHILDREN[1], TASK)
        (left,) = run(far, 0.0)
        assert left.to == CHILDREN[0].node_id
        assert left.message.shares ^ second.shares == 0b1111_1111
        assert left.message.shares.bit_count() == second.shares.bit_count() == 4

    def test_who_fetches_from_another_zone_takes_the_rest_from_its_own(self, far: Keeper) -> None:
        far.register(CHILDREN[0], TASK)
        far.register(CHILDREN[1], TASK)
        report(far, CHILDREN[0], 0)
        (push,) = [push for push in run(far, 1.0) if push.to == CHILDREN[1].node_id]
        assert push.message.parents == (CHILDREN[0].node_id, SEED.node_id)
        assert push.message.far == (SEED.node_id,)

    def test_children_in_the_zone_of_a_holder_do_not_wait(self, far: Keeper) -> None:
        near = CHILDREN[3:5]
        far.zones |= {child.node_id: "a" for child in near}
        for child in near:
            assert far.register(child, TASK).parents == (SEED.node_id,)

    def test_a_holder_in_the_zone_is_preferred_to_faster_ones_elsewhere(self, far: Keeper) -> None:
        near = identity(3)
        far.zones[near.node_id] = "b"
        far.announce(near, held_of(TASK))
        measured = (ParentReport(SEED.node_id, 10_000_000, 1000, 0),)
        far.register(CHILDREN[0], TASK)
        report(far, CHILDREN[0], 0, reports=measured)
        assert SEED.node_id not in far.register(CHILDREN[1], TASK).parents

    def test_when_one_dies_another_one_fetches_its_shares(self, far: Keeper) -> None:
        far.register(CHILDREN[0], TASK)
        far.register(CHILDREN[1], TASK)
        far.dead.add(CHILDREN[0].node_id)
        far.core.member_down(CHILDREN[0].node_id, far.now)
        assert shares(run(far, 1.0), CHILDREN[1]) == 0b1111_1111

    def test_when_one_gains_nothing_another_one_fetches_its_shares(self, far: Keeper) -> None:
        far.register(CHILDREN[0], TASK)
        far.register(CHILDREN[1], TASK)
        run(far, GATEWAY_PATIENCE_S - 1)
        report(far, CHILDREN[1], 0)
        assert shares(run(far, 2.0), CHILDREN[1]) == 0b1111_1111

    def test_where_a_holder_of_the_zone_is_crowded_others_help(self, far: Keeper) -> None:
        crowd = [identity(number) for number in range(40, 41 + MAX_CHILDREN)]
        far.zones |= {child.node_id: "a" for child in crowd}
        for child in crowd[:-1]:
            far.register(child, TASK)
        far.register(CHILDREN[0], TASK, 0)
        reply = far.register(crowd[-1], TASK)
        assert reply.far == (CHILDREN[0].node_id,)
        assert reply.shares

    def test_who_fetches_a_share_gets_parents_elsewhere_that_have_some_of_it(
        self, far: Keeper
    ) -> None:
        far.register(CHILDREN[0], TASK)
        mine = far.register(CHILDREN[1], TASK).shares
        others = [piece for piece in range(8) if not mine >> piece & 1]
        for number in range(FAR_PARENTS):
            far.register(identity(40 + number), TASK, *others)
        useful = identity(50)
        far.register(useful, TASK, (mine & -mine).bit_length() - 1)
        assert set(far_of(run(far, 1.0), CHILDREN[1])) == {SEED.node_id, useful.node_id}

    def test_who_has_all_stays_a_parent_elsewhere_when_others_would_be_better(
        self, far: Keeper
    ) -> None:
        far.register(CHILDREN[0], TASK)
        others = [identity(40 + number) for number in range(FAR_PARENTS)]
        for other in others:
            far.register(other, TASK, *range(7))
        fast = tuple(ParentReport(other.node_id, 90_000, 1000, 0) for other in others)
        slower = ParentReport(SEED.node_id, 40_000, 1000, 0)
        report(far, CHILDREN[0], 7, reports=(slower, *fast))
        assert SEED.node_id in far_of(run(far, 1.0), CHILDREN[0])
        assert SEED.node_id not in far_of(run(far, STARVED_S), CHILDREN[0]), "it gives nothing"

    def test_a_partial_holder_in_the_zone_without_a_session_holds_nobody_up(
        self, far: Keeper
    ) -> None:
        partial = identity(3)
        far.zones[partial.node_id] = "b"
        far.announce(partial, held_of(TASK, 1))
        assert SEED.node_id in far.register(CHILDREN[0], TASK).parents

    @pytest.mark.parametrize("said", [range(1), range(63), range(64)])
    def test_one_that_says_it_has_pieces_and_gives_none_does_not_hold_up_its_zone(
        self, far: Keeper, said: range
    ) -> None:
        liar, honest = CHILDREN[:2]
        far.knows(LARGE)
        far.announce(SEED, held_of(LARGE))
        far.register(liar, LARGE, *said)
        reply = far.register(honest, LARGE)
        told: set[int] = set()
        mine, has_far = reply.shares, bool(reply.far)
        for _ in range(300):
            far.announce(SEED, held_of(LARGE))
            report(far, liar, *said, task=LARGE)
            fresh = [index for index in range(64) if mine >> index % SHARES & 1 and has_far]
            fresh = [index for index in fresh if index not in told][:2]
            told.update(fresh)
            report(far, honest, *fresh, task=LARGE)
            for push in run(far, 1.0):
                if push.to == honest.node_id:
                    mine, has_far = push.message.shares, bool(push.message.far)
        assert told == set(range(64))


def shares(pushes: list[Push], child: Identity) -> int:
    """What a child was told last to fetch from other zones."""
    return [push.message.shares for push in pushes if push.to == child.node_id][-1]


def far_of(pushes: list[Push], child: Identity) -> tuple[bytes, ...]:
    """Its parents in other zones, as it was told last."""
    return [push.message.far for push in pushes if push.to == child.node_id][-1]


def assigned(pushes: list[Push], child: Identity) -> tuple[bytes, ...]:
    """What a child was told last."""
    return [push.message.parents for push in pushes if push.to == child.node_id][-1]


class TestSessions:
    def test_the_first_answer_names_the_seed(self, keeper: Keeper) -> None:
        reply = keeper.register(CHILDREN[0], TASK)
        assert (reply.status, reply.parents) == ("assigned", (SEED.node_id,))

    def test_without_holders_the_assignment_is_empty_until_one_comes(self) -> None:
        keeper = Keeper()
        keeper.knows(TASK)
        assert keeper.register(CHILDREN[0], TASK).parents == ()
        keeper.announce(SEED, held_of(TASK))
        (push,) = run(keeper, CONFIG.report_interval_s)
        assert (push.to, push.message.parents) == (CHILDREN[0].node_id, (SEED.node_id,))

    def test_a_child_is_a_holder_of_what_it_has(self, keeper: Keeper) -> None:
        keeper.register(CHILDREN[0], TASK, 1, 2)
        report(keeper, CHILDREN[0], 5)
        assert (CHILDREN[0].node_id, 3) in holders(keeper)

    def test_eight_children_of_one_seed_feed_each_other(self, keeper: Keeper) -> None:
        for child in CHILDREN:
            assert keeper.register(child, TASK).parents == (SEED.node_id,)
        parents: dict[NodeId, set[bytes]] = {child.node_id: {SEED.node_id} for child in CHILDREN}
        for piece, child in enumerate(CHILDREN):
            report(keeper, child, piece)
        for push in run(keeper, 1.0):
            parents[push.to] = set(push.message.parents)
        siblings = {child.node_id for child in CHILDREN}
        for child in CHILDREN:
            mine = parents[child.node_id]
            assert len(mine) == CONFIG.max_parents
            assert len(mine & siblings) >= CONFIG.max_parents - 1
            assert child.node_id not in mine
        loads = [sum(child in mine for mine in parents.values()) for child in sorted(siblings)]
        assert max(loads) <= 6

    def test_two_partial_peers_feed_each_other_but_not_with_what_both_have(self) -> None:
        keeper = Keeper()
        keeper.knows(TASK)
        one, two, same = CHILDREN[:3]
        keeper.register(one, TASK, 0, 1)
        assert keeper.register(two, TASK, 2).parents == (one.node_id,)
        assert keeper.register(same, TASK, 0, 1).parents == (two.node_id,)
        pushes = {push.to: push.message.parents for push in run(keeper, 1.0)}
        assert pushes[one.node_id] == (two.node_id,)

    def test_a_holder_of_another_manifest_is_no_parent(self, keeper: Keeper) -> None:
        other = manifest_of("a", pieces=5)
        del keeper.records[TASK.task_id]
        keeper.announce(identity(3), held_of(other))
        assert keeper.register(CHILDREN[0], TASK).parents == (SEED.node_id,)

    def test_when_a_parent_dies_its_children_get_another_at_once(self, keeper: Keeper) -> None:
        backup = identity(3)
        keeper.register(CHILDREN[0], TASK)
        keeper.announce(backup, held_of(TASK))
        run(keeper, 1.0)
        keeper.dead.add(SEED.node_id)
        (push,) = keeper.core.member_down(SEED.node_id, keeper.now)
        assert (push.to, push.message.parents) == (CHILDREN[0].node_id, (backup.node_id,))

    def test_a_parent_that_failed_a_child_is_taken_from_it_for_a_while(
        self, keeper: Keeper
    ) -> None:
        keeper.register(CHILDREN[0], TASK)
        failure = ParentFailure(SEED.node_id, "a piece did not match")
        assert report(keeper, CHILDREN[0], failed=(failure,)).parents == ()
        assert keeper.register(CHILDREN[1], TASK).parents == (SEED.node_id,)
        back = [push for push in run(keeper, 10.0) if push.to == CHILDREN[0].node_id]
        assert back[-1].message.parents == (SEED.node_id,)
        assert report(keeper, CHILDREN[0], failed=(failure,)).parents == ()
        assert not [push for push in run(keeper, 9.0) if push.to == CHILDREN[0].node_id]

    def test_the_faster_holder_is_named_first(self, keeper: Keeper) -> None:
        fast = identity(3)
        keeper.announce(fast, held_of(TASK))
        keeper.register(CHILDREN[0], TASK)
        measured = (
            ParentReport(SEED.node_id, 1000, 1000, 0),
            ParentReport(fast.node_id, 90_000, 1000, 0),
        )
        report(keeper, CHILDREN[0], 0, reports=measured)
        assert keeper.register(CHILDREN[1], TASK).parents[0] == fast.node_id

    def test_a_child_keeps_its_parents_though_there_are_more_than_a_review_looks_at(
        self, keeper: Keeper
    ) -> None:
        for number in range(3 * MAX_CANDIDATES):
            keeper.announce(identity(400 + number), held_of(TASK))
        parents = keeper.register(CHILDREN[0], TASK).parents
        assert len(parents) == CONFIG.max_parents
        assert run(keeper, 10 * REVIEW_INTERVAL_S) == []
        assert report(keeper, CHILDREN[0]).parents == parents

    def test_a_child_with_a_slow_link_keeps_its_parents(self, keeper: Keeper) -> None:
        for number in range(2 * CONFIG.max_parents):
            keeper.announce(identity(400 + number), held_of(TASK))
        quick, slow = CHILDREN[:2]
        for child, rate in ((quick, 90_000), (slow, 1000)):
            parents = keeper.register(child, TASK).parents
            measured = tuple(ParentReport(parent, rate, 1000, 0) for parent in parents)
            for piece in range(4):
                report(keeper, child, piece, reports=measured)
                run(keeper, REVIEW_INTERVAL_S)
        assert report(keeper, slow).parents == parents

    def test_a_loaded_seed_is_spared_once_others_can_feed(self, keeper: Keeper) -> None:
        first = [identity(200 + number) for number in range(MAX_CHILDREN)]
        for number, child in enumerate(first):
            keeper.register(child, TASK, number % 7)
        late = keeper.register(identity(300), TASK)
        assert SEED.node_id not in late.parents
        assert len(late.parents) == CONFIG.max_parents

    def test_a_child_that_fell_behind_gets_more_parents_than_others(self, keeper: Keeper) -> None:
        last = identity(300)
        keeper.register(last, TASK, 0)
        for number in range(MAX_CHILDREN):
            keeper.register(identity(200 + number), TASK, *range(6))
        run(keeper, PATIENCE_S + REVIEW_INTERVAL_S)
        reply = report(keeper, last)
        assert len(reply.parents) == CONFIG.max_parents + EXTRA_PARENTS

    def test_children_for_whom_nobody_has_room_wait_a_moment_before_they_share(
        self, keeper: Keeper
    ) -> None:
        for number in range(MAX_CHILDREN):
            assert keeper.register(identity(200 + number), TASK).parents == (SEED.node_id,)
        late = identity(300)
        assert keeper.register(late, TASK).parents == ()
        keeper.now = 0.5
        assert keeper.core.handle_timeout(keeper.now) == []
        keeper.now = PATIENCE_S
        (push,) = keeper.core.handle_timeout(keeper.now)
        assert (push.to, push.message.parents) == (late.node_id, (SEED.node_id,))

    def test_a_child_that_moves_here_keeps_its_parents(self) -> None:
        keeper = Keeper()
        claimed = (SEED.node_id, CHILDREN[0].node_id)
        reply = keeper.register(CHILDREN[0], TASK, 0, 1, parents=claimed)
        assert reply.parents == (SEED.node_id,)

    def test_a_finished_child_feeds_the_others_before_it_is_announced(self, keeper: Keeper) -> None:
        keeper.register(CHILDREN[0], TASK)
        keeper.core.leave(
            LeaveTask(task_id=TASK.task_id, session=1, complete=True),
            CHILDREN[0].node_id,
            keeper.now,
        )
        assert (CHILDREN[0].node_id, 8) in holders(keeper)
        assert CHILDREN[0].node_id in keeper.register(CHILDREN[1], TASK).parents
        keeper.announce(CHILDREN[0], held_of(TASK))
        keeper.announce(CHILDREN[0], withdrawn=(TASK.task_id,))
        assert (CHILDREN[0].node_id, 8) not in holders(keeper)

    def test_a_child_that_breaks_off_is_forgotten(self, keeper: Keeper) -> None:
        keeper.register(CHILDREN[0], TASK, 1)
        keeper.core.leave(
            LeaveTask(task_id=TASK.task_id, session=1, complete=False),
            CHILDREN[0].node_id,
            keeper.now,
        )
        assert holders(keeper) == [(SEED.node_id, 8)]
        assert report(keeper, CHILDREN[0], 2).status == "unregistered"

    def test_a_silent_child_is_forgotten(self, keeper: Keeper) -> None:
        keeper.register(CHILDREN[0], TASK, 1)
        run(keeper, CONFIG.lease_ttl_s + 1)
        assert report(keeper, CHILDREN[0], 2).status == "unregistered"
        assert keeper.core.next_timeout() is None

    def test_a_newer_session_takes_the_place_of_the_older(self, keeper: Keeper) -> None:
        keeper.register(CHILDREN[0], TASK)
        keeper.register(CHILDREN[0], TASK, session=2)
        assert report(keeper, CHILDREN[0], 2).status == "unregistered"
        assert report(keeper, CHILDREN[0], 2, session=2).status == "assigned"

    def test_a_deleted_task_ends_its_sessions_with_the_proof(self, keeper: Keeper) -> None:
        keeper.register(CHILDREN[0], TASK)
        keeper.records[TASK.task_id] = Record(tombstone=tombstone_of(TASK))
        (push,) = keeper.core.generation_over(TASK.task_id)
        assert push.message.deleted is not None
        assert keeper.register(CHILDREN[1], TASK).status == "deleted"
        assert report(keeper, CHILDREN[0]).status == "deleted"

    def test_a_task_that_moved_away_is_named_with_its_keepers(self, keeper: Keeper) -> None:
        keeper.register(CHILDREN[0], TASK)
        keeper.foreign.add(TASK.task_id)
        for reply in (report(keeper, CHILDREN[0]), keeper.register(CHILDREN[1], TASK)):
            assert reply == SessionReply(status="not_keeper", keepers=(identity(101).node_id,))

    def test_one_peer_cannot_fill_the_memory(self, keeper: Keeper) -> None:
        for number in range(MAX_PIECES_PER_PEER // 2**22):
            task = manifest_of(f"huge {number}")
            keeper.register(CHILDREN[0], task, piece_count=2**22)
        with pytest.raises(Busy):
            keeper.register(CHILDREN[0], TASK)
        assert keeper.register(CHILDREN[1], TASK).status == "assigned"

    def test_nor_can_many_together(self, keeper: Keeper) -> None:
        task, per_peer = manifest_of("huge"), 2**22
        full = MAX_PIECES_IN_ALL // per_peer
        for number in range(full):
            keeper.register(identity(1000 + number), task, piece_count=per_peer)
        with pytest.raises(Busy):
            keeper.register(CHILDREN[0], TASK)
        keeper.core.member_down(identity(1000).node_id, keeper.now)
        assert keeper.register(CHILDREN[0], TASK).status == "assigned"

    def test_nothing_is_kept_of_a_node_that_is_no_member(self, keeper: Keeper) -> None:
        stranger = CHILDREN[0]
        keeper.dead.add(stranger.node_id)
        asked = AskRelease(task_id=TASK.task_id)
        for say in (
            lambda: keeper.register(stranger, TASK),
            lambda: keeper.announce(stranger, held_of(TASK)),
            lambda: keeper.core.release(asked, stranger.node_id, keeper.now),
        ):
            with pytest.raises(NotReady):
                say()
        # What it signs is judged all the same.
        forged = sign_batch(batch_of(held_of(TASK), sequence=2**50), CHILDREN[1])
        assert keeper.receive(stranger, forged).dropped == "forged"
