"""What nodes send when there is nothing to do but to watch each other."""

from __future__ import annotations

import trio

from sim.faults import Kill
from sim.impairment import Carrier
from sim.scenario import Stage, scenario
from sim.world import World

IDLE_BYTES_PER_S = 400.0
"""The most that an idle node may send, with the headers of IP, UDP and TCP."""
CHURN_BYTES_PER_S = 1500.0
"""The same in the ten seconds after one node joined or died."""
REST_S = 130.0
"""After which connections that nobody uses are closed, by both sides."""
WINDOW_S = 60.0
CHURN_WINDOW_S = 10.0


@scenario("idle-traffic", nodes=10)
async def idle_traffic(stage: Stage) -> None:
    """Idle nodes send little, however many they are; a join and a death cost each a little."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    await trio.sleep(REST_S)
    await _measured(world, "idle", WINDOW_S, IDLE_BYTES_PER_S)
    newcomer = world.add_machine()
    await world.start(newcomer.name)
    await _measured(world, "join", CHURN_WINDOW_S, CHURN_BYTES_PER_S)
    await world.wait_views(stage.nodes + 1)
    await trio.sleep(REST_S)
    await stage.faults.inject(Kill(node="n1"))
    await _measured(world, "death", CHURN_WINDOW_S, CHURN_BYTES_PER_S)
    await world.wait_views(stage.nodes)


async def _measured(world: World, what: str, window_s: float, bound: float) -> None:
    """Metrics of what the nodes that are up send from now on, and whether it is too much."""
    names = world.up()
    before = {name: _sent(world, name) for name in names}
    await trio.sleep(window_s)
    total = 0.0
    carriers: tuple[Carrier, ...] = ("datagram", "stream")
    for carrier in carriers:
        sent = sum(_sent(world, name)[carrier] - before[name][carrier] for name in names)
        rate = sent / window_s / len(names)
        world.metrics[f"{what} {carrier} bytes a node and second"] = round(rate, 1)
        total += rate
    if total > bound:
        world.report(f"{what}: a node sends {total:.0f} bytes a second, more than {bound:.0f}")


def _sent(world: World, name: str) -> dict[Carrier, int]:
    return dict(world.fabric.hosts[world.machines[name].ip].sent_bytes)
