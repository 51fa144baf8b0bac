"""How soon the dead are noticed, and how seldom the living are taken for dead."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Container

from gossipcache.config import SwimConfig
from gossipcache.dht.membership.member import Member
from gossipcache.link.control import IDLE_S
from sim.bare.injection import BareInjector
from sim.bare.scenario import bare_scenario
from sim.bare.stage import BareStage
from sim.bare.world import BareWorld
from sim.faults import (
    AnyFault,
    Delay,
    FlappingPartition,
    Kill,
    Loss,
    PowerLoss,
    Restart,
)

HOUR_S = 3600.0
TRIALS = 20


@bare_scenario("crash-noticed", nodes=100, limit_s=4 * HOUR_S)
def crash_noticed(stage: BareStage) -> None:
    """Processes are killed one by one: how long until all others hold each for dead.

    Before each the cluster rests until no link is open any more: a link that breaks tells sooner.
    """
    took = _noticed(stage, lambda name: Kill(node=name), rest_s=1.2 * IDLE_S)
    _hold(stage, took, median_s=2.5, longest_s=4.0)


@bare_scenario("silence-noticed", nodes=100)
def silence_noticed(stage: BareStage) -> None:
    """Machines go off one by one, without a word: how long until all others miss each."""
    took = _noticed(stage, lambda name: PowerLoss(node=name), rest_s=3.0)
    limits = ((10, 6.0), (100, 9.0))
    within_s = next((limit_s for upto, limit_s in limits if stage.nodes <= upto), 11.0)
    _hold(stage, took, median_s=within_s)


@bare_scenario("heavy-loss", nodes=10, limit_s=4 * HOUR_S)
def heavy_loss(stage: BareStage) -> None:
    """A quarter of all datagrams is lost, no link helps out: nobody is taken for dead."""
    world = stage.world
    world.grow(stage.nodes)
    stage.run(5)
    deaths = _deaths(world, set())
    # Ten hours of nodes; the tests play a few nodes for minutes.
    for_s = HOUR_S if stage.nodes >= 10 else 300.0
    stage.inject(Loss(probability=1.0, for_s=for_s, carrier="stream"))
    stage.inject(Loss(probability=0.25, for_s=for_s))
    stage.run(for_s)
    stage.metrics["node-hours"] = round(stage.nodes * for_s / HOUR_S, 2)
    stage.metrics["false deaths"] = len(deaths)
    if deaths:
        stage.report(f"{len(deaths)} false deaths, the first: {deaths[0]}")


@bare_scenario("stalled-nodes", nodes=64)
def stalled_nodes(stage: BareStage) -> None:
    """The messages of some nodes stall half of the time: they blame the healthy in plain SWIM.

    As in the experiments of the Lifeguard paper, packets are held up and timers go on. A process
    that is stopped as a whole does not blame anybody here: all of it runs in one event loop.
    """
    with_lifeguard = _blamed_by_stalled(stage)
    plain_world = BareWorld(stage.world.streams.seed, swim=SwimConfig(lifeguard=False))
    plain_stage = BareStage(plain_world, BareInjector(plain_world), stage.nodes)
    plain = _blamed_by_stalled(plain_stage)
    stage.metrics["false deaths"] = with_lifeguard
    stage.metrics["false deaths of plain SWIM"] = plain
    if plain < 50 * with_lifeguard or not plain:
        stage.report(f"{with_lifeguard} false deaths, {plain} in plain SWIM: not 50 times fewer")


@bare_scenario("flip-flop", nodes=1000)
def flip_flop(stage: BareStage) -> None:
    """A few bad links, lossy or one-way and flapping: the healthy stay, the bad do not flap."""
    world, for_s = stage.world, 600.0
    world.grow(stage.nodes)
    stage.run(5)
    names = world.up()
    bad = world.streams.named("scenario").sample(names, max(2, stage.nodes // 100))
    deaths = _deaths(world, set(bad), blind=set(bad))
    returns = _returns(world, set(bad))
    lossy, deaf, mute = bad[::2], bad[1::4], bad[3::4]
    stage.inject(Loss(probability=0.8, for_s=for_s, nodes=tuple(lossy)))
    for name in mute:
        stage.inject(FlappingPartition(island=(name,), every_s=40.0, for_s=for_s, one_way=True))
    for name in deaf:
        others = tuple(each for each in names if each != name)
        stage.inject(FlappingPartition(island=others, every_s=40.0, for_s=for_s, one_way=True))
    stage.run(for_s)
    stage.metrics["healthy evicted"] = len(deaths)
    stage.metrics["most flips of a bad node"] = most = max(returns.values(), default=0)
    if deaths:
        stage.report(f"{len(deaths)} healthy nodes were evicted, the first: {deaths[0]}")
    if most > for_s / 600.0:
        stage.report(f"a bad node came back {most} times")


def _noticed(stage: BareStage, strike: Callable[[str], AnyFault], *, rest_s: float) -> list[float]:
    """For each trial, how long until all running nodes missed the victim."""
    world, rng = stage.world, stage.world.streams.named("scenario")
    world.grow(stage.nodes)
    stage.run(5)
    took: list[float] = []
    for _ in range(TRIALS if stage.nodes >= 10 else TRIALS // 4):
        victim = rng.choice(world.up())
        stage.run(rng.uniform(0, 2))
        deaths = _deaths(world, {victim})
        stage.inject(strike(victim))
        everybody = len(world.up())
        took.append(
            stage.run_until(
                f"all miss {victim}",
                lambda name=victim, count=everybody: len(world.missed_by(name)) == count,  # type: ignore[misc]
                60.0,
            )
        )
        if deaths:
            stage.report(f"with {victim} others were called dead, the first: {deaths[0]}")
        stage.inject(Restart(node=victim))
        stage.run_until("one view again", world.views_agree, 60.0)
        stage.run(rest_s)
    return took


def _hold(
    stage: BareStage, took: list[float], *, median_s: float, longest_s: float | None = None
) -> None:
    """Notes the times, and whether they are within the limits."""
    median, longest = statistics.median(took), max(took)
    stage.metrics["trials"] = len(took)
    stage.metrics["noticed by all p50 s"] = round(median, 2)
    stage.metrics["noticed by all max s"] = round(longest, 2)
    if median > median_s:
        stage.report(f"half took longer than {median:.2f} s, not within {median_s:g} s")
    if longest_s is not None and longest > longest_s:
        stage.report(f"one took {longest:.2f} s, not within {longest_s:g} s")


def _blamed_by_stalled(stage: BareStage) -> int:
    """How often a healthy node is called dead while what a sixteenth of the nodes sends and is
    sent is held up half of the time, some seconds each time."""
    world = stage.world
    world.grow(stage.nodes)
    stage.run(5)
    stalled = world.streams.named("scenario").sample(world.up(), max(1, stage.nodes // 16))
    deaths = _deaths(world, set(stalled))
    stalls_s = {name: 3.0 + 2.0 * (place % 4) for place, name in enumerate(stalled)}
    next_at = dict.fromkeys(stalled, stage.now)
    for _second in range(300):
        for name, stall_s in stalls_s.items():
            if stage.now >= next_at[name]:
                stage.inject(Delay(node=name, seconds=stall_s, for_s=stall_s))
                next_at[name] += 2 * stall_s
        stage.run(1)
    return len(deaths)


def _deaths(world: BareWorld, sick: set[str], blind: Container[str] = ()) -> list[str]:
    """A list that grows with each death of a node that is not `sick`, in whosever view but
    those of the `blind`."""
    found: list[str] = []
    dead: set[tuple[str, str]] = set()

    def look(viewer: str, subject: str, member: Member) -> None:
        if viewer in blind:
            return
        if member.is_live:
            dead.discard((viewer, subject))
        elif member.state == "dead" and subject not in sick and (viewer, subject) not in dead:
            dead.add((viewer, subject))
            found.append(f"{subject} in the view of {viewer} at {world.timeline.now:.1f} s")

    world.on_change.append(look)
    return found


def _returns(world: BareWorld, watched: set[str]) -> dict[str, int]:
    """Counts how often each of `watched` was dead in most views and came back to most."""
    dead_in: dict[str, set[str]] = {name: set() for name in watched}
    is_out: set[str] = set()
    found: dict[str, int] = {}

    def look(viewer: str, subject: str, member: Member) -> None:
        if subject not in watched or viewer in watched:
            return
        views = dead_in[subject]
        (views.discard if member.is_live else views.add)(viewer)
        if len(views) > len(world.machines) / 2:
            is_out.add(subject)
        elif subject in is_out and len(views) < len(world.machines) / 10:
            is_out.discard(subject)
            found[subject] = found.get(subject, 0) + 1

    world.on_change.append(look)
    return found
