"""Each invariant of views is planted broken, and found."""

from __future__ import annotations

from dataclasses import replace

from gossipcache.dht.membership.member import Member
from sim.bare.world import BareWorld


def world() -> BareWorld:
    made = BareWorld(1)
    made.grow(4)
    made.timeline.run_to(3)
    assert made.wrong == []
    return made


def member(made: BareWorld) -> Member:
    found = made.member("n0", "n1")
    assert found is not None
    return found


def found(made: BareWorld) -> list[str]:
    return [each.what for each in made.wrong]


def test_an_incarnation_that_goes_back() -> None:
    made = world()
    view = made.machines["n0"].membership
    older = replace(member(made), incarnation=member(made).incarnation - 1)
    made.changed(view, older)
    assert "on n0 n1 went back in (incarnation, state)" in found(made)


def test_a_death_that_is_taken_back_without_a_new_incarnation() -> None:
    made = world()
    view = made.machines["n0"].membership
    made.changed(view, member(made).in_state("dead"))
    assert found(made) == []
    made.changed(view, member(made))
    assert found(made) == ["on n0 n1 went back in (incarnation, state)"]


def test_an_incarnation_that_nobody_claimed() -> None:
    made = world()
    forged = replace(member(made), incarnation=member(made).incarnation + 1)
    made.changed(made.machines["n0"].membership, forged)
    assert found(made) == ["on n0 n1 has an incarnation it never claimed"]


def test_owners_that_are_not_those_of_an_equal_view() -> None:
    made = world()
    view = made.machines["n0"].membership
    view.owners.discard(member(made).node_id)
    view.owners_mark ^= int.from_bytes(member(made).node_id, "big")
    made.settled(view)
    assert found(made) == ["n0 has other owners than one with an equal view"]
    made.witness.at_the_end()
    assert "n0 has other owners than its members say" in found(made)
