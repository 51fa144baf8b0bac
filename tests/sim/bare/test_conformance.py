"""One story, played by whole nodes on Trio and by bare ones, is seen alike.

Alike means: each node sees each other one go through the same states in the same order, and
does so at about the same time. The two drivers draw other random numbers, so that times differ
by what the protocol leaves to chance: when a probe, a suspicion's confirmation or another attempt
to reach the dead comes.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import trio

from gossipcache.dht.membership.member import Member
from sim.bare.injection import BareInjector
from sim.bare.stage import BareStage
from sim.bare.world import BareWorld
from sim.faults import AnyFault, Kill, Partition, Restart
from sim.injection import Injector
from sim.kernel import engine
from sim.kernel.clock import SimClock
from sim.kernel.entropy import Streams
from sim.kernel.process import PROCESS
from sim.trace import Trace
from sim.whole.world import World

NODES = 6
ISLAND = ("n1", "n2")
STORY: tuple[tuple[float, AnyFault], ...] = (
    (10.0, Kill(node="n3")),
    (30.0, Restart(node="n3")),
    (45.0, Partition(island=ISLAND, for_s=60.0)),
)
END_S = 130.0
ECHO_S = 1.0
MEDIAN_APART_S = 0.5
MOST_APART_S = 20.0
"""A suspicion that few can confirm lasts between 3 and 12 s, and begins when the member's turn to
be probed comes."""


@dataclass
class Histories:
    """What each node saw of each other one: its states, those that repeat the last left out."""

    seen: dict[tuple[str, str], list[tuple[str, float]]] = field(default_factory=dict)

    def add(self, viewer: str, member: str, state: str, now: float) -> None:
        if viewer == member:
            return
        history = self.seen.setdefault((viewer, member), [])
        if not history or history[-1][0] != state:
            history.append((state, now))

    def lasting(self) -> dict[tuple[str, str], list[tuple[str, float]]]:
        """Who was held for alive and for dead. Without the suspicion before a death, and without
        what lasted less than a second: when a partition heals, each side hears what the other
        believed of it, for as long as it takes to refute that."""
        found: dict[tuple[str, str], list[tuple[str, float]]] = {}
        for pair, history in self.seen.items():
            after = [*history[1:], ("", END_S)]
            kept = found.setdefault(pair, [])
            for (state, now), (following, end_s) in zip(history, after, strict=True):
                is_echo = end_s - now < ECHO_S or (state == "suspect" and following == "dead")
                if not is_echo and (not kept or kept[-1][0] != state):
                    kept.append((state, now))
        return found


class _Log(logging.Handler):
    """The service of a whole node logs each change of its view."""

    def __init__(self, heard: Callable[[str, str, str], None]) -> None:
        super().__init__()
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        process = PROCESS.get()
        if process is not None and isinstance(record.args, tuple) and len(record.args) == 3:
            name, _, state = record.args
            if record.msg.startswith("member "):
                self._heard(process.name, str(name), str(state))


def whole(seed: int) -> Histories:
    histories = Histories()

    async def main(clock: SimClock, streams: Streams) -> None:
        log = logging.getLogger("gossipcache.dht.membership.service")
        handler = _Log(
            lambda viewer, member, state: histories.add(viewer, member, state, clock.now)
        )
        level = log.level
        log.setLevel(logging.INFO)
        log.addHandler(handler)
        try:
            async with trio.open_nursery() as nursery:
                world = World(clock, streams, Trace(clock), nursery)
                faults = Injector(world)
                await world.start_cluster(NODES)
                for at_s, fault in STORY:
                    await trio.sleep_until(at_s)
                    await faults.inject(fault)
                await trio.sleep_until(END_S)
                world.end()
        finally:
            log.removeHandler(handler)
            log.setLevel(level)

    engine.run(main, seed=seed)
    return histories


def bare(seed: int) -> Histories:
    histories = Histories()
    world = BareWorld(seed)
    stage = BareStage(world, BareInjector(world), NODES)

    def saw(viewer: str, member: str, as_seen: Member) -> None:
        histories.add(viewer, member, as_seen.state, stage.now)

    world.on_change.append(saw)
    stage.start_cluster(NODES)
    for at_s, fault in STORY:
        stage.run(at_s - stage.now)
        stage.inject(fault)
    stage.run(END_S - stage.now)
    assert world.wrong == []
    return histories


@pytest.mark.parametrize("seed", [1])
def test_both_drivers_tell_the_same_story(seed: int) -> None:
    one, other = whole(seed).lasting(), bare(seed).lasting()
    assert set(one) == set(other)
    apart_s: list[float] = []
    for pair, there in one.items():
        here = other[pair]
        assert [state for state, _ in there] == [state for state, _ in here], pair
        apart_s += [abs(at_s - as_s) for (_, at_s), (_, as_s) in zip(there, here, strict=True)]
    assert statistics.median(apart_s) <= MEDIAN_APART_S
    assert max(apart_s) <= MOST_APART_S
