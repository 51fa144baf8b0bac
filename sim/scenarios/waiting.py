"""Very many wait for one parent that sends one piece at a time, over a slow link."""

from __future__ import annotations

from gossipcache.config import TransferConfig
from gossipcache.manifest import SignedManifest
from sim.bare.distribution import Distribution, Rates
from sim.bare.library import Library
from sim.bare.scenario import bare_scenario
from sim.bare.stage import BareStage

SCHEDULERS = 9
ONE_SLOT = TransferConfig(max_uploads=1)
RATE_BYTES_S = 125e6
SLOW_BYTES_S = 1e6
"""What the seed sends: 4.2 s a piece of 4 MiB."""
SIZE_BYTES = 2**25
OWN_SIZE_BYTES = 2**23
SEED = "n0"
SETTLE_S = 3.0
FILES_SLACK = 1.1
"""How many times as long as the seed's link needs it may take."""
FILE_SLACK = 2.0
"""The same where children that go short ask the seed for a piece that it has sent to another."""
MAX_WASTED_PERCENT = 1.0


@bare_scenario("broadcast-one-slot", nodes=60)
def broadcast_one_slot(stage: BareStage) -> None:
    """All fetch one file from a seed with a single upload slot and a slow link: everybody gets it,
    and no parent is given up because it is busy."""
    _Waiting(stage).play(["file"], SIZE_BYTES, FILE_SLACK)


@bare_scenario("tasks-one-slot", nodes=40)
def tasks_one_slot(stage: BareStage) -> None:
    """Each fetches a file of its own from one holder of all, so that nobody helps another: each
    waits in line, many times as long as a parent may be silent, and nobody fails."""
    _Waiting(stage).play(
        [f"file {number}" for number in range(1, stage.nodes)], OWN_SIZE_BYTES, FILES_SLACK
    )


class _Waiting:
    def __init__(self, stage: BareStage) -> None:
        world = stage.world
        self._stage = stage
        world.grow(stage.nodes, schedulers=min(SCHEDULERS, stage.nodes))
        self._library = Library(world)
        self._library.settle()
        self._distribution = Distribution(
            world,
            self._library,
            Rates(RATE_BYTES_S, RATE_BYTES_S),
            slower={SEED: Rates(SLOW_BYTES_S, RATE_BYTES_S)},
            transfer=ONE_SLOT,
        )
        self._children = [name for name in world.machines if name != SEED]

    def play(self, cids: list[str], size: int, slack: float) -> None:
        """The seed holds all of `cids`, and each child fetches the one whose turn it is."""
        stage, distribution = self._stage, self._distribution
        tasks: list[SignedManifest] = []
        for cid in cids:
            tasks.append(signed := self._library.publish(cid, size=size))
            distribution.seed(SEED, signed)
        stage.run(SETTLE_S)
        began = stage.now
        for number, name in enumerate(self._children):
            distribution.download(name, tasks[number % len(tasks)])
        bound_s = len(cids) * size / SLOW_BYTES_S
        stage.run_until("all have theirs", distribution.is_over, slack * bound_s)
        for fault in distribution.faults():
            stage.report(f"a parent was given up: {fault}")
        self._measure(stage.now - began, bound_s, size)

    def _measure(self, took_s: float, bound_s: float, size: int) -> None:
        stage, distribution = self._stage, self._distribution
        wasted = 100 * distribution.wasted_bytes() / (len(self._children) * size)
        if wasted > MAX_WASTED_PERCENT:
            stage.report(f"{wasted:.2f} % of all came in twice")
        stage.metrics |= {
            "last s": round(took_s, 3),
            "ratio": round(took_s / bound_s, 3),
            "channel bytes a child": round(
                distribution.network.message_bytes / len(self._children)
            ),
            "copies sent by the seed": round(distribution.bulk(SEED).sent_bytes / size, 3),
            "wasted %": round(wasted, 3),
        }
