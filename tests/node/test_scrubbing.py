"""What rotted on a disk, or may have, is found and mended before anybody asks for it."""

from __future__ import annotations

import trio

from gossipcache.config import StoreConfig
from tests.node.cluster import PIECE_BYTES, World, in_cluster, query

SIZE = 4 * PIECE_BYTES


def test_rot_is_found_and_mended_in_the_background() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        await world.export("n1", "report")
        node = world.node("n1")
        store = node.services.store
        world.machines["n1"].disk.rot(store.data_path(store.tasks()[0].task_id), PIECE_BYTES + 5)
        await trio.sleep(150.0)
        assert node.metrics.value("pieces_rotten") == 1
        assert (await world.on("n1", lambda node: node.verify(None))).bad == {}

    in_cluster(test, store=StoreConfig(scrub_age_s=100.0, gc_interval_s=10.0))


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
