"""`delete`: everywhere for good, or here unless it is the last copy."""

from __future__ import annotations

import msgspec
import pytest
import trio

from gossipcache.errors import NotPermitted, TaskNotFound
from gossipcache.manifest import sign_manifest, sign_tombstone
from gossipcache.messages.holding import DropTask, TaskDropped
from tests.node.cluster import PIECE_BYTES, World, forget, in_cluster, query

SIZE = 3 * PIECE_BYTES


def test_every_alive_holder_drops_its_copy() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        await world.export("n1", "report")
        deleted = await world.delete("n2", "report")
        assert [world.name_of(node) for node in sorted(deleted.confirmed)] in (
            ["n0", "n1"],
            ["n1", "n0"],
        )
        assert deleted.pending == ()
        for name in world.up():
            assert world.node(name).list_tasks() == ()
            with pytest.raises(TaskNotFound, match="it was deleted"):
                await world.stat(name, "report")

    in_cluster(test)


def test_what_is_not_there_cannot_be_deleted() -> None:
    async def test(world: World) -> None:
        with pytest.raises(TaskNotFound):
            await world.delete("n0", "report")

    in_cluster(test)


def test_a_deleted_task_can_be_imported_anew() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        await world.delete("n1", "report")
        await world.import_content("n2", "report", SIZE)
        await world.export("n0", "report")

    in_cluster(test)


def test_a_holder_that_was_away_drops_its_copy_when_it_is_back() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        await world.export("n3", "report")
        await world.kill("n3")
        await world.wait_views(3)
        assert (await world.delete("n1", "report")).pending == ()
        await world.start("n3")
        await world.wait_until(
            "the copy is dropped", lambda: not world.node("n3").list_tasks(), within_s=60
        )

    in_cluster(test, nodes=4)


def test_a_copy_of_an_earlier_generation_goes_where_a_later_one_stands() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        await world.export("n3", "report")
        await world.kill("n3")
        await world.wait_views(3)
        await world.delete("n1", "report")
        await world.import_content("n1", "report", SIZE)
        await world.start("n3")
        await world.wait_until(
            "the copy is dropped", lambda: not world.node("n3").list_tasks(), within_s=20
        )
        await world.export("n3", "report")
        (task,) = world.node("n3").services.store.tasks()
        assert task.generation == 2

    in_cluster(test, nodes=4)


def test_a_later_generation_outlives_the_loss_of_all_its_keepers() -> None:
    """They hear of the deletion of the earlier one first."""

    async def test(world: World) -> None:
        owner, replicas = await world.owner_of("n0", "report")
        former, holder = (name for name in world.up() if name not in (owner, *replicas))
        await world.import_content(former, "report", SIZE)
        await world.delete(former, "report")
        await world.import_content(holder, "report", SIZE)
        for name in (holder, owner, *replicas):
            await world.kill(name)
        for name in (owner, *replicas):
            world.wipe(name)
            await world.start(name)
        await world.wait_views(4)
        await trio.sleep(1)
        await world.start(holder)
        await world.wait_views(5)
        await world.export(owner, "report", timeout_s=30)

    in_cluster(test, nodes=5)


def test_a_node_that_was_away_asks_before_it_exports_its_copy() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        await world.export("n3", "report")
        await world.kill("n3")
        await world.wait_views(3)
        await world.delete("n1", "report")
        await world.start("n3")
        assert world.node("n3").list_tasks(), "it cannot know yet"
        with pytest.raises(TaskNotFound, match="deleted"):
            await world.export("n3", "report")
        assert not world.node("n3").list_tasks()

    in_cluster(test, nodes=4)


def test_only_the_publisher_may_delete_where_the_policy_says_so() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        with pytest.raises(NotPermitted, match="only its publisher"):
            await world.delete("n1", "report")
        assert await world.stat("n1", "report")
        await world.delete("n0", "report")

    in_cluster(test, delete_policy="publisher")


def test_the_last_complete_copy_is_dropped_only_by_force() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        with pytest.raises(NotPermitted, match="last complete copy"):
            await world.on("n0", lambda node: node.delete(forget("report", local=True)))
        await world.export("n1", "report")
        await world.on("n0", lambda node: node.delete(forget("report", local=True)))
        with pytest.raises(NotPermitted, match="last complete copy"):
            await world.on("n1", lambda node: node.delete(forget("report", local=True)))
        await world.on("n1", lambda node: node.delete(forget("report", local=True, force=True)))
        with pytest.raises(TaskNotFound, match="do not hold all of it"):
            await world.on("n2", lambda node: node.stat(query("report")))

    in_cluster(test)


@pytest.mark.parametrize("policy", ["any", "publisher"])
def test_a_deletion_that_the_record_does_not_know_drops_nothing(policy: str) -> None:
    """A member signs a manifest of its own making for the task, and its deletion."""

    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        (before,) = world.node("n0").list_tasks()
        liar, genuine = world.node("n1").services, world.node("n0").services.store.tasks()[0].signed
        made_up = sign_manifest(
            msgspec.structs.replace(genuine.manifest, generation=2**40), liar.identity
        )
        stone = sign_tombstone(made_up, liar.identity, policy_number=0, deleted_at=0)
        message = DropTask(tombstone=stone.signed, manifest=stone.manifest.signed)
        with pytest.raises(NotPermitted, match="knows nothing"):
            await liar.links.request(world.node("n0").node_id, message, TaskDropped, 5.0)
        assert world.node("n0").list_tasks() == (before,)
        # Nor does a node that holds nothing of the task remember it.
        await liar.links.request(world.node("n2").node_id, message, TaskDropped, 5.0)
        assert world.node("n2").services.store.dead_generation(genuine.task_id) == 0
        await world.export("n2", "report")

    in_cluster(test, delete_policy=policy)
