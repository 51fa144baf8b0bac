"""The choice of parents."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gossipcache.ids import NodeId
from gossipcache.schedule.parents import Candidate, choose_parents

CHILD = NodeId(b"child")


def choose(*candidates: Candidate, **changed: Any) -> tuple[NodeId, ...]:
    limits: dict[str, Any] = {"child": CHILD, "max_parents": 2, "max_children": 4}
    return choose_parents(candidates, **(limits | changed))


def candidate(name: str, **changed: Any) -> Candidate:
    return Candidate(NodeId(name.encode()), **({"useful": 1.0} | changed))


def best(*candidates: Candidate) -> str:
    return choose(*candidates)[0].decode()


def test_each_term_counts() -> None:
    plain = candidate("plain", rate_bytes_s=10.0, children=1, depth=1)
    assert best(plain, candidate("fast", rate_bytes_s=20.0, children=1, depth=1)) == "fast"
    assert best(plain, candidate("idle", rate_bytes_s=10.0, depth=1)) == "idle"
    assert best(plain, candidate("near", rate_bytes_s=10.0, children=1)) == "near"
    poor = candidate("poor", rate_bytes_s=10.0, children=1, depth=1, useful=0.2)
    assert best(plain, poor) == "plain"
    bad = candidate("bad", rate_bytes_s=10.0, children=1, depth=1, complainers=3)
    assert best(plain, bad) == "plain"


def test_who_has_nothing_that_the_child_lacks_is_no_parent() -> None:
    assert choose(candidate("empty", useful=0.0)) == ()


def test_a_full_parent_is_left_alone_while_others_can_help() -> None:
    assert choose(candidate("full", children=4), candidate("free", useful=0.1)) == (b"free",)


def test_a_child_is_not_left_with_nobody() -> None:
    assert choose(candidate("fuller", children=9), candidate("full", children=4)) == (b"full",)


def test_a_parent_is_kept_unless_another_is_clearly_better() -> None:
    mine = candidate("mine", children=1, is_parent=True)
    assert best(mine, candidate("idle")) == "mine"
    assert best(mine, candidate("closer and faster", rate_bytes_s=1.0)) == "closer and faster"


def test_equal_holders_are_spread_over_the_children() -> None:
    holders = [candidate(f"holder {number}") for number in range(4)]
    firsts = {
        choose(*holders, child=NodeId(bytes([number])), max_parents=1)[0] for number in range(32)
    }
    assert len(firsts) == 4


candidates = st.lists(
    st.builds(
        Candidate,
        st.binary(min_size=1, max_size=2).map(NodeId),
        useful=st.floats(0, 1),
        children=st.integers(0, 6),
        rate_bytes_s=st.none() | st.floats(0, 1e9),
        complainers=st.integers(0, 5),
        depth=st.integers(0, 5),
        is_parent=st.booleans(),
    ),
    unique_by=lambda found: found.node_id,
)


@given(candidates, st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_the_choice_is_bounded_useful_and_free_of_order(found: list[Candidate], rng: Any) -> None:
    chosen = choose(*found)
    assert len(set(chosen)) == len(chosen) <= 2
    useful = {entry.node_id for entry in found if entry.useful > 0}
    assert set(chosen) <= useful
    assert bool(chosen) == bool(useful)
    rng.shuffle(found)
    assert choose(*found) == chosen


def test_who_is_slow_by_what_the_others_give_is_left_out() -> None:
    quick = [candidate(f"quick{n}", rate_bytes_s=100.0 + n, children=2, depth=2) for n in range(6)]
    slow = candidate("slow", rate_bytes_s=10.0)
    assert b"slow" not in choose(*quick, slow, max_parents=7)
    assert b"slow" in choose(*quick, candidate("slow"), max_parents=7), "its rate is not known yet"


def test_a_slow_one_that_alone_has_everything_is_not_left_out() -> None:
    quick = [candidate(f"quick{n}", rate_bytes_s=100.0 + n, useful=0.5) for n in range(6)]
    assert b"slow" in choose(*quick, candidate("slow", rate_bytes_s=10.0), max_parents=7)
