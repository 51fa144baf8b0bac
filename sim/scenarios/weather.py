"""A long schedule on few bare nodes: quick runs in which many bugs of membership show, and many
faults of which few matter."""

from __future__ import annotations

import random

from sim.bare.scenario import bare_scenario
from sim.bare.stage import BareStage
from sim.faults import AnyFault, Delay, Duplication, Kill, Leave, Loss, Partition, Pause, PowerLoss

STRIKES = 12


@bare_scenario("weather", nodes=10)
def weather(stage: BareStage) -> None:
    """A dozen faults that the seed draws strike ten nodes; then all heals, and all see all."""
    world = stage.world
    world.grow(stage.nodes)
    stage.run(2)
    rng = world.streams.named("scenario")
    for _ in range(STRIKES):
        stage.run(rng.uniform(0.2, 6.0))
        stage.inject(_drawn(rng, world.up(), stage.nodes))
    stage.run(45)  # longer than any of them lasts
    for name in [name for name in world.machines if name not in world.up()]:
        world.start(name)
    stage.metrics["one view after s"] = stage.run_until("one view", world.views_agree, 60.0)


def _drawn(rng: random.Random, up: list[str], nodes: int) -> AnyFault:
    """A fault of any kind; half of the nodes stay."""
    node, for_s = rng.choice(up), round(rng.uniform(1.0, 40.0), 2)
    kind = rng.randrange(8) if len(up) * 2 > nodes else rng.randrange(3, 8)
    if kind == 0:
        return Kill(node=node)
    if kind == 1:
        return PowerLoss(node=node)
    if kind == 2:
        return Leave(node=node)
    if kind == 3:
        return Pause(node=node, for_s=for_s)
    if kind == 4:
        return Loss(probability=round(rng.uniform(0.02, 0.3), 3), for_s=for_s)
    if kind == 5:
        return Delay(node=node, seconds=round(rng.uniform(0.05, 1.5), 3), for_s=for_s)
    if kind == 6:
        return Duplication(probability=round(rng.uniform(0.05, 0.5), 3), for_s=for_s)
    island = sorted(rng.sample(range(nodes), rng.randint(1, nodes // 2)))
    names = tuple(f"n{number}" for number in island)
    return Partition(island=names, for_s=for_s, one_way=rng.random() < 0.5)
