"""`--replicas N`: verified copies on different nodes, restored when a holder dies."""

from __future__ import annotations

from dataclasses import replace

import trio

from gossipcache.config import StoreConfig
from tests.node.cluster import PIECE_BYTES, World, in_cluster, query

SIZE = 3 * PIECE_BYTES


def _who(world: World) -> list[str]:
    return [
        name for name in world.up() if any(task.complete for task in world.node(name).list_tasks())
    ]


def _holders(world: World) -> int:
    return len(_who(world))


def test_as_many_nodes_hold_the_task_as_were_asked_for() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE, replicas=3)
        await world.wait_until("three hold it", lambda: _holders(world) == 3, within_s=30)
        await world.wait_until("they stay three", lambda: _holders(world) == 3, within_s=120)
        holder = next(name for name in world.up() if world.node(name).list_tasks())
        await world.kill(holder)
        await world.wait_until("three hold it again", lambda: _holders(world) == 3, within_s=90)

    in_cluster(test, nodes=5)


def test_one_copy_is_enough_unless_more_are_asked_for() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        await world.kill("n2")
        await world.wait_views(3)
        assert _holders(world) == 1

    in_cluster(test, nodes=4)


def test_a_copy_too_many_goes_when_a_holder_comes_back() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE, replicas=3)
        await world.wait_until("three hold it", lambda: _holders(world) == 3, within_s=30)
        away = next(name for name in _who(world) if name != "n0")
        await world.kill(away)
        await world.wait_until("three hold it again", lambda: _holders(world) == 3, within_s=90)
        await world.start(away)
        await world.wait_views(6)
        assert _holders(world) == 4
        await world.wait_until("one goes", lambda: _holders(world) == 3, within_s=150)
        await trio.sleep(150)
        assert _holders(world) == 3, "one, and no more"
        assert "n0" in _who(world), "it was published there"

    in_cluster(test, nodes=6)


def test_what_users_brought_to_their_nodes_stays() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE, replicas=2)
        await world.wait_until("two hold it", lambda: _holders(world) == 2, within_s=30)
        for name in world.up():
            await world.export(name, "report")
        stores = {name: world.node(name).services.store for name in world.up()}
        own = [name for name, store in stores.items() if not store.tasks()[0].replica]
        assert len(own) == 4
        await trio.sleep(200)
        assert _who(world) == own, "n0 and those that exported it; the replica is needed no more"

    in_cluster(test, nodes=5)


def test_copies_stand_in_different_zones_first() -> None:
    async def test(world: World) -> None:
        for _ in range(6):
            machine = world.add_machine(zone="east" if len(world.machines) < 5 else "west")
            await world.start(machine.name)
        await world.wait_views(6)
        await world.import_content("n0", "report", SIZE, replicas=2)
        await world.wait_until("two hold it", lambda: _holders(world) == 2, within_s=30)
        zones = {world.machines[name].config.zone for name in _who(world)}
        assert zones == {"east", "west"}

    in_cluster(test, nodes=0)


def test_a_pinned_replica_stays() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE, replicas=2)
        await world.wait_until("two hold it", lambda: _holders(world) == 2, within_s=30)
        for name in _who(world):
            await world.on(name, lambda node: node.pin(query("report"), True))
        for name in world.up():
            await world.export(name, "report")
        await trio.sleep(200)
        assert _holders(world) == 4

    in_cluster(test, nodes=4)


def test_copies_that_are_wanted_do_not_idle() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE, replicas=3)
        await world.wait_until("three hold it", lambda: _holders(world) == 3, within_s=30)
        for name in world.up():
            await world.export(name, "report")
        await world.wait_until("the spare ones go", lambda: _holders(world) == 3, within_s=200)
        await trio.sleep(100)
        assert _holders(world) == 3

    in_cluster(test, nodes=5, store=StoreConfig(idle_ttl_s=60.0, gc_interval_s=10.0))


def test_many_copies_are_restored_side_by_side() -> None:
    async def test(world: World) -> None:
        names = [f"part-{number}" for number in range(48)]
        for name in names:
            await world.import_content("n0", name, 100, replicas=2)

        def copies() -> int:
            return sum(len(world.node(name).list_tasks()) for name in world.up())

        await world.wait_until("all have two", lambda: copies() == 2 * len(names), within_s=60)
        world.fabric.profile = replace(world.fabric.profile, latency_s=0.1)
        await world.kill("n1")
        await world.wait_until("all have two", lambda: copies() == 2 * len(names), within_s=12)

    in_cluster(test, nodes=6)
