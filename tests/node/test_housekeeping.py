"""The local store and the view: list, pin, gc, verify, members, ring."""

from __future__ import annotations

import errno

import pytest
import trio

from gossipcache.config import StoreConfig
from gossipcache.errors import TaskNotFound, TimedOut
from gossipcache.node.housekeeping import repair
from tests.node.cluster import PIECE_BYTES, World, in_cluster, query

SIZE = 4 * PIECE_BYTES


def test_list_names_what_is_here_sorted() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "b", SIZE)
        await world.import_content("n0", "a", SIZE, pin=True)
        listed = world.node("n0").list_tasks()
        assert [(task.cid, task.complete, task.pinned) for task in listed] == [
            ("a", True, True),
            ("b", True, False),
        ]

    in_cluster(test)


def test_gc_takes_what_idles_but_neither_pinned_nor_last_copies() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "only", SIZE)
        await world.import_content("n0", "spare", SIZE)
        await world.import_content("n0", "pinned", SIZE, pin=True)
        await world.export("n1", "spare")
        await world.export("n1", "pinned")
        await trio.sleep(20.0)
        would = await world.node("n0").gc(dry_run=True)
        assert len(world.node("n0").list_tasks()) == 3
        done = await world.node("n0").gc(dry_run=False)
        assert (len(would.removed), len(done.removed), done.kept_last_copies) == (2, 1, 1)
        assert [task.cid for task in world.node("n0").list_tasks()] == ["only", "pinned"]

    in_cluster(test, store=StoreConfig(idle_ttl_s=10.0, gc_interval_s=1e6))


def test_a_time_to_live_ends_even_the_last_copy() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE, ttl_s=30.0)
        assert await world.stat("n1", "report")
        await trio.sleep(31.0)
        with pytest.raises(TaskNotFound):
            await world.stat("n1", "report")
        await world.node("n0").gc(dry_run=False)
        assert world.node("n0").list_tasks() == ()

    in_cluster(test)


def test_verify_finds_rot_and_gets_the_piece_again() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        await world.export("n1", "report")
        store = world.node("n1").services.store
        task_id = store.tasks()[0].signed.task_id
        world.machines["n1"].disk.rot(store.data_path(task_id), PIECE_BYTES + 5)
        found = await world.on("n1", lambda node: node.verify(query("report")))
        assert (found.bad, found.repaired) == ({"report": (1,)}, {"report": (1,)})
        assert store.tasks()[0].complete
        assert (await world.on("n1", lambda node: node.verify(None))).bad == {}

    in_cluster(test)


def test_verify_tells_two_tags_of_one_cid_apart() -> None:
    async def test(world: World) -> None:
        node = world.node("n0")
        for tag in ("v1", "v2"):
            await world.import_content("n0", "report", SIZE, tag=tag)
        store = node.services.store
        for piece, stored in enumerate(
            sorted(store.tasks(), key=lambda stored: stored.signed.manifest.tag)
        ):
            path = store.data_path(stored.task_id)
            world.machines["n0"].disk.rot(path, piece * PIECE_BYTES + 5)
        found = await world.on("n0", lambda node: node.verify(None))
        assert [(one.cid, one.tag, one.bad, one.repaired) for one in found.rotten] == [
            ("report", "v1", (0,), False),
            ("report", "v2", (1,), False),
        ]
        assert (found.bad, found.repaired) == ({"report": (0, 1)}, {})

    in_cluster(test, nodes=1)


def test_a_task_whose_damage_cannot_be_noted_is_told_and_the_others_are_verified_too() -> None:
    async def test(world: World) -> None:
        disk, store = world.machines["n1"].disk, world.node("n1").services.store
        for cid in ("a", "b"):
            await world.import_content("n0", cid, SIZE)
            await world.export("n1", cid)
        await trio.sleep(1.0)  # The downloads have ended.
        for stored in store.tasks():
            disk.rot(store.data_path(stored.task_id), PIECE_BYTES + 5)
        disk.fail("write", errno.ENOSPC)
        found = await world.on("n1", lambda node: node.verify(None))
        assert [(one.cid, one.code) for one in found.unchecked] == [("a", "no_space")]
        assert (found.checked, found.repaired) == (1, {"b": (1,)})
        again = await world.on("n1", lambda node: node.verify(None))
        assert (again.checked, again.repaired, again.unchecked) == (2, {"a": (1,)}, ())

    in_cluster(test)


def test_a_task_that_the_disk_takes_no_piece_of_is_not_mended_until_it_does() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        await world.export("n1", "report")
        await trio.sleep(1.0)  # The download has ended.
        node, disk = world.node("n1"), world.machines["n1"].disk
        (stored,) = node.services.store.tasks()
        disk.rot(node.services.store.data_path(stored.task_id), PIECE_BYTES + 5)
        assert node.services.store.verify(stored.task_id) == (1,)
        disk.fail("write", errno.EIO)
        assert not await world.on("n1", lambda node: repair(node.services, stored))
        assert not node.list_tasks()[0].complete
        assert await world.on("n1", lambda node: repair(node.services, stored))
        assert node.list_tasks()[0].complete

    in_cluster(test)


def test_waiting_for_members_says_how_many_there_are() -> None:
    async def test(world: World) -> None:
        assert len(await world.node("n0").wait_members(3, 1.0)) == 3
        with pytest.raises(TimedOut, match="3 members are alive"):
            await world.on("n0", lambda node: node.wait_members(4, 1.0))

    in_cluster(test)


def test_the_ring_names_the_same_keepers_on_every_node() -> None:
    async def test(world: World) -> None:
        rings = [world.node(name).ring(query("report")) for name in world.up()]
        assert len({(ring.epoch, ring.owner, ring.replicas) for ring in rings}) == 1
        assert sum(share.share for share in rings[0].schedulers) == pytest.approx(1.0)
        assert len(rings[0].replicas) == 2

    in_cluster(test, nodes=4)
