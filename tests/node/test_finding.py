"""Small content in the first reply: one question, proof before anything is kept, and the ordinary
way for whatever does not come so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from gossipcache.config import TransferConfig
from gossipcache.errors import GossipcacheError, TaskNotFound
from gossipcache.link.interface import Peer
from gossipcache.messages.batches import MAX_CONTENT_BYTES, Content, Contents, GetContents
from gossipcache.requests import ExportRequest
from gossipcache.results import ExportResult, Outcome
from tests.node.cluster import World, exporting, forget, importing, in_cluster, node_id, read

Answer = Callable[[Peer, GetContents], Awaitable[Contents]]


def content(number: int, size: int = 4096) -> bytes:
    return (b"content %d " % number * size)[:size]


async def import_small(world: World, machine: str, count: int, size: int = 4096) -> None:
    requests = [
        importing(
            world.machines[machine].put_file(f"file {one}", content(one, size)), f"task {one}"
        )
        for one in range(count)
    ]
    failed: list[Outcome] = []

    def tell(_number: int, outcome: Outcome) -> None:
        if isinstance(outcome, GossipcacheError):
            failed.append(outcome)

    await world.on(machine, lambda node: node.import_files(requests, tell))
    assert not failed


async def export_all(world: World, machine: str, count: int) -> list[Outcome]:
    """What came of each, in order."""
    world.machines[machine].put_file("anything", b"")  # makes the folder
    requests: list[ExportRequest] = [exporting(f"task {one}", f"out {one}") for one in range(count)]
    found: dict[int, Outcome] = {}
    await world.on(machine, lambda node: node.export_files(requests, found.__setitem__))
    return [found[number] for number in range(count)]


async def export_one(world: World, machine: str, number: int) -> ExportResult:
    world.machines[machine].put_file("anything", b"")
    request = exporting(f"task {number}", f"out {number}")
    result = await world.on(machine, lambda node: node.export(request))
    assert read(world, machine, f"out {number}") == content(number, result.size)
    return result


def value(world: World, machine: str, name: str) -> int:
    return world.node(machine).metrics.value(name)


def answering(world: World, machine: str, answer: Callable[[Answer], Answer]) -> None:
    """Has a node answer `GetContents` of others in its own way."""
    links: Any = world.node(machine).services.links
    handlers = links._links._handlers._handlers
    handlers[GetContents] = answer(handlers[GetContents])


def altered(honest: Answer) -> Answer:
    async def lie(peer: Peer, message: GetContents) -> Contents:
        true = await honest(peer, message)
        return Contents(
            contents=tuple(
                Content(one.manifest_name, one.data[:-1] + b"!", ()) if one.data else one
                for one in true.contents
            )
        )

    return lie


def test_a_small_file_comes_in_a_reply_and_makes_a_holder() -> None:
    async def test(world: World) -> None:
        await import_small(world, "n0", 1)
        result = await export_one(world, "n1", 0)
        assert result.sources[0].node == node_id(world, "n0")
        assert result.bytes_by_source == {node_id(world, "n0"): 4096}
        assert result.resumed_bytes == 0
        assert value(world, "n0", "contents_sent") == 1
        assert value(world, "n0", "piece_channels") == 0
        found = await world.stat("n2", "task 0")
        assert {holder.name for holder in found.holders if holder.complete} == {"n0", "n1"}

    in_cluster(test)


@pytest.mark.parametrize("size", [0, 1, MAX_CONTENT_BYTES])
def test_it_comes_so_up_to_64_kib(size: int) -> None:
    async def test(world: World) -> None:
        await import_small(world, "n0", 2, size)
        for outcome in await export_all(world, "n1", 2):
            assert isinstance(outcome, ExportResult), outcome
            assert outcome.size == size
        assert read(world, "n1", "out 1") == content(1, size)
        assert value(world, "n0", "contents_sent") == 2
        assert value(world, "n0", "piece_channels") == 0

    in_cluster(test)


def test_what_is_larger_is_downloaded() -> None:
    async def test(world: World) -> None:
        await import_small(world, "n0", 1, MAX_CONTENT_BYTES + 1)
        await export_one(world, "n1", 0)
        assert value(world, "n0", "contents_sent") == 0
        assert value(world, "n0", "piece_channels") > 0

    in_cluster(test)


def test_many_come_in_few_replies_from_whoever_holds_them() -> None:
    """Most keepers of these tasks hold none of them: they name who does."""

    async def test(world: World) -> None:
        await import_small(world, "n0", 200)
        for outcome in await export_all(world, "n4", 200):
            assert isinstance(outcome, ExportResult), outcome
            assert [source.name for source in outcome.sources] == ["n0"]
        assert [read(world, "n4", f"out {one}") for one in (0, 99, 199)] == [
            content(one) for one in (0, 99, 199)
        ]
        assert value(world, "n0", "contents_sent") == 200
        assert value(world, "n0", "piece_channels") == 0
        announced = world.node("n4").services.announcer
        await trio.sleep(1.0)
        tasks = world.node("n4").services.store.tasks()
        assert len(tasks) == 200
        assert all(announced.is_taken(task.task_id) for task in tasks)

    in_cluster(test, nodes=5)


def test_wrong_content_is_not_kept() -> None:
    async def test(world: World) -> None:
        await import_small(world, "n0", 3)
        answering(world, "n0", altered)
        await export_one(world, "n1", 0)
        for outcome in await export_all(world, "n2", 3):
            assert isinstance(outcome, ExportResult), outcome
        assert [read(world, "n2", f"out {one}") for one in range(3)] == list(map(content, range(3)))
        assert value(world, "n1", "contents_bad") == 1
        assert value(world, "n2", "contents_bad") >= 2
        for machine in ("n1", "n2"):
            store = world.node(machine).services.store
            assert not [store.verify(task.task_id) for task in store.tasks() if not task.complete]
            assert all(store.verify(task.task_id) == () for task in store.tasks())

    in_cluster(test)


def test_content_of_another_generation_is_not_taken() -> None:
    async def test(world: World) -> None:
        await import_small(world, "n0", 1)

        def of_old(honest: Answer) -> Answer:
            async def answer(peer: Peer, message: GetContents) -> Contents:
                true = await honest(peer, message)
                return Contents(
                    contents=tuple(Content(bytes(32), one.data, ()) for one in true.contents)
                )

            return answer

        answering(world, "n0", of_old)
        await export_one(world, "n1", 0)
        assert value(world, "n1", "contents_bad") == 0
        assert value(world, "n0", "piece_channels") > 0

    in_cluster(test)


def test_a_deletion_while_the_content_comes_wins() -> None:
    async def test(world: World) -> None:
        await import_small(world, "n0", 4)

        def after_the_deletion(honest: Answer) -> Answer:
            async def answer(peer: Peer, message: GetContents) -> Contents:
                true = await honest(peer, message)
                for one in range(4):
                    await world.on("n2", lambda node, one=one: node.delete(forget(f"task {one}")))  # type: ignore[misc]
                return true

            return answer

        for one in range(4):
            world.witness.deleting((f"task {one}", ""))
        answering(world, "n0", after_the_deletion)
        for outcome in await export_all(world, "n1", 4):
            if isinstance(outcome, GossipcacheError):
                assert isinstance(outcome, TaskNotFound)
        await trio.sleep(20.0)
        assert not world.node("n1").services.store.tasks()
        for machine in ("n0", "n1", "n2"):
            with pytest.raises(TaskNotFound):
                await world.stat(machine, "task 0")

    in_cluster(test)


def test_a_holder_that_says_nothing_is_not_waited_for_long() -> None:
    async def test(world: World) -> None:
        await import_small(world, "n0", 2)

        def never(_honest: Answer) -> Answer:
            async def answer(_peer: Peer, _message: GetContents) -> Contents:
                await trio.sleep_forever()
                raise AssertionError

            return answer

        answering(world, "n0", never)
        started = trio.current_time()
        result = await export_one(world, "n1", 0)
        assert result.size == 4096
        assert trio.current_time() - started < 3.0

    in_cluster(test)


def test_the_limits_of_uploads_and_downloads_hold() -> None:
    async def test(world: World) -> None:
        await import_small(world, "n0", 64, 16 * 1024)
        started = trio.current_time()
        for outcome in await export_all(world, "n1", 64):
            assert isinstance(outcome, ExportResult), outcome
        # 1 MiB at 512 KiB/s, but for what may go at once.
        assert trio.current_time() - started > 1.0

    in_cluster(test, transfer=TransferConfig(upload_rate=512 * 1024))


def test_a_target_that_exists_is_left_as_it_is() -> None:
    async def test(world: World) -> None:
        await import_small(world, "n0", 2)
        world.machines["n1"].put_file("out 0", b"mine")
        first, second = await export_all(world, "n1", 2)
        assert isinstance(first, GossipcacheError)
        assert isinstance(second, ExportResult)
        assert read(world, "n1", "out 0") == b"mine"

    in_cluster(test)
