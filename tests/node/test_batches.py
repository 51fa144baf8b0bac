"""Many small imports and exports at once, on real nodes in virtual time."""

from __future__ import annotations

from pathlib import PurePath

import trio

from gossipcache.errors import Conflict, GossipcacheError, IntegrityError, UsageError
from gossipcache.requests import ExportRequest, ImportRequest
from gossipcache.results import ExportResult, ImportResult, Outcome
from tests.node.cluster import World, exporting, forget, importing, in_cluster, read

FILES = 300


async def import_all(world: World, machine: str, requests: list[ImportRequest]) -> list[Outcome]:
    """What came of each, in order."""
    found: dict[int, Outcome] = {}
    await world.on(machine, lambda node: node.import_files(requests, found.__setitem__))
    return [found[number] for number in range(len(requests))]


async def export_all(world: World, machine: str, requests: list[ExportRequest]) -> list[Outcome]:
    """What came of each, in order."""
    found: dict[int, Outcome] = {}
    await world.on(machine, lambda node: node.export_files(requests, found.__setitem__))
    return [found[number] for number in range(len(requests))]


def put(world: World, machine: str, number: int) -> PurePath:
    return world.machines[machine].put_file(f"file {number}", b"content %d" % number)


def test_each_file_becomes_a_task_of_its_own() -> None:
    async def test(world: World) -> None:
        requests = [importing(put(world, "n0", one), f"task {one}") for one in range(FILES)]
        for one, outcome in enumerate(await import_all(world, "n0", requests)):
            assert isinstance(outcome, ImportResult), outcome
            assert (outcome.cid, outcome.record_copies) == (f"task {one}", 3)
            assert not outcome.already_present
        found = await world.stat("n1", f"task {FILES - 1}")
        assert [holder.name for holder in found.holders] == ["n0"]

        exports = [exporting(f"task {one}", f"out {one}") for one in range(FILES)]
        for outcome in await export_all(world, "n0", exports):
            assert isinstance(outcome, ExportResult), outcome
        assert read(world, "n0", "out 7") == b"content 7"
        put(world, "n1", 0)  # makes the folder
        for outcome in await export_all(world, "n1", exports[:3]):
            assert isinstance(outcome, ExportResult), outcome
        assert read(world, "n1", "out 2") == b"content 2"

    in_cluster(test)


def test_one_that_fails_fails_alone() -> None:
    async def test(world: World) -> None:
        await world.import_content("n1", "taken", 100)
        paths = [put(world, "n0", one) for one in range(4)]
        outcomes = await import_all(
            world,
            "n0",
            [
                importing(paths[0], "first"),
                importing(PurePath("/nowhere"), "second"),
                importing(paths[1], "taken"),
                importing(paths[2], f"sha256:{'0' * 64}"),
                importing(paths[0], "first"),
                importing(paths[3], "first"),
                importing(paths[3], "last", pin=True),
            ],
        )
        kinds = [type(outcome) for outcome in outcomes]
        assert kinds[:4] == [ImportResult, UsageError, Conflict, IntegrityError]
        assert isinstance(outcomes[4], ImportResult)
        assert outcomes[4].already_present
        assert kinds[5:] == [Conflict, ImportResult]
        tasks = {task.signed.manifest.cid: task for task in world.node("n0").services.store.tasks()}
        assert sorted(tasks) == ["first", "last"]
        assert tasks["last"].pinned

        exported = await export_all(
            world,
            "n0",
            [exporting("first", "a"), exporting("none", "b"), exporting("last", "a")],
        )
        assert isinstance(exported[0], ExportResult)
        assert all(isinstance(one, GossipcacheError) for one in exported[1:])
        assert read(world, "n0", "a") == b"content 0"

    in_cluster(test)


def test_what_was_deleted_is_imported_anew() -> None:
    async def test(world: World) -> None:
        path = put(world, "n0", 0)
        await import_all(world, "n0", [importing(path, "report")])
        await world.on("n0", lambda node: node.delete(forget("report")))
        (outcome,) = await import_all(world, "n0", [importing(path, "report")])
        assert isinstance(outcome, ImportResult)
        assert (await world.stat("n1", "report")).size == len(b"content 0")

    in_cluster(test)


def test_a_piece_that_rotted_is_fetched_again() -> None:
    async def test(world: World) -> None:
        for machine in ("n0", "n1"):
            await import_all(world, machine, [importing(put(world, machine, 0), "report")])
        store = world.node("n0").services.store
        (task,) = store.tasks()
        file = store.open_data(task.task_id)
        data_path = store.data_path(task.task_id)
        file.close()
        disk = world.node("n0").services.env.disk
        writing = disk.open(data_path, "write")
        writing.write_at(0, b"C")
        writing.close()
        (outcome,) = await export_all(world, "n0", [exporting("report", "out")])
        assert isinstance(outcome, ExportResult), outcome
        assert read(world, "n0", "out") == b"content 0"

    in_cluster(test)


def test_an_import_that_is_cancelled_is_settled_later() -> None:
    async def test(world: World) -> None:
        requests = [importing(put(world, "n0", one), f"task {one}") for one in range(FILES)]
        found: dict[int, Outcome] = {}
        with trio.move_on_after(0.01):
            await world.on("n0", lambda node: node.import_files(requests, found.__setitem__))
        services = world.node("n0").services
        await trio.sleep(30)
        assert not services.unsettled
        assert services.store.tasks(unpublished=True) == services.store.tasks()
        for task in services.store.tasks():
            assert (await world.stat("n1", task.signed.manifest.cid)).holders

    in_cluster(test)
