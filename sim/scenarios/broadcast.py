"""One file for everybody: a seed, and all others that fetch it at once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from gossipcache.manifest import SignedManifest
from sim.bare.distribution import Distribution, Rates
from sim.bare.library import Library
from sim.bare.scenario import bare_scenario
from sim.bare.stage import BareStage
from sim.faults import Kill

SCHEDULERS = 9
SIZE_BYTES = 2**30
RATE_BYTES_S = 125e6
"""Of every link, up and down: a gigabit a second."""
EQUAL = Rates(RATE_BYTES_S, RATE_BYTES_S)
SLOW = Rates(RATE_BYTES_S / 10, RATE_BYTES_S / 10)
SLOW_SHARE = 0.1
CRASH_SHARE = 0.2
GATEWAY_CRASH_SHARE = 0.1
ZONES = ("a", "b", "c", "d", "e")
MAX_COPIES_INTO_ZONE = 1.2
CROWD_RATE_BYTES_S = 1e9
"""What one of several processes on a machine takes in; the seed, which only sends, gives more."""
CROWD_SEED = Rates(8 * CROWD_RATE_BYTES_S, 8 * CROWD_RATE_BYTES_S)
CROWD_SIZE_BYTES = 2**29
CROWD_STAGGER_S = 0.06
MAX_COPIES_OF_CROWD = 1.5
MAX_MOVE_S = 5.0
"""Within which the sessions are with the next owner, with all their pieces."""
MAX_REPEATED_PERCENT = 1.0
SETTLE_S = 3.0
LIMIT_S = 300.0
SEED = "n0"


def bound_s(signed: SignedManifest, nodes: int, rate_bytes_s: float = RATE_BYTES_S) -> float:
    """The shortest time in which one seed reaches `nodes` others over equal links, each sending
    one piece while it receives another (Mundinger, Weber and Weiss, 2008)."""
    pieces = signed.manifest.piece_count
    turns = pieces + math.ceil(math.log2(nodes)) - 1
    return turns / pieces * signed.manifest.size / rate_bytes_s


@bare_scenario("broadcast", nodes=1000)
def broadcast(stage: BareStage) -> None:
    """One seed brings 1 GiB to all others over equal links of a gigabit a second."""
    _Broadcast(stage).play()


@bare_scenario("broadcast-slow", nodes=1000)
def broadcast_slow(stage: BareStage) -> None:
    """The same while every tenth node has a tenth of the rate, up and down.

    A slow node cannot be done before ten times the others' time; what counts is that it delays
    nobody else, and how near it comes to what its own link allows.
    """
    names = [f"n{number}" for number in range(1, stage.nodes)]
    chosen = stage.world.streams.named("scenario").sample(names, round(SLOW_SHARE * stage.nodes))
    played = _Broadcast(stage, others=dict.fromkeys(chosen, SLOW))
    played.play()
    played.measure_apart(chosen)


@bare_scenario("broadcast-crashes", nodes=1000)
def broadcast_crashes(stage: BareStage) -> None:
    """The same while every fifth node, but not the seed, is killed at some time during it."""
    played = _Broadcast(stage)
    played.play(played.deaths(CRASH_SHARE))


@bare_scenario("broadcast-zones", nodes=60)
def broadcast_zones(stage: BareStage) -> None:
    """The same to five zones: what crosses into each of the four that the seed is not in."""
    played = _Broadcast(stage, zones=ZONES)
    played.play()
    played.measure_borders()


@bare_scenario("broadcast-zones-crashes", nodes=60)
def broadcast_zones_crashes(stage: BareStage) -> None:
    """The same while every tenth node is killed at some time during it: each fetches a share from
    other zones, which others then take over."""
    played = _Broadcast(stage, zones=ZONES)
    played.play(played.deaths(GATEWAY_CRASH_SHARE))
    played.measure_borders()


@bare_scenario("broadcast-crowd", nodes=9)
def broadcast_crowd(stage: BareStage) -> None:
    """A few nodes begin one after the other, as programs start, and the seed's link is the widest:
    it is the fastest parent, and yet sends little more than one copy."""
    played = _Broadcast(
        stage,
        size=CROWD_SIZE_BYTES,
        rates=Rates(CROWD_RATE_BYTES_S, CROWD_RATE_BYTES_S),
        others={SEED: CROWD_SEED},
    )
    played.play(stagger_s=CROWD_STAGGER_S)
    copies = played.copies_of(SEED)
    if copies > MAX_COPIES_OF_CROWD:
        stage.report(f"the seed sent {copies:.2f} copies")


@bare_scenario("broadcast-owner-dies", nodes=100)
def broadcast_owner_dies(stage: BareStage) -> None:
    """The owner of the task dies amid it: the next keeper soon knows who has what, and nobody
    begins anew or fetches a piece twice."""
    played = _Broadcast(stage)
    played.play(during=played.lose_owner)
    played.measure_repeats()


class _Broadcast:
    def __init__(
        self,
        stage: BareStage,
        *,
        others: Mapping[str, Rates] | None = None,
        zones: Sequence[str] = ("",),
        size: int = SIZE_BYTES,
        rates: Rates = EQUAL,
    ) -> None:
        world = stage.world
        self._stage = stage
        world.grow(stage.nodes, schedulers=min(SCHEDULERS, stage.nodes), zones=zones)
        library = Library(world)
        library.settle()
        self.distribution = Distribution(world, library, rates, slower=others)
        self.size = size
        self.signed = library.publish("broadcast", size=size)
        self.distribution.seed(SEED, self.signed)
        self.children = [name for name in world.machines if name != SEED]
        self.bound_s = bound_s(self.signed, len(self.children), rates.up_bytes_s)
        self._began = 0.0

    def play(
        self,
        deaths: Sequence[tuple[float, str]] = (),
        stagger_s: float = 0.0,
        during: Callable[[], None] = lambda: None,
    ) -> None:
        """All fetch at once, or one after the other. `deaths`: who is killed, so many seconds after
        that. `during`: what else happens then."""
        stage, distribution = self._stage, self.distribution
        stage.run(SETTLE_S)
        self._began, counted = stage.now, distribution.decisions()
        for name in self.children:
            distribution.download(name, self.signed)
            stage.run(stagger_s)
        for after_s, name in deaths:
            stage.run(max(0.0, self._began + after_s - stage.now))
            stage.inject(Kill(node=name))
        during()
        stage.run_until("all have it", distribution.is_over, LIMIT_S)
        self._measure(distribution.decisions() - counted)

    def deaths(self, share: float) -> list[tuple[float, str]]:
        """Who is killed when: so many of the nodes, at any time of the bound."""
        rng = self._stage.world.streams.named("scenario")
        victims = rng.sample(self.children, round(share * self._stage.nodes))
        return sorted((rng.uniform(0, self.bound_s), name) for name in victims)

    def lose_owner(self) -> None:
        """Kills the owner when half of the bound is over, and waits until its successor knows at
        least what each child had then."""
        stage, distribution, signed = self._stage, self.distribution, self.signed
        stage.run(self.bound_s / 2)
        gone = distribution.owner(SEED, signed)
        if gone == SEED:
            return  # Without the seed nothing is left to show.
        self.children = [name for name in self.children if name != gone]
        had = {name: distribution.shelf(name, signed).present for name in self.children}
        stage.inject(Kill(node=gone))

        def is_told() -> bool:
            known = distribution.known(SEED, signed)
            return all(had[name] & ~known.get(name, 0) == 0 for name in self.children)

        took_s = stage.run_until("the next owner knows who has what", is_told, MAX_MOVE_S)
        stage.metrics["last heard of s"] = round(took_s, 3)

    def measure_repeats(self) -> None:
        """What came in beyond one copy each."""
        came = sum(self.distribution.bulk(name).received_bytes for name in self.children)
        repeats = 100 * (came / (len(self.children) * self.size) - 1)
        if repeats > MAX_REPEATED_PERCENT:
            self._stage.report(f"{repeats:.2f} % of all was fetched twice")
        self._stage.metrics["fetched twice %"] = round(repeats, 3)

    def measure_apart(self, slow: Sequence[str]) -> None:
        """What the slow ones took, by their own rate, and the last of the others."""
        took = self._took()
        alone_s = self.signed.manifest.size / SLOW.down_bytes_s
        quick_s = max(took[name] for name in self.children if name not in slow)
        self._stage.metrics |= {
            "ratio of the quick": round(quick_s / self.bound_s, 3),
            "ratio of the slow to their link": round(max(took[name] for name in slow) / alone_s, 3),
        }

    def measure_borders(self) -> None:
        """How many copies came into each zone from other zones."""
        machines = list(self._stage.world.machines.values())
        came: Counter[str] = Counter()
        for (source, target), size in self.distribution.network.pairs.items():
            if machines[source].zone != machines[target].zone:
                came[machines[target].zone] += size
        copies = {zone: came[zone] / self.size for zone in ZONES}
        for zone, count in copies.items():
            if count > MAX_COPIES_INTO_ZONE:
                self._stage.report(f"{count:.2f} copies came into zone {zone} from others")
        self._stage.metrics |= {
            "copies into a zone at most": round(max(copies.values()), 3),
            "copies over borders": round(sum(copies.values()), 3),
        }

    def copies_of(self, name: str) -> float:
        """How many copies a node has sent."""
        return self.distribution.bulk(name).sent_bytes / self.size

    def _took(self) -> dict[str, float]:
        return {name: at - self._began for name, at in self.distribution.finished_at.items()}

    def _measure(self, decisions: int) -> None:
        stage, distribution, size = self._stage, self.distribution, self.size
        took = sorted(self._took().values())
        sent = stage.world.network.link_bytes
        control = sum(sent[kind] for kind in sorted(sent) if kind in SESSION_KINDS)
        children = len(self.children)
        stage.metrics |= {
            "bound s": round(self.bound_s, 3),
            "first s": round(took[0], 3),
            "p50 s": round(took[len(took) // 2], 3),
            "last s": round(took[-1], 3),
            "ratio": round(took[-1] / self.bound_s, 3),
            "decisions a second": round(decisions / took[-1], 1),
            "decisions a child": round(decisions / children, 2),
            "control bytes a child": round(control / children),
            "channel bytes a child": round(distribution.network.message_bytes / children),
            "copies sent by the seed": round(self.copies_of(SEED), 3),
            "copies sent at most": round(max(map(self.copies_of, self.children)), 3),
            "wasted %": round(100 * distribution.wasted_bytes() / (children * size), 3),
        }


SESSION_KINDS = frozenset(
    (
        "Announce",
        "AnnounceReply",
        "AssignParents",
        "Heartbeat",
        "HeartbeatReply",
        "LeaveTask",
        "RegisterPeer",
        "ReportPieces",
        "SessionReply",
    )
)
