"""Records are found from any node, whatever it believes of the ring."""

from __future__ import annotations

import math

from sim.bare.library import Library
from sim.bare.outcome import Outcome
from sim.bare.records import Lookup
from sim.bare.scenario import bare_scenario
from sim.bare.stage import BareStage
from sim.faults import Kill, Partition, Restart

SCHEDULERS = 9
DIFFERENCE = 2
"""Members that the askers still believe in, and as many that they have not heard of: R - 1."""
TASKS = 60
AWAY_S = 6.0
"""Shorter than any suspicion in a cluster of 60 and more."""
MAX_REDIRECTS = 2
P95_S = 0.5
"""Less than gossip takes to bring the news: whoever is asked introduces the keepers."""


@bare_scenario("lookups-under-differing-views", nodes=1000)
def lookups_under_differing_views(stage: BareStage) -> None:
    """Nodes that were cut off while two schedulers died and two came find every record."""
    world = stage.world
    world.grow(stage.nodes, schedulers=SCHEDULERS)
    library = Library(world)
    library.settle()
    library.fill(TASKS)
    stage.run(3)
    askers = tuple(world.machines)[-max(3, stage.nodes // 50) :]
    newcomers = [world.add_machine().name for _ in range(DIFFERENCE)]
    healed_at = stage.inject(Partition(island=askers, for_s=AWAY_S)) + AWAY_S
    rng = world.streams.named("scenario")
    for name in rng.sample(list(world.machines)[:SCHEDULERS], DIFFERENCE):
        stage.inject(Kill(node=name))
    for name in newcomers:
        stage.inject(Restart(node=name))
    stage.run(healed_at - stage.now)
    if not library.is_settled:
        stage.report("the keepers have not settled on the new ring")
    _note_differences(stage, library, askers)
    lookups = [library.look_up(name, task) for name in askers for task in library.tasks]
    stage.run_until("all lookups are over", lambda: all(x.is_settled for x in lookups), 15.0)
    _judge(stage, lookups)


@bare_scenario("phantom-keepers", nodes=60)
def phantom_keepers(stage: BareStage) -> None:
    """The same, small: who believes in dead keepers hears from the one that lives of the others."""
    lookups_under_differing_views(stage)


def _note_differences(stage: BareStage, library: Library, askers: tuple[str, ...]) -> None:
    kept = stage.world.machines[library.keepers(library.tasks[0])[0]].membership.owners
    for name in askers:
        seen = stage.world.machines[name].membership.owners
        if max(len(seen - kept), len(kept - seen)) > DIFFERENCE:
            stage.report(f"{name} sees another ring than it was to see")
        if not seen - kept or not kept - seen:
            stage.report(f"{name} sees the ring as it is: nothing is shown")


def _judge(stage: BareStage, lookups: list[Outcome[Lookup]]) -> None:
    results = [each.result() for each in lookups]
    served = [each for each in results if each.record is not None]
    took_s = sorted(each.took_s for each in results)
    stage.metrics["lookups"] = len(results)
    stage.metrics["served %"] = round(100 * len(served) / len(results), 3)
    stage.metrics["redirected"] = sum(each.redirects > 0 for each in results)
    stage.metrics["redirects at most"] = max(each.redirects for each in results)
    stage.metrics["slowest s"] = round(took_s[-1], 4)
    stage.metrics["p95 s"] = round(took_s[math.ceil(0.95 * len(took_s)) - 1], 4)
    if len(served) < len(results):
        stage.report(f"{len(results) - len(served)} of {len(results)} lookups found nothing")
    if stage.metrics["p95 s"] > P95_S:
        stage.report(f"5 % of the lookups took {stage.metrics['p95 s']:g} s and more")
    if stage.metrics["redirects at most"] > MAX_REDIRECTS:
        stage.report(f"a lookup was redirected {stage.metrics['redirects at most']:g} times")
