from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipcache.config import TransferConfig
from gossipcache.ids import NodeId
from gossipcache.transfer.download.core import DownloadCore
from gossipcache.transfer.download.events import (
    BudgetChanged,
    CancelPiece,
    CheckPiece,
    DropParent,
    FetchPiece,
    Finished,
    OpenParent,
    ParentHas,
    ParentOffers,
    ParentRefused,
    ParentsAssigned,
    PieceChecked,
    PieceDelayed,
    PieceReceived,
    PieceRefusedBy,
    SlotOpened,
    SpareParent,
    StoreReady,
)
from gossipcache.transfer.download.hunger import PATIENCE_S
from gossipcache.transfer.promise import REPEAT_S
from tests.transfer.swarms import BUDGET, FakeParent, Swarm

A, B, C, D, E, F = (NodeId(bytes([byte]) * 16) for byte in b"abcdef")


def test_fetches_every_piece_once_from_a_single_parent() -> None:
    swarm = Swarm(20, {A: FakeParent()}).start().run()
    assert swarm.finished_at is not None
    assert swarm.fetched == list(range(20))


def test_opens_parents_before_the_store_is_ready_and_asks_after() -> None:
    core = Swarm(20, {}).core
    assert core.handle(ParentsAssigned((A,)), 0.0) == [OpenParent(A, 2)]
    assert core.handle(SlotOpened(A, 0, 0.001), 0.0) == []
    assert core.handle(ParentHas(A, 0b1), 0.0) == []
    assert core.handle(StoreReady(0), 1.0) == [FetchPiece(A, 0, 0, request_id=1)]


def test_requests_are_spread_over_both_connections() -> None:
    core = Swarm(20, {}).core
    core.handle(StoreReady(0), 0.0)
    core.handle(ParentsAssigned((A,)), 0.0)
    core.handle(SlotOpened(A, 0, 0.001), 0.0)
    core.handle(SlotOpened(A, 1, 0.001), 0.0)
    effects = core.handle(ParentHas(A, (1 << 20) - 1), 0.0)
    slots = [effect.slot for effect in effects if isinstance(effect, FetchPiece)]
    assert slots == [0, 1] * (BUDGET // 2)


def test_a_small_task_takes_one_connection() -> None:
    core = Swarm(2, {}).core
    assert core.handle(ParentsAssigned((A,)), 0.0) == [OpenParent(A, 1)]


def test_what_is_present_is_not_fetched() -> None:
    swarm = Swarm(20, {A: FakeParent()}).start(present=0b1111).run()
    assert sorted(swarm.fetched) == list(range(4, 20))


def test_a_complete_task_finishes_at_once() -> None:
    swarm = Swarm(3, {})
    assert swarm.core.handle(StoreReady(0b111), 0.0) == [Finished()]


def test_several_parents_share_the_work_by_their_speed() -> None:
    slow, fast = FakeParent(piece_s=0.4), FakeParent(piece_s=0.1)
    swarm = Swarm(100, {A: slow, B: fast}).start().run()
    assert swarm.finished_at is not None
    assert swarm.finished_at < 12.0
    assert len(fast.served) > 2 * len(slow.served)


def test_equal_parents_take_turns_where_little_is_asked_for_at_a_time() -> None:
    core = opened(A, B, C)
    core.handle(BudgetChanged(1), 0.0)
    asked = core.handle(ParentHas(A, 0b1111), 0.0)
    for node in (B, C):
        asked += core.handle(ParentHas(node, 0b1111), 0.0)
    for request_id in (1, 2, 3):
        asked += core.handle(PieceReceived(request_id), float(request_id))
        asked += core.handle(PieceChecked(request_id, valid=True), float(request_id))
    asked_of = [effect.parent for effect in asked if isinstance(effect, FetchPiece)]
    assert asked_of == [A, B, C, A]


def test_a_lying_parent_is_dropped_for_good_and_its_pieces_fetched_elsewhere() -> None:
    liar, honest = FakeParent(lies=True), FakeParent()
    swarm = Swarm(30, {A: liar, B: honest}).start()
    swarm.at(1.5, ParentsAssigned((A, B)))
    assert swarm.run().finished_at is not None
    assert swarm.dropped[A] is not None
    assert sorted(swarm.fetched) == list(range(30))
    assert len(liar.served) == 1


def test_a_parent_that_dies_is_replaced_without_fetching_anything_again() -> None:
    swarm = Swarm(30, {A: FakeParent(dies_at=0.55), B: FakeParent()}).start().run()
    assert swarm.finished_at is not None
    assert len(swarm.fetched) == 30


def test_with_no_parent_left_it_waits_for_the_next_assignment() -> None:
    swarm = Swarm(30, {A: FakeParent(dies_at=0.55), B: FakeParent()})
    swarm.at(0.0, StoreReady(0))
    swarm.at(0.0, ParentsAssigned((A,)))
    swarm.at(100.0, ParentsAssigned((B,)))
    swarm.run()
    assert swarm.finished_at is not None
    assert swarm.finished_at > 100.0
    assert len(swarm.fetched) == 30


def test_a_frozen_parent_loses_its_requests_after_the_stall_time() -> None:
    frozen = FakeParent(freezes_at=0.25)
    swarm = Swarm(12, {A: frozen, B: FakeParent(piece_s=0.5)}).start().run()
    assert swarm.finished_at is not None
    assert swarm.finished_at < 10.0
    assert A not in swarm.dropped


def test_a_lone_frozen_parent_is_given_up_at_last_and_tried_again() -> None:
    swarm = Swarm(3, {A: FakeParent(freezes_at=0.15)}).start()
    swarm.at(60.0, ParentsAssigned((A,)))
    swarm.run(until=59.0)
    assert swarm.dropped == {A: "it stopped sending"}


def test_a_slow_parent_that_keeps_sending_is_not_given_up() -> None:
    slow = FakeParent(piece_s=40.0, trickles=True)
    swarm = Swarm(4, {A: slow}).start().run(until=1000.0)
    assert swarm.finished_at is not None
    assert swarm.dropped == {}
    assert slow.served == [0, 1, 2, 3]


def test_the_last_pieces_of_a_slow_parent_come_from_an_idle_fast_one() -> None:
    slow, fast = FakeParent(piece_s=10.0, trickles=True), FakeParent(piece_s=0.1)
    swarm = Swarm(16, {A: slow, B: fast}).start().run()
    assert swarm.finished_at is not None
    assert swarm.finished_at < 5.0


def test_a_parent_of_unknown_speed_takes_only_its_fair_share() -> None:
    core = Swarm(40, {}).core
    core.handle(StoreReady(0), 0.0)
    core.handle(ParentsAssigned((A, B)), 0.0)
    core.handle(SlotOpened(A, 0, 0.001), 0.0)
    assert len(core.handle(ParentHas(A, (1 << 40) - 1), 0.0)) == BUDGET // 2


def test_equally_fast_parents_do_hardly_anything_twice() -> None:
    swarm = Swarm(50, {A: FakeParent(), B: FakeParent()}).start().run()
    asked = sum(len(parent.asked_at) for parent in swarm.parents.values())
    assert asked <= 52


def test_a_single_piece_is_asked_of_one_parent() -> None:
    swarm = Swarm(1, {A: FakeParent(), B: FakeParent()}).start().run()
    assert sum(len(parent.asked_at) for parent in swarm.parents.values()) == 1


def test_a_busy_parent_is_asked_later() -> None:
    swarm = Swarm(5, {A: FakeParent(busy_until=3.0)}).start().run()
    assert swarm.finished_at is not None
    assert 3.0 < swarm.finished_at < 10.0
    assert swarm.dropped == {}


def test_a_refused_piece_is_fetched_elsewhere() -> None:
    swarm = Swarm(5, {A: FakeParent(withholds=frozenset((2,))), B: FakeParent()}).start().run()
    assert swarm.finished_at is not None
    assert 2 in swarm.parents[B].served


def test_a_parent_cannot_refuse_in_the_name_of_another() -> None:
    core = Swarm(5, {}).core
    core.handle(StoreReady(0), 0.0)
    core.handle(ParentsAssigned((A, B)), 0.0)
    core.handle(SlotOpened(A, 0, 0.001), 0.0)
    core.handle(SlotOpened(B, 0, 0.001), 0.0)
    assert core.handle(ParentHas(A, 0b1), 0.0) == [FetchPiece(A, 0, 0, request_id=1)]
    core.handle(ParentHas(B, 0b1), 0.0)
    assert core.handle(PieceRefusedBy(B, 1, "not_found"), 0.0) == []


def test_partial_parents_are_asked_for_what_they_have_as_they_get_it() -> None:
    partial = FakeParent(pieces=0b0011)
    swarm = Swarm(4, {A: partial}).start()
    swarm.run(until=5.0)
    assert swarm.present == 0b0011
    partial.pieces = 0b1111
    swarm.at(6.0, ParentHas(A, 0b1111))
    swarm.run()
    assert swarm.finished_at is not None


def test_newly_assigned_parents_take_the_places_of_unassigned_ones() -> None:
    parents = {node: FakeParent(piece_s=1.0) for node in (A, B, C, D, E, F)}
    swarm = Swarm(60, parents)
    swarm.at(0.0, StoreReady(0))
    swarm.at(0.0, ParentsAssigned((A, B, C, D, E)))
    swarm.at(2.5, ParentsAssigned((B, C, D, E, F)))
    swarm.run()
    assert swarm.dropped == {A: None}
    assert parents[F].served
    assert swarm.finished_at is not None


def test_an_empty_assignment_stops_nobody() -> None:
    swarm = Swarm(30, {A: FakeParent()}).start()
    swarm.at(0.5, ParentsAssigned(()))
    assert swarm.run().finished_at is not None


@pytest.mark.parametrize("seed", range(5))
def test_the_same_seed_asks_the_same(seed: int) -> None:
    def asked() -> list[int]:
        parents = {A: FakeParent(pieces=0x5555555), B: FakeParent(piece_s=0.03)}
        return Swarm(28, parents, seed).start().run().fetched

    assert asked() == asked()


fake_parents = st.builds(
    FakeParent,
    piece_s=st.floats(0.01, 3.0),
    pieces=st.one_of(st.just(-1), st.integers(0, 2**24 - 1)),
    lies=st.booleans(),
    dies_at=st.one_of(st.just(float("inf")), st.floats(0.0, 20.0)),
    freezes_at=st.one_of(st.just(float("inf")), st.floats(0.0, 20.0)),
    trickles=st.booleans(),
    busy_until=st.floats(0.0, 5.0),
    line_s=st.sampled_from((0.0, 0.0, 2.0, 40.0)),
    promises=st.booleans(),
    withholds=st.frozensets(st.integers(0, 23), max_size=4),
)


def test_parents_that_trickle_for_ever_keep_no_piece_to_themselves() -> None:
    loris, other = (FakeParent(freezes_at=0.0, trickles=True) for _ in range(2))
    parents = {A: loris, B: other, C: FakeParent()}
    assert Swarm(3, parents).start().run().finished_at is not None


@settings(max_examples=150)
@given(
    others=st.lists(fake_parents, max_size=4),
    piece_count=st.integers(1, 24),
    present=st.integers(0, 2**24 - 1),
    seed=st.integers(0, 9),
)
def test_one_honest_parent_is_enough(
    others: list[FakeParent], piece_count: int, present: int, seed: int
) -> None:
    honest = FakeParent(piece_s=0.2)
    parents = dict(zip((A, B, C, D), others, strict=False)) | {E: honest}
    for parent in parents.values():
        parent.pieces &= (1 << piece_count) - 1
    swarm = Swarm(piece_count, parents, seed).start(present & (1 << piece_count) - 1)
    for second in range(10, 300, 10):
        swarm.at(float(second), ParentsAssigned((E, *others_of(parents))))
    assert swarm.run().finished_at is not None
    assert len(swarm.fetched) == len(set(swarm.fetched))


def others_of(parents: dict[NodeId, FakeParent]) -> list[NodeId]:
    return [node for node in parents if node != E]


def test_several_parents_get_one_connection_each_and_a_single_one_two() -> None:
    for parents, connections in (((A,), 2), ((A, B), 1)):
        core = Swarm(40, {}).core
        opened = core.handle(ParentsAssigned(parents), 0.0)
        assert opened == [OpenParent(node, connections) for node in parents]


def test_of_a_parent_that_tells_by_and_by_few_pieces_are_asked_until_one_is_here() -> None:
    core = Swarm(40, {}).core
    core.handle(StoreReady(0), 0.0)
    core.handle(ParentsAssigned((A,)), 0.0)
    core.handle(SlotOpened(A, 0, 0.001), 0.0)
    first = core.handle(ParentHas(A, (1 << 20) - 1), 0.0)
    assert len(first) == 2
    asked = [effect.request_id for effect in first if isinstance(effect, FetchPiece)]
    check, *more = core.handle(PieceReceived(asked[0]), 0.1)
    assert isinstance(check, CheckPiece)
    assert more, "its speed is known now"


def test_what_few_pieces_there_are_is_not_asked_of_one_alone_who_tells_by_and_by() -> None:
    core = Swarm(40, {}).core
    core.handle(StoreReady(0), 0.0)
    core.handle(ParentsAssigned((A, B)), 0.0)
    for node in (A, B):
        core.handle(SlotOpened(node, 0, 0.001), 0.0)
    of_a = core.handle(ParentHas(A, 0b11), 0.0)
    of_b = core.handle(ParentHas(B, 0b11), 0.0)
    asked = [effect for effect in of_a + of_b if isinstance(effect, FetchPiece)]
    assert [fetch.parent for fetch in asked] == [A, B]
    assert {fetch.index for fetch in asked} == {0, 1}


def test_what_a_parent_owes_that_has_given_nothing_yet_is_soon_asked_of_an_idle_quick_one() -> None:
    slow, quick = FakeParent(piece_s=10.0, trickles=True), FakeParent(piece_s=0.01)
    swarm = Swarm(60, {A: slow, B: quick}).start().run()
    assert swarm.finished_at is not None
    assert swarm.finished_at < 0.7
    assert not slow.served


def test_slow_parents_that_are_replaced_do_not_hold_their_places_for_what_they_owe() -> None:
    slow = {NodeId(bytes([n]) * 16): FakeParent(piece_s=4.0, trickles=True) for n in range(5)}
    quick = {NodeId(bytes([n]) * 16): FakeParent(piece_s=0.1) for n in range(5, 10)}
    swarm = Swarm(60, slow | quick)
    swarm.at(0.0, StoreReady(0))
    swarm.at(0.0, ParentsAssigned(tuple(slow)))
    swarm.at(5.0, ParentsAssigned(tuple(quick)))
    finished_at = swarm.run().finished_at
    assert finished_at is not None
    assert finished_at < 8.0
    assert all(swarm.dropped[node] is None for node in slow)


def offered_by_a(*others: NodeId) -> DownloadCore:
    """A core whose parent A offers its pieces one by one; `others` are open as well."""
    core = Swarm(8, {}).core
    core.handle(StoreReady(0), 0.0)
    core.handle(ParentsAssigned((A, *others)), 0.0)
    for node in (A, *others):
        core.handle(SlotOpened(node, 0, 0.001), 0.0)
    core.handle(ParentOffers(A), 0.0)
    return core


def test_what_a_partial_parent_has_is_not_asked_of_one_that_offers() -> None:
    core = offered_by_a(B)
    core.handle(ParentHas(B, 0b11), 0.0)
    asked = core.handle(ParentHas(A, 0b110), 0.0)
    assert [(fetch.parent, fetch.index) for fetch in asked if isinstance(fetch, FetchPiece)] == [
        (A, 2)
    ]


def test_a_parent_that_offers_hears_what_others_gave_of_it() -> None:
    core = offered_by_a(B)
    core.handle(ParentOffers(B), 0.0)
    asked = core.handle(ParentHas(B, 0b11), 0.0)
    assert asked == [FetchPiece(B, 0, 0, request_id=1), FetchPiece(B, 0, 1, request_id=2)]
    assert core.handle(ParentHas(A, 0b11), 0.0) == [SpareParent(A, 0b11)]
    assert core.handle(ParentHas(A, 0b100), 0.0) == [FetchPiece(A, 0, 2, request_id=3)]


def test_a_parent_that_offers_and_refuses_is_left() -> None:
    core = offered_by_a(B)
    core.handle(ParentHas(A, 0b1), 0.0)
    dropped, *_ = core.handle(PieceRefusedBy(A, 1, "not_found"), 0.0)
    assert isinstance(dropped, DropParent)
    assert dropped.fault is not None


def test_a_parent_that_does_not_open_keeps_nobody_from_hearing_what_others_gave() -> None:
    core = offered_by_a(B)
    core.handle(ParentsAssigned((A, B, C)), 0.0)
    core.handle(ParentOffers(B), 0.0)
    core.handle(ParentHas(B, 0b11), 0.0)
    assert core.handle(ParentHas(A, 0b11), 0.0) == [SpareParent(A, 0b11)]


def test_a_parent_that_offers_hears_nothing_where_one_that_does_not_may_bring_the_rest() -> None:
    core = offered_by_a(B)
    core.handle(ParentHas(B, 0b11), 0.0)
    assert core.handle(ParentHas(A, 0b11), 0.0) == []


def test_a_parent_that_offers_is_asked_for_anything_once_nothing_else_comes() -> None:
    core = offered_by_a()
    assert core.next_timeout() == PATIENCE_S
    assert core.handle_timeout(0.0) == []
    assert {type(effect) for effect in core.handle_timeout(PATIENCE_S)} == {FetchPiece}
    timeout = core.next_timeout()
    assert timeout is not None
    assert timeout > PATIENCE_S


def opened(*parents: NodeId, present: int = 0) -> DownloadCore:
    """A core of four pieces, of which it has `present`; nobody has told what he has."""
    core = Swarm(4, {}).core
    core.handle(StoreReady(present), 0.0)
    core.handle(ParentsAssigned(parents), 0.0)
    for node in parents:
        core.handle(SlotOpened(node, 0, 0.001), 0.0)
    return core


def waiting_for_a(*others: NodeId, wait_s: float = 60.0) -> DownloadCore:
    """A core whose parent A was asked for the two pieces that are missing, and says that others
    come first; `others` are open as well, and have nothing yet."""
    core = opened(A, *others, present=0b1100)
    asked = core.handle(ParentHas(A, 0b1111), 0.0)
    assert asked == [FetchPiece(A, 0, 0, request_id=1), FetchPiece(A, 0, 1, request_id=2)]
    assert core.handle(PieceDelayed(A, 1, wait_s), 0.0) == []
    return core


def test_what_waits_in_line_is_asked_of_others_and_taken_back_when_it_comes() -> None:
    core = waiting_for_a(B)
    asked = core.handle(ParentHas(B, 0b1111), 1.0)
    assert asked == [FetchPiece(B, 0, 0, request_id=3), FetchPiece(B, 0, 1, request_id=4)]
    check, *others = core.handle(PieceReceived(3), 2.0)
    assert check == CheckPiece(B, 0, 3, elapsed_s=1.0)
    assert others == [CancelPiece(A, 0, 1)]


def test_a_place_in_line_is_kept_by_a_request_for_what_is_still_missing() -> None:
    core = opened(A, B)
    assert core.handle(ParentHas(A, 0b0001), 0.0) == [FetchPiece(A, 0, 0, request_id=1)]
    core.handle(PieceDelayed(A, 1, 60.0), 0.0)
    assert core.handle(ParentHas(A, 0b0010), 1.0) == [], "one request holds the place"
    assert core.handle(ParentHas(B, 0b0001), 1.0) == [FetchPiece(B, 0, 0, request_id=2)]
    _, *effects = core.handle(PieceReceived(2), 2.0)
    assert effects == [CancelPiece(A, 0, 1), FetchPiece(A, 0, 1, request_id=3)]


def test_a_parent_that_names_its_time_may_be_silent_until_then() -> None:
    core = waiting_for_a(wait_s=8.0)
    stall_s = TransferConfig().stall_s
    assert core.next_timeout() == 8.0 + stall_s
    core.handle(PieceDelayed(A, 1, 0.0), 8.0)
    assert core.next_timeout() == 8.0 + stall_s, "its turn has come"


def test_a_long_wait_is_to_be_confirmed() -> None:
    assert waiting_for_a(wait_s=600.0).next_timeout() == REPEAT_S + TransferConfig().stall_s


def test_at_its_turn_a_parent_is_relied_on_again_and_others_in_whose_line_the_child_waits_not() -> (
    None
):
    core = waiting_for_a(B)
    core.handle(ParentHas(B, 0b1111), 1.0)
    core.handle(PieceDelayed(B, 3, 30.0), 1.0)
    assert core.handle(PieceDelayed(A, 1, 0.0), 2.0) == [CancelPiece(B, 0, 3)]


def test_a_busy_parent_is_waited_for_as_long_as_it_says_and_every_piece_comes_once() -> None:
    swarm = Swarm(4, {A: FakeParent(line_s=200.0)}).start().run(until=2000.0)
    assert swarm.finished_at is not None
    assert swarm.finished_at < 4 * 200.2 + 1
    assert swarm.dropped == {}
    assert len(swarm.parents[A].asked_at) == 4


def test_a_child_of_a_busy_and_a_free_parent_waits_for_the_free_one_only() -> None:
    busy, free = FakeParent(line_s=100.0), FakeParent(piece_s=0.5)
    swarm = Swarm(20, {A: busy, B: free}).start().run()
    assert swarm.finished_at is not None
    assert swarm.finished_at < 11.0
    assert swarm.dropped == {}


def test_a_parent_that_promises_for_ever_is_given_up_after_twice_the_time_it_named() -> None:
    liar = FakeParent(line_s=99.0, promises=True)
    swarm = Swarm(4, {A: liar}).start().run(until=199.0)
    assert swarm.dropped == {}
    swarm.run(until=300.0)
    assert swarm.dropped == {A: "it promised a turn that did not come"}


def test_parents_that_promise_for_ever_hold_up_nobody_who_has_an_honest_one() -> None:
    liars = {node: FakeParent(line_s=50.0, promises=True) for node in (A, B, C, D)}
    swarm = Swarm(20, {**liars, E: FakeParent()}).start().run()
    assert swarm.finished_at is not None
    assert swarm.finished_at < 4.0


def test_a_turn_without_a_piece_is_a_stall() -> None:
    core = waiting_for_a(wait_s=8.0)
    core.handle(PieceDelayed(A, 1, 0.0), 8.0)
    config = TransferConfig()
    assert core.handle_timeout(8.0 + config.stall_s) == []
    dropped = core.handle_timeout(8.0 + config.piece_timeout_s)
    assert dropped == [DropParent(A, "it stopped sending")]


def test_a_parent_that_says_when_to_come_back_is_dialled_then_and_some_time_after() -> None:
    dialled_at: set[float | None] = set()
    for seed in range(5):
        core = Swarm(4, {}, seed).core
        core.handle(ParentsAssigned((A,)), 0.0)
        core.handle(ParentRefused(A, "busy", retry_after_s=20.0), 0.0)
        dialled_at.add(due := core.next_timeout())
        assert due is not None
        assert 20.0 <= due <= 30.0
        assert core.handle_timeout(due) == [OpenParent(A, 1)]
    assert len(dialled_at) == 5, "not all at the same moment"


def among_quick(slow: FakeParent, pieces: int = 400) -> Swarm:
    """A download from A, which is `slow`, and three parents that are not."""
    quick = {node: FakeParent() for node in (B, C, D)}
    return Swarm(pieces, {A: slow, **quick}).start()


def test_who_is_slow_by_what_the_others_give_is_asked_for_one_piece_at_a_time() -> None:
    slow = FakeParent(piece_s=2.0, trickles=True)
    among_quick(slow).run()
    after_first = [at for at in slow.asked_at if at > 2.1]
    assert len(slow.served) >= 4
    assert all(later - sooner > 1.9 for sooner, later in pairwise(after_first))


def test_where_all_are_alike_nobody_is_slow() -> None:
    parent = FakeParent(piece_s=0.2)
    swarm = among_quick(parent).run()
    asked = sum(len(one.asked_at) for one in swarm.parents.values())
    assert asked <= 402
    assert len(parent.served) > 50


def test_a_piece_that_trickles_in_is_asked_of_others_as_soon_as_it_is_late_by_their_rate() -> None:
    loris = FakeParent(freezes_at=0.0, trickles=True)
    swarm = among_quick(loris, pieces=150).run(until=0.0)
    asked = list(loris.requests.values())
    assert asked
    swarm.run(until=2.0)
    assert swarm.finished_at is None
    assert all(swarm.present >> index & 1 for index in asked)
