from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import pytest
import trio
from trio.testing import MockClock

from gossipcache.errors import Conflict, NoSpace, TaskNotFound
from gossipcache.ids import TaskId
from gossipcache.manifest import SignedManifest
from gossipcache.swarm import Swarm
from gossipcache.transfer.download.downloads import Downloads, Joined
from sim.storage.disk import SimDisk
from tests.fakes.channels import ChannelBoard, Wire
from tests.transfer.samples import PIECE, TASK, content_of, manifest_for
from tests.transfer.swarm_nodes import FakeSwarm, SwarmNode

T = TypeVar("T")
CONTENT = content_of(20 * PIECE + 1)
SIGNED = manifest_for(CONTENT)


class Bench:
    """A child with its downloads, and one parent that gives a piece a second on each connection."""

    def __init__(self, nursery: trio.Nursery) -> None:
        board = ChannelBoard(nursery)
        parent = SwarmNode(board, "p")
        parent.shop.keep(CONTENT)
        parent.serve(Wire(piece_s=1.0))
        self.child = SwarmNode(board, "c")
        self.parent_id = parent.node_id
        self.swarm = FakeSwarm(parent.node_id)
        self.sessions = 0
        self.downloads = Downloads(self.child.downloader, self._session, self._check_reach)

    async def _check_reach(self, signed: SignedManifest) -> None:
        assert signed is SIGNED

    def _session(
        self, signed: SignedManifest, have: Collection[int]
    ) -> AbstractAsyncContextManager[Swarm]:
        self.sessions += 1
        return self.swarm.session(signed, have)


class Output:
    """One joiner's copy of the content."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.written: list[int] = []
        self.data = bytearray(len(CONTENT))

    def write(self, index: int, data: bytes | memoryview) -> None:
        self.written.append(index)
        self.data[index * PIECE : index * PIECE + len(data)] = data

    async def export(self) -> None:
        """Takes part in the download until every piece is here."""
        async with self._bench.downloads.join(SIGNED, on_piece=self.write) as joined:
            async for pieces in joined.stored():
                content = self._bench.child.shop.content()
                for index in pieces:
                    self.write(index, content[index * PIECE : (index + 1) * PIECE])
            await joined.wait()

    @property
    def is_whole(self) -> bool:
        return self.data == CONTENT and sorted(self.written) == list(range(21))


@pytest.fixture
async def bench(nursery: trio.Nursery) -> Bench:
    bench = Bench(nursery)
    await nursery.start(bench.downloads.run)
    return bench


async def test_late_joiners_share_one_download_and_get_every_piece_once(
    bench: Bench, autojump_clock: MockClock
) -> None:
    outputs = [Output(bench) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for output in outputs:
            nursery.start_soon(output.export)
            await trio.sleep(4.5)
    assert all(output.is_whole for output in outputs)
    assert bench.sessions == 1
    assert bench.child.metrics.value("pieces_received") == 21


async def test_one_who_leaves_does_not_disturb_the_others(
    bench: Bench, autojump_clock: MockClock
) -> None:
    output = Output(bench)
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(3.5):
            async with bench.downloads.join(SIGNED):
                nursery.start_soon(output.export)
                await trio.sleep_forever()
    assert output.is_whole
    assert bench.sessions == 1


async def test_the_last_one_to_leave_stops_it_and_progress_is_kept(
    bench: Bench, autojump_clock: MockClock
) -> None:
    async with bench.downloads.join(SIGNED):
        await trio.sleep(5.5)
    await trio.sleep(20)
    stored = bench.child.store.find(TASK)
    assert stored is not None
    assert 3 <= stored.have.count <= 2 * 5.5, "two connections, and nothing after the end"
    bench.swarm.assign(bench.parent_id)
    output = Output(bench)
    await output.export()
    assert output.is_whole
    assert bench.sessions == 2


async def test_who_joins_while_the_last_leaves_begins_anew(
    bench: Bench, autojump_clock: MockClock
) -> None:
    async with bench.downloads.join(SIGNED):
        await trio.sleep(2.5)
    bench.swarm.assign(bench.parent_id)
    output = Output(bench)
    await output.export()
    assert output.is_whole


async def test_a_joiner_whose_output_fails_fails_alone(
    bench: Bench, autojump_clock: MockClock
) -> None:
    def full(_index: int, _data: memoryview) -> None:
        raise NoSpace("the disk is full")

    output = Output(bench)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.export)
        async with bench.downloads.join(SIGNED, on_piece=full) as joined:
            with pytest.raises(NoSpace):
                await joined.wait()
    assert output.is_whole


async def test_pieces_can_be_waited_for_one_by_one(bench: Bench, autojump_clock: MockClock) -> None:
    async with bench.downloads.join(SIGNED) as joined:
        await joined.wait_piece(3)
        assert 3 in joined.have
        assert not joined.have.complete
        await joined.wait_piece(20)
        outcome = await joined.wait()
    assert sum(outcome.bytes_by_source.values()) == len(CONTENT)


async def test_all_hear_of_a_deletion(bench: Bench, autojump_clock: MockClock) -> None:
    async with bench.downloads.join(SIGNED) as one, bench.downloads.join(SIGNED) as other:
        await trio.sleep(2.5)
        bench.swarm.delete()
        for joined in (one, other):
            with pytest.raises(TaskNotFound):
                await joined.wait_piece(20)


async def test_another_generation_is_refused_meanwhile(
    bench: Bench, autojump_clock: MockClock
) -> None:
    async with bench.downloads.join(SIGNED):
        with pytest.raises(Conflict):
            async with bench.downloads.join(manifest_for(CONTENT, generation=2)):
                pass


async def test_a_late_joiner_can_ask_for_the_digest_of_the_whole(
    bench: Bench, autojump_clock: MockClock
) -> None:
    async with bench.downloads.join(SIGNED) as one:
        await trio.sleep(2.5)
        async with bench.downloads.join(SIGNED, check_digest=True) as other:
            await one.wait()
            await other.wait()
    stored = bench.child.store.find(TASK)
    assert stored is not None
    assert stored.entry.digest_checked


class SlowSettling:
    """Keeps the child's store from settling until it is told to go on."""

    def __init__(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self._go_on = trio.Event(), trio.Event()
        workers = bench.child.downloader.env.workers
        run = workers.run

        async def slow(work: Callable[[], T]) -> T:
            if getattr(work, "__name__", "") == "settle":
                self.begun.set()
                await self._go_on.wait()
            return await run(work)

        monkeypatch.setattr(workers, "run", slow)

    def go_on(self) -> None:
        self._go_on.set()


async def test_a_download_is_written_before_it_is_durable(
    bench: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    settling, ended = SlowSettling(bench, monkeypatch), list[TaskId]()
    monkeypatch.setattr(bench.downloads, "_on_end", ended.append)
    async with bench.downloads.join(SIGNED) as joined:
        outcome = await joined.written()
        assert sum(outcome.bytes_by_source.values()) == len(CONTENT)
    found = bench.child.store.require(TASK)
    assert found.complete
    assert not found.settled
    assert bench.child.shop.content() == CONTENT
    # Who comes now takes part in the same download, and may wait for its end.
    async with bench.downloads.join(SIGNED) as late:
        assert late.have.complete
        await late.written()
        settling.go_on()
        assert await late.wait() == outcome
    assert bench.child.store.require(TASK).settled
    assert bench.sessions == 1
    assert ended == [TASK]


async def test_who_wants_the_digest_of_the_whole_afterwards_waits_for_it(
    bench: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    settling = SlowSettling(bench, monkeypatch)
    async with bench.downloads.join(SIGNED) as joined:
        await joined.written()
        async with bench.downloads.join(SIGNED, check_digest=True) as late:
            settling.go_on()
            await late.written()
            assert bench.child.store.require(TASK).entry.digest_checked


async def test_settling_goes_on_when_the_node_stops(
    bench: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    settling = SlowSettling(bench, monkeypatch)
    downloads = Downloads(bench.child.downloader, bench._session, bench._check_reach)
    async with trio.open_nursery() as node:
        await node.start(downloads.run)
        async with downloads.join(SIGNED) as joined:
            await joined.written()
        await settling.begun.wait()
        node.cancel_scope.cancel()
        settling.go_on()
    assert bench.child.store.require(TASK).settled


async def test_a_failed_sync_ends_it_for_those_who_wait_for_the_end(
    bench: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    settling = SlowSettling(bench, monkeypatch)
    async with bench.downloads.join(SIGNED) as joined:
        await joined.written()
        disk = bench.child.shop.disk
        assert isinstance(disk, SimDisk)
        disk.fail("sync")
        settling.go_on()
        with pytest.raises(OSError):
            await joined.wait()
    assert not bench.child.store.require(TASK).complete
    assert bench.child.metrics.value("downloads_unsettled") == 1


async def test_a_deletion_in_the_midst_of_settling_stands(
    bench: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    settling = SlowSettling(bench, monkeypatch)
    async with bench.downloads.join(SIGNED) as joined:
        await joined.written()
        bench.child.store.remove(TASK)
        settling.go_on()
        with pytest.raises(TaskNotFound):
            await joined.wait()
    assert bench.child.store.find(TASK) is None


async def test_who_comes_after_a_deletion_in_the_midst_of_fetching_begins_anew(
    bench: Bench, autojump_clock: MockClock
) -> None:
    before, after = Output(bench), Output(bench)
    async with trio.open_nursery() as nursery:

        async def disturbed() -> None:
            with pytest.raises(TaskNotFound):
                await before.export()
            bench.swarm.assign(bench.parent_id)

        nursery.start_soon(disturbed)
        await trio.sleep(4.5)
        bench.child.store.remove(TASK)
        with trio.fail_after(60):
            await after.export()
    assert after.is_whole
    assert bench.sessions == 2


async def test_who_comes_after_a_deletion_in_the_midst_of_settling_begins_anew(
    bench: Bench, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    settling, output = SlowSettling(bench, monkeypatch), Output(bench)
    async with bench.downloads.join(SIGNED) as joined:
        await joined.written()
    await settling.begun.wait()
    bench.child.store.remove(TASK)
    bench.swarm.assign(bench.parent_id)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(output.export)
            await trio.sleep(1)
            settling.go_on()
    assert output.is_whole
    assert bench.sessions == 2


async def test_who_has_left_is_given_nothing_more() -> None:
    entered, go_on, calls = threading.Event(), threading.Event(), list[str]()

    def write(index: int, data: memoryview) -> None:
        entered.set()
        go_on.wait()
        calls.append("written")

    def leave() -> None:
        joined.leave()
        calls.append("left")

    joined = Joined(2, write, None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, joined.hand_over, 0, memoryview(b""))
        await trio.to_thread.run_sync(entered.wait)
        nursery.start_soon(trio.to_thread.run_sync, leave)
        await trio.testing.wait_all_tasks_blocked()
        go_on.set()
    assert calls == ["written", "left"]
    assert not joined.hand_over(1, memoryview(b""))
