"""`--replicas N`: verified copies on different nodes, restored when a holder dies."""

from __future__ import annotations

from tests.node.cluster import PIECE_BYTES, World, in_cluster


def _holders(world: World) -> int:
    return sum(any(task.complete for task in world.node(name).list_tasks()) for name in world.up())


def test_as_many_nodes_hold_the_task_as_were_asked_for() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", 3 * PIECE_BYTES, replicas=3)
        await world.wait_until("three hold it", lambda: _holders(world) == 3, within_s=30)
        await world.wait_until("they stay three", lambda: _holders(world) == 3, within_s=120)
        holder = next(name for name in world.up() if world.node(name).list_tasks())
        await world.kill(holder)
        await world.wait_until("three hold it again", lambda: _holders(world) == 3, within_s=90)

    in_cluster(test, nodes=5)


def test_one_copy_is_enough_unless_more_are_asked_for() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", 3 * PIECE_BYTES)
        await world.kill("n2")
        await world.wait_views(3)
        assert _holders(world) == 1

    in_cluster(test, nodes=4)
