"""Bare nodes that fetch a task from a seed, and from each other."""

from __future__ import annotations

from sim.bare.distribution import Distribution, Rates
from sim.bare.injection import BareInjector
from sim.bare.library import Library
from sim.bare.serving import content_of
from sim.bare.stage import BareStage
from sim.bare.world import BareWorld
from sim.faults import Kill

NODES, SIZE = 8, 32 * 2**22
RATE = 125e6
ALONE_S = SIZE / RATE


class Play:
    """A seed, `n0`, has a task of 32 pieces that all others begin to fetch."""

    def __init__(self) -> None:
        world = BareWorld(1)
        self.stage = BareStage(world, BareInjector(world), NODES)
        world.grow(NODES, schedulers=3)
        library = Library(world)
        library.settle()
        self.distribution = Distribution(world, library, Rates(RATE, RATE))
        self.signed = library.publish("task", size=SIZE)
        self.distribution.seed("n0", self.signed)
        self.stage.run(3.0)
        for name in list(world.machines)[1:]:
            self.distribution.download(name, self.signed)

    def end(self, within_s: float = 60.0) -> float:
        took = self.stage.run_until("all have it", self.distribution.is_over, within_s)
        assert self.stage.world.wrong == []
        return took


def test_all_get_it_and_feed_each_other() -> None:
    play = Play()
    assert play.end() < 2 * ALONE_S
    assert len(play.distribution.finished_at) == NODES - 1
    assert play.distribution.bulk("n0").sent_bytes < 2 * SIZE


def test_a_parent_that_is_killed_costs_nobody_the_download() -> None:
    play = Play()
    play.stage.run(ALONE_S / 2)
    play.stage.inject(Kill(node="n5"))
    play.end()
    assert set(play.distribution.finished_at) == {f"n{n}" for n in range(1, NODES)} - {"n5"}


def test_a_piece_that_is_not_what_it_must_be_is_not_counted() -> None:
    play = Play()
    lies = play.distribution.shelf("n0", play.signed).contents
    lies[7] = b"something else"
    play.stage.run(2 * ALONE_S)
    for name in list(play.stage.world.machines)[1:]:
        shelf = play.distribution.shelf(name, play.signed)
        assert not shelf.present >> 7 & 1
        assert all(
            content == content_of(play.signed.task_id, index)
            for index, content in shelf.contents.items()
        )
    assert play.distribution.finished_at == {}


def test_a_run_is_its_seeds() -> None:
    digests = []
    for _ in range(2):
        play = Play()
        play.end()
        digests.append(play.stage.world.trace.close())
    assert digests[0] == digests[1]
