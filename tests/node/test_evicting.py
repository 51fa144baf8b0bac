"""A full store gives up what was used the longest ago, and never what must stay."""

from __future__ import annotations

import pytest
import trio

from gossipcache.config import StoreConfig
from gossipcache.errors import NoSpace
from gossipcache.results import ImportResult, Outcome
from tests.node.cluster import PIECE_BYTES, World, importing, in_cluster, query

SIZE = 4 * PIECE_BYTES
ROOM_FOR_FOUR = StoreConfig(quota_bytes=4 * SIZE + PIECE_BYTES)


def held(world: World, machine: str) -> list[str]:
    return [task.cid for task in world.node(machine).list_tasks() if task.complete]


async def fill(world: World) -> None:
    """n0 publishes `a`, `b`, `c`, `d`; n1 fetches them in this order, and is full."""
    for cid in "abcd":
        await world.import_content("n0", cid, SIZE)
        await world.export("n1", cid)
        await trio.sleep(2.0)


def test_an_export_makes_room_by_least_recent_use() -> None:
    async def test(world: World) -> None:
        await fill(world)
        await world.export("n1", "a")  # used again: b is the oldest now
        await world.import_content("n2", "e", 2 * SIZE)
        await world.export("n1", "e")
        assert held(world, "n1") == ["a", "d", "e"]

    in_cluster(test, store=ROOM_FOR_FOUR)


def test_an_import_makes_room_too_from_a_path_and_from_a_stream() -> None:
    async def test(world: World) -> None:
        await fill(world)
        await world.import_content("n1", "e", SIZE)
        assert held(world, "n1") == ["b", "c", "d", "e"]
        await world.import_stream("n1", "f", SIZE, chunk_bytes=PIECE_BYTES, interval_s=0.01)
        assert held(world, "n1") == ["c", "d", "e", "f"]

    in_cluster(test, store=ROOM_FOR_FOUR)


def test_so_does_an_import_of_many() -> None:
    async def test(world: World) -> None:
        await fill(world)
        machine, found = world.machines["n1"], dict[int, Outcome]()
        paths = [machine.put_file(cid, cid.encode() * SIZE) for cid in "ef"]
        requests = [importing(path, path.name) for path in paths]
        await world.on("n1", lambda node: node.import_files(requests, found.__setitem__))
        assert [type(found[number]) for number in range(2)] == [ImportResult, ImportResult]
        assert held(world, "n1") == ["c", "d", "e", "f"]

    in_cluster(test, store=ROOM_FOR_FOUR)


def test_what_is_pinned_busy_or_the_last_copy_stays() -> None:
    async def test(world: World) -> None:
        await world.import_content("n1", "last", SIZE)
        await world.import_content("n0", "spare", SIZE)
        for cid in ("pinned", "busy", "spare"):
            if cid != "spare":
                await world.import_content("n0", cid, SIZE)
            await world.export("n1", cid)
            await trio.sleep(2.0)
        await world.on("n1", lambda node: node.pin(query("pinned"), True))
        async with world.node("n1").reader(query("busy")):
            await world.import_content("n2", "new", SIZE)
            await world.export("n1", "new")
            assert held(world, "n1") == ["busy", "last", "new", "pinned"]
            await world.import_content("n2", "large", 3 * SIZE)
            with pytest.raises(NoSpace):
                await world.export("n1", "large")
        assert held(world, "n1") == ["busy", "last", "pinned"]

    in_cluster(test, store=ROOM_FOR_FOUR)


def test_nothing_goes_for_what_fits_no_store() -> None:
    async def test(world: World) -> None:
        await fill(world)
        with pytest.raises(NoSpace):
            await world.import_content("n1", "huge", 5 * SIZE)
        assert held(world, "n1") == ["a", "b", "c", "d"]

    in_cluster(test, store=ROOM_FOR_FOUR)
