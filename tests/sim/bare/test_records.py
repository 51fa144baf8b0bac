"""Bare keepers and readers: what is held is found, and handed on when the ring changes."""

from __future__ import annotations

from sim.bare.injection import BareInjector
from sim.bare.library import Library
from sim.bare.records import Lookup
from sim.bare.stage import BareStage
from sim.bare.world import BareWorld
from sim.faults import Kill, Restart

NODES, SCHEDULERS, TASKS = 12, 5, 10


def stage() -> tuple[BareStage, Library]:
    world = BareWorld(1)
    made = BareStage(world, BareInjector(world), NODES)
    world.grow(NODES, schedulers=SCHEDULERS)
    library = Library(world)
    library.settle()
    library.fill(TASKS)
    made.run(3)
    return made, library


def looked_up(made: BareStage, library: Library, name: str) -> list[Lookup]:
    lookups = [library.look_up(name, task) for task in library.tasks]
    made.run_until("all are over", lambda: all(each.is_settled for each in lookups), 15)
    return [each.result() for each in lookups]


def test_every_task_is_found_from_everywhere() -> None:
    made, library = stage()
    for name in made.world.up():
        results = looked_up(made, library, name)
        assert all(each.record is not None and each.record.copies >= 2 for each in results)
        assert {each.redirects for each in results} == {0}


def test_what_nobody_holds_is_certainly_absent() -> None:
    made, library = stage()
    for name in made.world.up():
        if (core := library.of(name).core) is not None:
            core.drop(library.tasks[0])
    results = looked_up(made, library, "n11")
    assert results[0].record is None
    assert results[0].took_s < 1
    assert all(each.record is not None for each in results[1:])


def test_keepers_hand_on_what_others_keep_now() -> None:
    made, library = stage()
    made.inject(Kill(node="n1"))
    made.run_until("all miss n1", lambda: len(made.world.missed_by("n1")) == NODES - 1, 10)
    made.run_until("settled", lambda: library.is_settled, 10)
    for task in library.tasks:
        for name in library.keepers(task):
            core = library.of(name).core
            assert core is not None
            assert core.standing(task) is not None


def test_a_newcomer_is_given_what_it_keeps() -> None:
    made, library = stage()
    name = made.world.add_machine().name
    made.inject(Restart(node=name))
    made.run_until("one view", made.world.views_agree, 10)
    made.run_until("settled", lambda: library.is_settled, 10)
    kept = [task for task in library.tasks if name in library.keepers(task)]
    core = library.of(name).core
    assert core is not None
    assert kept
    assert all(core.standing(task) is not None for task in kept)


def test_a_keeper_that_was_never_heard_of_is_introduced() -> None:
    made, library = stage()
    asker, right = made.world.machines["n11"].membership, library.keepers(library.tasks[0])
    ids = [made.world.machines[name].identity.node_id for name in right]
    for node in ids:
        asker.core.table.forget(node)
        asker.owners.discard(node)
    asker._ring_is_stale = True
    found = library.look_up("n11", library.tasks[0])
    made.run_until("it is over", lambda: found.is_settled, 15)
    assert found.result().record is not None
    assert found.result().took_s < 0.2
    assert all(asker.resolve(node) is not None for node in ids)


def test_who_asks_the_wrong_nodes_is_sent_to_the_right_ones() -> None:
    made, library = stage()
    membership = made.world.machines["n11"].membership
    right = library.keepers(library.tasks[0])
    for name in right:
        membership.owners.discard(made.world.machines[name].identity.node_id)
    membership._ring_is_stale = True
    found = looked_up(made, library, "n11")[0]
    assert found.record is not None
    assert found.redirects == 1
