"""What rotted on a disk, or may have, is found and mended before anybody asks for it."""

from __future__ import annotations

import pytest
import trio

from gossipcache.config import StoreConfig
from tests.node.cluster import PIECE_BYTES, World, in_cluster, query

SIZE = 4 * PIECE_BYTES


@pytest.mark.parametrize(
    ("is_readable", "bad"), [(True, 1), (False, 4)], ids=["a bit", "its digests"]
)
def test_rot_is_found_and_mended_in_the_background(is_readable: bool, bad: int) -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        await world.export("n1", "report")
        node, disk = world.node("n1"), world.machines["n1"].disk
        store = node.services.store
        if is_readable:
            disk.rot(store.data_path(store.tasks()[0].task_id), PIECE_BYTES + 5)
        else:
            disk.fail("read")
        await trio.sleep(150.0)
        assert node.metrics.value("pieces_rotten") == bad
        assert (await world.on("n1", lambda node: node.verify(None))).bad == {}

    in_cluster(test, store=StoreConfig(scrub_age_s=100.0, gc_interval_s=10.0))


def test_what_cannot_be_read_is_fetched_anew_and_the_other_tasks_are_read_back_too() -> None:
    async def test(world: World) -> None:
        for cid in ("report", "table"):
            await world.import_content("n0", cid, SIZE)
            await world.export("n1", cid)
        world.machines["n1"].disk.fail("read")
        found = await world.on("n1", lambda node: node.verify(None))
        (bad,) = found.rotten
        assert (found.checked, bad.repaired) == (2, True)
        assert (await world.on("n1", lambda node: node.verify(None))).bad == {}

    in_cluster(test)


def test_a_task_that_cannot_be_mended_is_told_and_the_others_are_read_back_too() -> None:
    async def test(world: World) -> None:
        for cid in ("report", "table"):
            await world.import_content("n0", cid, SIZE)
        world.machines["n0"].disk.fail("read")
        found = await world.on("n0", lambda node: node.verify(None))
        assert (found.checked, [bad.repaired for bad in found.rotten]) == (2, [False])

    in_cluster(test)


def test_a_holder_with_a_damaged_index_serves_again_by_itself() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        index = world.node("n0").services.config.home / "store" / "index"
        await world.kill("n0")
        disk = world.machines["n0"].disk
        for offset in range(200):
            disk.rot(index, offset)
        await world.start("n0")
        await world.export("n1", "report")
        assert (await world.on("n1", lambda node: node.stat(query("report")))).holders

    in_cluster(test)
