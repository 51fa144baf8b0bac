"""A failing schedule becomes smaller and goes on failing; played by predicates, not by runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.faults import AnyFault, BitRot, CrashLoop, Kill, Loss, Partition, Pause, kind_of
from sim.shrinking.shrink import Case, Shrinker
from sim.shrinking.simpler import simpler
from sim.shrinking.violation import kind_of as kind_of_violation

Fails = Callable[[Case], bool]


def shrink(case: Case, fails: Fails) -> tuple[Case, int]:
    """The smallest case found, and how many were played."""
    search, played = Shrinker(case), 0
    while (proposed := search.propose()) is not None:
        played += 1
        search.judge(len(proposed.faults) if fails(proposed) else None)
    return search.best, played


def kills(count: int) -> Case:
    """A case whose faults are told apart by their node."""
    return Case(3, tuple(Kill(node=f"m{number}") for number in range(count)))


def killed(case: Case) -> set[int]:
    return {int(fault.node[1:]) for fault in case.faults if isinstance(fault, Kill)}


def test_one_guilty_fault_among_twelve_takes_few_runs() -> None:
    best, played = shrink(kills(12), lambda case: 5 in killed(case))
    assert best == Case(3, (None, None, None, None, None, Kill(node="m5")))
    assert played <= 8


def test_a_run_that_fails_without_any_fault_says_so_at_once() -> None:
    assert shrink(kills(12), lambda case: True) == (Case(3, ()), 1)


@given(count=st.integers(1, 12), data=st.data())
def test_of_a_monotone_failure_exactly_the_guilty_faults_are_left(
    count: int, data: st.DataObject
) -> None:
    guilty = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
    best, _ = shrink(kills(count), lambda case: guilty <= killed(case))
    assert killed(best) == guilty
    assert all(fault == Kill(node=f"m{place}") for place, fault in enumerate(best.faults) if fault)


@given(failing=st.sets(st.sets(st.integers(0, 7)).map(frozenset), max_size=40))
def test_whatever_fails_the_best_case_fails_and_no_single_fault_can_be_left_out(
    failing: set[frozenset[int]],
) -> None:
    first = kills(8)
    failing.add(frozenset(killed(first)))

    def fails(case: Case) -> bool:
        return frozenset(killed(case)) in failing

    best, played = shrink(first, fails)
    assert fails(best)
    for place in best.places:
        assert not fails(best.keeping(other for other in best.places if other != place))
    assert played <= 8**2 + 3 * 8  # ddmin's bound


def test_faults_beyond_those_asked_for_had_no_part() -> None:
    search = Shrinker(kills(8))
    assert search.propose() == Case(3, ())
    search.judge(None)
    proposed = search.propose()
    assert proposed is not None
    assert killed(proposed) == {4, 5, 6, 7}
    search.judge(6)
    assert killed(search.best) == {4, 5}


def test_parameters_become_round_and_small_while_it_fails() -> None:
    island = ("n0", "n1", "n2", "n3")
    faults = (
        Partition(at_s=3.217, island=island, for_s=63.2, one_way=True),
        Loss(at_s=4.5, probability=0.0731, for_s=10.0),
    )

    def fails(case: Case) -> bool:
        match case.faults:
            case (Partition() as cut, Loss() as loss):
                return "n2" in cut.island and cut.for_s > 11 and loss.probability > 0.05
        return False

    best, _ = shrink(Case(5, faults), fails)
    assert best == Case(
        3,
        (
            Partition(island=("n2",), for_s=20.0),
            Loss(probability=0.07, for_s=0.05),
        ),
    )


def test_fewer_nodes_give_the_faults_others_in_place_of_those_that_are_gone() -> None:
    case = Case(9, (Kill(node="n8"), None, Pause(node="n1", for_s=1.0)))
    assert case.with_nodes(3) == Case(3, (Kill(node="n2"), None, Pause(node="n1", for_s=1.0)))
    assert Case(9, tuple(Kill(node=f"n{each}") for each in range(4))).with_nodes(3) is None


def test_less_is_tried_of_what_is_counted_and_of_what_lasts() -> None:
    loop = CrashLoop(node="n0", times=4, up_s=1.0, down_s=2.0)
    assert list(simpler(loop)) == [
        CrashLoop(node="n0", times=2, up_s=1.0, down_s=2.0),
        CrashLoop(node="n0", times=4, up_s=0.5, down_s=2.0),
        CrashLoop(node="n0", times=4, up_s=1.0, down_s=1.0),
    ]


@pytest.mark.parametrize(
    "fault",
    [
        Kill(at_s=1.234, node="n1"),
        Pause(at_s=1.0, node="n1", for_s=37.25),
        Partition(island=tuple(f"n{each}" for each in range(9)), for_s=1e6, one_way=True),
        BitRot(node="n0", path="/x", offset=123_456),
        CrashLoop(node="n0", times=40, up_s=1.5, down_s=2.5),
    ],
    ids=kind_of,
)
def test_simpler_and_simpler_comes_to_an_end(fault: AnyFault) -> None:
    variants = {fault}
    for _ in range(60):
        variants = {less for each in variants for less in list(simpler(each))[:3]}
    assert variants == set()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1.250 s: n1 shows 'a' again", "70.000 s: n12 shows 'b c' again"),
        ("9.0 s: not within 60 s: views agree", "12.0 s: not within 30.5 s: views agree"),
        ("bytes came from ['n1', 'n2'], not from ['n0']", "bytes came from [], not from ['n3']"),
        (
            "3.000 s: the scenario stopped: TaskNotFound: no task 'a' (asked n1 (dead), n2)",
            "4.000 s: the scenario stopped: TaskNotFound: no task 'b' (asked nobody)",
        ),
        (
            "deadlock at 3.100 virtual seconds; waiting: - main:3; n0 run:4",
            "deadlock at 71.100 virtual seconds; waiting: n1 run:4",
        ),
        ("no node 0123456789abcdef", "no node 88888888deadbeef"),
    ],
)
def test_one_invariant_has_one_kind_of_violation(one: str, other: str) -> None:
    assert kind_of_violation(one) == kind_of_violation(other)


def test_different_invariants_have_different_kinds() -> None:
    texts = ["1.0 s: n1 shows 'a' again", "1.0 s: n1 still finds 'a'", "1.0 s: n1 failed: OSError"]
    assert len({kind_of_violation(text) for text in texts}) == 3
