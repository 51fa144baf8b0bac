"""`export` and reading: whole or not at all, from the store or from others."""

from __future__ import annotations

import io
import tarfile

import pytest
import trio

from gossipcache.errors import Conflict, TaskNotFound, TimedOut
from gossipcache.node import late_syncs
from gossipcache.requests import ExportRequest
from tests.node.cluster import (
    DATA,
    PIECE_BYTES,
    World,
    exporting,
    importing,
    in_cluster,
    node_id,
    query,
    read,
)

SIZE = 5 * PIECE_BYTES + 3


def test_an_export_leaves_this_node_a_holder_that_others_use() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        first = await world.export("n1", "report")
        assert first.bytes_by_source == {node_id(world, "n0"): SIZE}
        await world.kill("n0")
        second = await world.export("n2", "report")
        assert second.bytes_by_source == {node_id(world, "n1"): SIZE}
        again = await world.export("n2", "report")
        assert (again.bytes_by_source, again.resumed_bytes) == ({}, SIZE)

    in_cluster(test)


def test_an_existing_file_is_replaced_only_on_demand() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        world.machines["n1"].put_file("out", b"precious")
        with pytest.raises(Conflict, match="exists"):
            await world.on("n1", lambda node: node.export(exporting("report", "out")))
        assert read(world, "n1", "out") == b"precious"
        await world.on("n1", lambda node: node.export(exporting("report", "out", overwrite=True)))
        assert read(world, "n1", "out") == world.contents["report", ""]

    in_cluster(test)


def test_what_nobody_has_is_not_found_and_leaves_nothing() -> None:
    async def test(world: World) -> None:
        world.machines["n1"].put_file("other", b"")
        with pytest.raises(TaskNotFound, match="nobody in the cluster knows it"):
            await world.on("n1", lambda node: node.export(exporting("report", "out")))
        await world.import_content("n0", "report", SIZE)
        with pytest.raises(TaskNotFound, match="not complete on this node"):
            await world.on("n1", lambda node: node.export(exporting("report", "out", local=True)))
        assert world.machines["n1"].disk.list_folder(DATA) == ["other"]

    in_cluster(test)


def test_a_timeout_ends_the_work_and_a_second_export_resumes() -> None:
    size = 100 * PIECE_BYTES

    async def test(world: World) -> None:
        await world.import_content("n0", "report", size)
        world.machines["n1"].put_file("other", b"")
        with pytest.raises(TimedOut, match=r"took over 0\.2 s"):
            await world.on(
                "n1", lambda node: node.export(exporting("report", "out", timeout_s=0.2))
            )
        assert read(world, "n1", "out") is None
        resumed = await world.export("n1", "report")
        assert 0 < resumed.resumed_bytes < size
        assert sum(resumed.bytes_by_source.values()) == size - resumed.resumed_bytes

    in_cluster(test)


def test_exports_of_one_task_at_once_share_one_download() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", 50 * PIECE_BYTES)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(world.export, "n1", "report")
        sent = world.node("n0").metrics.value("pieces_sent")
        assert sent == 50

    in_cluster(test)


def test_a_pinned_digest_or_publisher_must_fit() -> None:
    async def test(world: World) -> None:
        imported = await world.import_content("n0", "report", SIZE)
        world.machines["n1"].put_file("other", b"")
        right = query("report", digest=imported.digest, publisher=imported.publisher)
        await world.on("n1", lambda node: node.export(ExportRequest(task=right, path=DATA / "out")))
        for wrong in (
            query("report", digest=f"blake3:{'0' * 64}"),
            query("report", publisher="00"),
        ):
            with pytest.raises(TaskNotFound, match="other content than the one pinned"):
                await world.on("n2", lambda node, wrong=wrong: node.stat(wrong))  # type: ignore[misc]

    in_cluster(test)


def test_ranges_are_read_from_a_task_that_is_still_elsewhere() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        content = world.contents["report", ""]
        async with world.node("n1").reader(query("report")) as reader:
            assert reader.size == SIZE
            middle = await reader.read(PIECE_BYTES - 2, 4)
            assert middle == content[PIECE_BYTES - 2 : PIECE_BYTES + 2]
            assert await reader.read(SIZE - 1, 100) == content[-1:]
            whole = b"".join([chunk async for chunk in reader.chunks()])
        assert whole == content

    in_cluster(test)


def test_a_tree_comes_back_as_a_tree_and_reads_as_a_tar() -> None:
    async def test(world: World) -> None:
        disk = world.machines["n0"].disk
        folder = world.machines["n0"].put_file("other", b"").with_name("tree")
        disk.make_folder(folder / "empty")
        for name, content in (("a", b"first"), ("b", bytes(PIECE_BYTES + 1))):
            file = disk.open(folder / name, "create")
            file.write_at(0, content)
            file.close()
        imported = await world.on("n0", lambda node: node.import_file(importing(folder, None)))
        assert imported.cid.startswith("tree:")
        world.machines["n1"].put_file("other", b"")
        await world.on("n1", lambda node: node.export(exporting(imported.cid, "tree")))
        assert world.machines["n1"].disk.list_folder(DATA / "tree") == ["a", "b", "empty"]
        assert world.machines["n1"].get_file(DATA / "tree" / "a") == b"first"
        async with world.node("n2").reader(query(imported.cid)) as reader:
            packed = b"".join([chunk async for chunk in reader.chunks()])
            assert len(packed) == reader.size
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            assert archive.getnames() == ["a", "b", "empty"]

    in_cluster(test)


def test_an_export_that_nobody_alive_can_feed_ends_as_not_found() -> None:
    async def test(world: World) -> None:
        world.machines["n1"].put_file("other", b"")
        await world.import_content("n0", "report", SIZE)
        await world.kill("n0")
        started = trio.current_time()
        with pytest.raises(TaskNotFound, match="the alive members do not hold all of it"):
            await world.on("n1", lambda node: node.export(exporting("report", "out")))
        assert trio.current_time() - started < 60
        assert read(world, "n1", "out") is None
        await world.start("n0")
        assert (await world.export("n1", "report")).bytes_by_source == {node_id(world, "n0"): SIZE}

    in_cluster(test)


@pytest.mark.parametrize("sync", [False, True])
def test_an_output_survives_a_power_cut_at_once_if_asked_and_soon_in_any_case(sync: bool) -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        world.machines["n1"].put_file("other", b"")
        await world.on("n1", lambda node: node.export(exporting("report", "out", sync=sync)))
        if not sync:
            await trio.sleep(1.0)
        await world.kill("n1", power_loss=True)
        assert read(world, "n1", "out") == world.contents["report", ""]

    in_cluster(test)


def test_many_outputs_are_durable_soon_too() -> None:
    async def test(world: World) -> None:
        await world.import_many("n0", ["a", "b"], SIZE)
        world.machines["n1"].put_file("other", b"")
        requests = [exporting(cid, cid, sync=cid == "a") for cid in ("a", "b")]
        await world.on("n1", lambda node: node.export_files(requests, lambda *_: None))
        await trio.sleep(1.0)
        await world.kill("n1", power_loss=True)
        assert all(read(world, "n1", cid) == world.contents[cid, ""] for cid in ("a", "b"))

    in_cluster(test)


def test_a_late_sync_that_fails_is_counted_and_the_next_one_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes = iter([[OSError(5, "Input/output error")], []])
    monkeypatch.setattr(late_syncs, "sync_outputs", lambda _disk, _paths: next(outcomes))

    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        world.machines["n1"].put_file("other", b"")
        for name in ("first", "second"):
            await world.on("n1", lambda node, name=name: node.export(exporting("report", name)))  # type: ignore[misc]
            await trio.sleep(1.0)
        assert world.node("n1").metrics.value("outputs_unsynced") == 1
        assert list(outcomes) == []

    in_cluster(test)
