"""A disk that fills up in the middle of a download: nothing is torn, and nothing is lost."""

from __future__ import annotations

import pytest
import trio

from gossipcache.config import TransferConfig
from gossipcache.errors import NoSpace
from tests.node.cluster import DATA, PIECE_BYTES, World, exporting, in_cluster, read

SIZE = 64 * PIECE_BYTES
RATE = SIZE // 8  # eight seconds


def outputs(world: World, machine: str) -> list[str]:
    """Whatever stands where exports go, temporary files too."""
    return [name for name in world.machines[machine].disk.list_folder(DATA) if "out" in name]


def test_a_download_stops_at_a_full_disk_and_resumes_when_there_is_room() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        machine = world.machines["n1"]
        machine.disk.make_folder(DATA)
        medium = machine.disk.medium
        before = medium.capacity_bytes

        async def fill() -> None:
            await trio.sleep(4.0)
            medium.capacity_bytes = before - machine.disk.free_bytes(DATA)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fill)
            with pytest.raises(NoSpace):
                await world.on("n1", lambda node: node.export(exporting("report", "out")))
        assert outputs(world, "n1") == []
        assert not world.node("n1").list_tasks()[0].complete

        medium.capacity_bytes = before
        result = await world.on("n1", lambda node: node.export(exporting("report", "out")))
        assert read(world, "n1", "out") == world.contents["report", ""]
        assert 3 / 8 * SIZE < result.resumed_bytes <= SIZE / 2, "all but the last second"
        assert sum(result.bytes_by_source.values()) == SIZE - result.resumed_bytes

    in_cluster(test, transfer=TransferConfig(piece_size_bytes=PIECE_BYTES, upload_rate=RATE))
