"""`import`: what is refused, what is stored, and what a crash leaves."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import trio

from gossipcache.errors import Conflict, IntegrityError, TaskNotFound, UsageError
from gossipcache.requests import ImportRequest
from sim.whole.machine import NodeKilled
from tests.node.cluster import PIECE_BYTES, World, importing, in_cluster


def test_another_node_finds_the_task_as_soon_as_import_returns() -> None:
    async def test(world: World) -> None:
        imported = await world.import_content("n0", "report", 3 * PIECE_BYTES + 1)
        found = await world.stat("n1", "report")
        assert imported.record_copies >= 2
        assert (found.size, found.pieces) == (3 * PIECE_BYTES + 1, 4)
        assert [holder.name for holder in found.holders] == ["n0"]
        assert found.publisher == world.node("n0").node_id.hex()
        assert not found.local.present

    in_cluster(test)


def test_without_a_cid_the_content_names_itself() -> None:
    async def test(world: World) -> None:
        path = world.machines["n0"].put_file("file", b"content")
        imported = await world.on("n0", lambda node: node.import_file(importing(path, None)))
        assert imported.cid == f"sha256:{hashlib.sha256(b'content').hexdigest()}"
        assert imported.digest == imported.cid

    in_cluster(test)


def test_a_digest_cid_that_does_not_fit_stores_nothing() -> None:
    async def test(world: World) -> None:
        path = world.machines["n0"].put_file("file", b"content")
        wrong = f"sha256:{'0' * 64}"
        with pytest.raises(IntegrityError, match="not sha256:000"):
            await world.on("n0", lambda node: node.import_file(importing(path, wrong)))
        assert world.node("n0").services.store.tasks(unpublished=True) == []

    in_cluster(test)


def test_the_same_content_again_succeeds_and_makes_a_second_holder() -> None:
    async def test(world: World) -> None:
        first = await world.import_content("n0", "report", PIECE_BYTES)
        again = await world.import_content("n1", "report", PIECE_BYTES)
        assert not first.already_present
        assert again.already_present
        assert again.publisher == first.publisher
        found = await world.stat("n2", "report")
        assert sorted(holder.name for holder in found.holders) == ["n0", "n1"]

    in_cluster(test)


def test_other_content_under_the_same_name_is_a_conflict_and_the_old_stays() -> None:
    async def test(world: World) -> None:
        first = await world.import_content("n0", "report", PIECE_BYTES)
        path = world.machines["n1"].put_file("other", b"something else")
        with pytest.raises(Conflict, match="other content"):
            await world.on("n1", lambda node: node.import_file(importing(path, "report")))
        assert world.node("n1").list_tasks() == ()
        assert (await world.stat("n1", "report")).digest == first.digest

    in_cluster(test)


def test_a_stream_is_imported_as_it_comes() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield bytes(PIECE_BYTES)

    async def test(world: World) -> None:
        request = ImportRequest(path=None, cid="stream")
        imported = await world.on("n0", lambda node: node.import_file(request, stream=chunks()))
        assert (imported.size, imported.pieces) == (3 * PIECE_BYTES, 3)

    in_cluster(test)


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, 3 * PIECE_BYTES])
def test_any_size_can_be_imported_and_exported(size: int) -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", size)
        exported = await world.export("n1", "report")
        assert exported.size == size

    in_cluster(test)


def test_a_path_that_is_not_there_is_the_callers_error() -> None:
    async def test(world: World) -> None:
        path = world.machines["n0"].put_file("file", b"").with_name("missing")
        with pytest.raises(UsageError, match="does not exist"):
            await world.on("n0", lambda node: node.import_file(importing(path, "report")))

    in_cluster(test)


@pytest.mark.parametrize("killed_after_s", [0.001, 0.01, 0.02, 0.03, 0.04, 0.06, 0.1])
def test_an_import_killed_at_any_moment_is_whole_or_gone(killed_after_s: float) -> None:
    async def test(world: World) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_import_until_killed, world)
            await trio.sleep(killed_after_s)
            await world.kill("n0")
        await world.start("n0")
        await world.wait_until(
            "the import is settled", lambda: _unpublished(world) == 0, within_s=60
        )
        if world.node("n0").list_tasks():
            await world.export("n1", "report")
        else:
            with pytest.raises(TaskNotFound):
                await world.stat("n0", "report")
            await world.import_content("n0", "report", PIECE_BYTES)

    in_cluster(test)


@pytest.mark.parametrize("after_s", [0.001, 0.01, 0.02, 0.03, 0.04, 0.06, 0.1])
def test_an_import_interrupted_at_any_moment_is_whole_or_gone(after_s: float) -> None:
    async def test(world: World) -> None:
        with trio.move_on_after(after_s):
            await world.import_content("n0", "report", PIECE_BYTES)
        await world.wait_until(
            "the import is settled", lambda: _unpublished(world) == 0, within_s=60
        )
        if world.node("n0").list_tasks():
            await world.export("n1", "report")
        else:
            await world.import_content("n0", "report", PIECE_BYTES)

    in_cluster(test)


async def _import_until_killed(world: World) -> None:
    with suppress(NodeKilled):
        await world.import_content("n0", "report", PIECE_BYTES)


def _unpublished(world: World) -> int:
    tasks = world.node("n0").services.store.tasks(unpublished=True)
    return sum(not task.published for task in tasks)
