"""A thousand nodes and more, as callbacks."""

from __future__ import annotations

from sim.bare.scenario import bare_scenario
from sim.bare.stage import BareStage
from sim.faults import Kill, Loss, Restart


@bare_scenario("thousand-idle", nodes=1000)
def thousand_idle(stage: BareStage) -> None:
    """A thousand nodes that know each other have nothing to say, and say little."""
    world = stage.world
    world.grow(stage.nodes)
    stage.run(5)
    before = world.bytes_sent()
    stage.run(30)
    stage.metrics["bytes a node and second"] = round(
        (world.bytes_sent() - before) / 30 / stage.nodes, 1
    )
    if not world.views_agree():
        stage.report("somebody lost sight of somebody in a quiet cluster")


@bare_scenario("thousand-churn", nodes=1000)
def thousand_churn(stage: BareStage) -> None:
    """Nodes of a thousand die and come back while two percent of all packets are lost."""
    world = stage.world
    world.grow(stage.nodes)
    stage.run(2)
    stage.inject(Loss(probability=0.02, for_s=40.0))
    rng = world.streams.named("scenario")
    victims = rng.sample(sorted(world.machines), max(2, stage.nodes // 50))
    for name in victims:
        stage.inject(Kill(node=name))
        stage.run(0.5)
    stage.metrics["all missed after s"] = stage.run_until(
        "all miss the dead", world.views_agree, 60.0
    )
    for name in victims:
        stage.inject(Restart(node=name))
    stage.metrics["all back after s"] = stage.run_until("one view", world.views_agree, 60.0)
