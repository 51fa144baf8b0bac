"""One file for everybody: a seed, and all others that fetch it at once."""

from __future__ import annotations

import math

from gossipcache.manifest import SignedManifest
from sim.bare.distribution import Distribution, Rates
from sim.bare.library import Library
from sim.bare.scenario import bare_scenario
from sim.bare.stage import BareStage

SCHEDULERS = 9
SIZE_BYTES = 2**30
RATE_BYTES_S = 125e6
"""Of every link, up and down: a gigabit a second."""
SETTLE_S = 3.0
LIMIT_S = 300.0
SEED = "n0"


def bound_s(signed: SignedManifest, nodes: int) -> float:
    """The shortest time in which one seed reaches `nodes` others over equal links, each sending
    one piece while it receives another (Mundinger, Weber and Weiss, 2008)."""
    pieces = signed.manifest.piece_count
    turns = pieces + math.ceil(math.log2(nodes)) - 1
    return turns / pieces * signed.manifest.size / RATE_BYTES_S


@bare_scenario("broadcast", nodes=1000)
def broadcast(stage: BareStage) -> None:
    """One seed brings 1 GiB to all others over equal links of a gigabit a second."""
    _Broadcast(stage).play()


class _Broadcast:
    def __init__(self, stage: BareStage) -> None:
        world = stage.world
        self._stage = stage
        world.grow(stage.nodes, schedulers=min(SCHEDULERS, stage.nodes))
        library = Library(world)
        library.settle()
        self.distribution = Distribution(world, library, Rates(RATE_BYTES_S, RATE_BYTES_S))
        self.signed = library.publish("broadcast", size=SIZE_BYTES)
        self.distribution.seed(SEED, self.signed)
        self.children = [name for name in world.machines if name != SEED]

    def play(self) -> None:
        """All fetch at once."""
        stage, distribution = self._stage, self.distribution
        stage.run(SETTLE_S)
        began, counted = stage.now, distribution.decisions()
        for name in self.children:
            distribution.download(name, self.signed)
        stage.run_until("all have it", distribution.is_over, LIMIT_S)
        self._measure(began, distribution.decisions() - counted)

    def _measure(self, began: float, decisions: int) -> None:
        stage, distribution, size = self._stage, self.distribution, SIZE_BYTES
        bound = bound_s(self.signed, len(self.children))
        took = sorted(at - began for at in distribution.finished_at.values())
        sent = stage.world.network.link_bytes
        control = sum(sent[kind] for kind in sorted(sent) if kind in SESSION_KINDS)
        children = len(self.children)
        stage.metrics |= {
            "bound s": round(bound, 3),
            "first s": round(took[0], 3),
            "p50 s": round(took[len(took) // 2], 3),
            "last s": round(took[-1], 3),
            "ratio": round(took[-1] / bound, 3),
            "decisions a second": round(decisions / took[-1], 1),
            "decisions a child": round(decisions / children, 2),
            "control bytes a child": round(control / children),
            "channel bytes a child": round(distribution.network.message_bytes / children),
            "copies sent by the seed": round(distribution.bulk(SEED).sent_bytes / size, 3),
            "copies sent at most": round(
                max(distribution.bulk(name).sent_bytes for name in self.children) / size, 3
            ),
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
