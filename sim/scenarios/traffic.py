"""What nodes send when there is nothing to do but to watch each other."""

from __future__ import annotations

import trio

from sim.faults import Kill
from sim.network.impairment import Carrier
from sim.whole.scenario import Stage, scenario
from sim.whole.world import World

IDLE_BYTES_PER_S = 400.0
"""The most that an idle node may send, with the headers of IP, UDP and TCP."""
CHURN_BYTES = 60_000.0
"""The most that a node may send in the ten seconds after another one joined or died."""
IDLE_WINDOW_S = 60.0
CHURN_WINDOW_S = 10.0
REST_S = 130.0
"""After which connections that nobody uses are closed, by both sides."""


@scenario("idle-traffic", nodes=10)
async def idle_traffic(stage: Stage) -> None:
    """Idle nodes send little, however many they are; a join and a death cost each a little."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await trio.sleep(REST_S)
    sent = await _sent_within(world, IDLE_WINDOW_S)
    rates = {carrier: count / IDLE_WINDOW_S for carrier, count in sent.items()}
    for carrier, rate in rates.items():
        world.metrics[f"idle {carrier} bytes a node and second"] = round(rate, 1)
    if sum(rates.values()) > IDLE_BYTES_PER_S:
        world.report(f"an idle node sends {sum(rates.values()):.0f} bytes a second")
    newcomer = world.add_machine()
    await world.start(newcomer.name)
    await _bounded(world, "join")
    await world.wait_views(stage.nodes + 1)
    await trio.sleep(REST_S)
    await stage.faults.inject(Kill(node="n1"))
    await _bounded(world, "death")
    await world.wait_views(stage.nodes)


async def _bounded(world: World, event: str) -> None:
    sent = await _sent_within(world, CHURN_WINDOW_S)
    for carrier, count in sent.items():
        world.metrics[f"{event} {carrier} bytes a node"] = round(count)
    if sum(sent.values()) > CHURN_BYTES:
        world.report(f"after a {event} a node sends {sum(sent.values()):.0f} bytes")


async def _sent_within(world: World, window_s: float) -> dict[Carrier, float]:
    """What the nodes that are up send from now on, a node."""
    names = world.up()
    before = {name: _sent(world, name) for name in names}
    await trio.sleep(window_s)
    carriers: tuple[Carrier, ...] = ("datagram", "stream")
    return {
        carrier: sum(_sent(world, name)[carrier] - before[name][carrier] for name in names)
        / len(names)
        for carrier in carriers
    }


def _sent(world: World, name: str) -> dict[Carrier, int]:
    return dict(world.fabric.hosts[world.machines[name].ip].sent_bytes)
