"""Rates and slots of a running node, on virtual time."""

from __future__ import annotations

import pytest
import trio

from gossipcache.config import TransferConfig
from gossipcache.pacing import BURST_S
from gossipcache.requests import LimitsChange, TaskLimitsChange
from tests.node.cluster import PIECE_BYTES, World, in_cluster, query

KIB, MIB = 1024, 2**20
SIZE = 128 * PIECE_BYTES  # 8 MiB


def limited(**rates: int) -> TransferConfig:
    return TransferConfig(piece_size_bytes=PIECE_BYTES, **rates)


async def export_s(world: World, machine: str, cid: str) -> float:
    """How long an export takes, in virtual seconds."""
    before = trio.current_time()
    await world.export(machine, cid)
    return trio.current_time() - before


@pytest.mark.parametrize("limit", ["upload_rate", "download_rate"])
def test_a_rate_of_the_node_holds_within_a_few_percent(limit: str) -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        assert await export_s(world, "n1", "report") == pytest.approx(8 - BURST_S, rel=0.04)

    in_cluster(test, transfer=limited(**{limit: MIB}))


def test_two_children_share_what_their_parent_may_send() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        await world.import_content("n0", "other", SIZE)
        before = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.export, "n1", "report")
            nursery.start_soon(world.export, "n2", "other")
        assert trio.current_time() - before == pytest.approx(16 - BURST_S, rel=0.04)

    in_cluster(test, transfer=limited(upload_rate=MIB))


def test_a_slow_limit_is_no_stall_and_loses_no_parent() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", 2 * MIB)
        assert await export_s(world, "n1", "report") == pytest.approx(64, rel=0.04)
        metrics = world.node("n1").metrics
        assert metrics.value("parents_dropped") == 0

    in_cluster(test, transfer=TransferConfig(piece_size_bytes=MIB, upload_rate=32 * KIB))


def test_control_messages_do_not_wait_for_a_limit() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)

        async def stat_s() -> float:
            before = trio.current_time()
            await world.stat("n1", "report")
            return trio.current_time() - before

        idle_s = await stat_s()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.export, "n1", "report")
            await trio.sleep(1.0)
            busy_s = [await stat_s() for _ in range(20)]
        assert max(busy_s) <= idle_s + 2 * PIECE_BYTES / world.fabric.profile.host_bytes_per_s

    in_cluster(test, transfer=limited(upload_rate=MIB, download_rate=MIB))


def test_limits_change_while_a_transfer_runs() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        before = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.export, "n1", "report")
            await trio.sleep(4.0)
            world.node("n0").change_limits(LimitsChange(upload_rate=256 * KIB))
            await trio.sleep(4.0)
            view = world.node("n0").change_limits(LimitsChange(upload_rate=0))
            assert view.upload_rate is None
        assert trio.current_time() - before == pytest.approx(8, rel=0.1)

    in_cluster(test, transfer=limited(upload_rate=MIB))


def test_one_task_is_slowed_and_the_others_are_not() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "big", SIZE)
        await world.import_content("n0", "urgent", SIZE)
        node = world.node("n1")
        view = node.change_task_limits(query("big"), TaskLimitsChange(download_rate=MIB))
        assert [(task.upload_rate, task.download_rate) for task in view.tasks] == [(None, MIB)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.export, "n1", "big")
            assert await export_s(world, "n1", "urgent") < 2.0
            assert not node.list_tasks()[0].complete
            assert not node.change_task_limits(query("big"), TaskLimitsChange(reset=True)).tasks
            before = trio.current_time()
        assert trio.current_time() - before < 2.0

    in_cluster(test)


def test_fewer_uploads_at_once_take_turns() -> None:
    async def test(world: World) -> None:
        await world.import_content("n0", "report", SIZE)
        node = world.node("n0")
        node.change_limits(LimitsChange(max_uploads=1, upload_rate=MIB))
        async with trio.open_nursery() as nursery:
            for name in ("n1", "n2"):
                nursery.start_soon(world.export, name, "report")
            await trio.sleep(1.0)
            view = node.limits()
            assert (view.max_uploads, view.uploads_running) == (1, 1)
            assert view.uploads_waiting >= 1
            node.change_limits(LimitsChange(max_uploads=8, upload_rate=0))

    in_cluster(test)
