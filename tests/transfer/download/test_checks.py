"""The line of pieces to check: each is taken once, whenever it comes, and none is left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import cast

import pytest
import trio
import trio.testing

from gossipcache.env import Workers
from gossipcache.ids import NodeId
from gossipcache.machine import ThreadWorkers
from gossipcache.transfer.download.checks import CHECKS_AT_ONCE, Checked, Checks
from gossipcache.transfer.download.events import CheckPiece
from gossipcache.transfer.download.store_end import StoreEnd
from tests.fakes.workers import InlineWorkers

PARENT = NodeId(b"p" * 32)


class End:
    """A `StoreEnd` that notes what it is given."""

    def __init__(self, take: Callable[[int], bool] = lambda _index: True) -> None:
        self.taken: list[tuple[int, bytes]] = []
        self._take = take

    def take(self, index: int, data: memoryview, _on_piece: object, *, keep_hot: bool) -> bool:
        self.taken.append((index, bytes(data)))
        return self._take(index)


def checks_of(workers: Workers, end: End, done: Callable[[Checked], None]) -> Checks:
    return Checks(workers, cast(StoreEnd, end), None, done)


def add(checks: Checks, index: int) -> None:
    check = CheckPiece(PARENT, index, request_id=index, elapsed_s=0.0)
    checks.add(check, memoryview(b"%04d rest" % index), 4, keep_hot=False)


@pytest.mark.parametrize("workers", [InlineWorkers, ThreadWorkers])
@pytest.mark.parametrize("at_once", [1, CHECKS_AT_ONCE, 5])
async def test_each_piece_is_checked_once_whenever_it_comes(
    workers: Callable[[], Workers], at_once: int
) -> None:
    count, told, end = 60, dict[int, bool](), End(lambda index: index % 7 != 0)
    all_told = trio.Event()

    def done(checked: Checked) -> None:
        assert checked.check.index not in told
        told[checked.check.index] = checked.valid
        if len(told) == count:
            all_told.set()

    checks = checks_of(workers(), end, done)
    async with trio.open_nursery() as nursery:
        for _ in range(CHECKS_AT_ONCE):
            nursery.start_soon(checks.run)
        for first in range(0, count, at_once):
            for index in range(first, first + at_once):
                add(checks, index)
            if first % 3:
                await trio.testing.wait_all_tasks_blocked()
            else:
                await trio.lowlevel.checkpoint()
        await all_told.wait()
        nursery.cancel_scope.cancel()
    assert told == {index: index % 7 != 0 for index in range(count)}
    assert sorted(end.taken) == [(index, b"%04d" % index) for index in range(count)]


async def test_a_cancellation_waits_for_the_piece_under_way_and_drops_what_is_cleared() -> None:
    begun, may_end, told = trio.Event(), threading.Event(), list[int]()
    token = trio.lowlevel.current_trio_token()

    def take(_index: int) -> bool:
        token.run_sync_soon(begun.set)
        return may_end.wait(60)

    end = End(take)
    checks = checks_of(ThreadWorkers(), end, lambda checked: told.append(checked.check.index))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(checks.run)
        add(checks, 0)
        add(checks, 1)
        await begun.wait()
        checks.clear()
        nursery.cancel_scope.cancel()
        may_end.set()
    assert told == [0]
    assert [index for index, _ in end.taken] == [0]


async def test_what_cannot_be_written_ends_its_worker_and_the_others_go_on() -> None:
    failed, told = trio.Event(), list[int]()
    all_told = trio.Event()

    def take(index: int) -> bool:
        if index == 1:
            raise OSError("no such disk")
        return True

    def done(checked: Checked) -> None:
        told.append(checked.check.index)
        if len(told) == 3:
            all_told.set()

    checks = checks_of(ThreadWorkers(), End(take), done)

    async def run() -> None:
        try:
            await checks.run()
        except OSError:
            failed.set()

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(run)
        for index in range(4):
            add(checks, index)
        await failed.wait()
        await all_told.wait()
        nursery.cancel_scope.cancel()
    assert sorted(told) == [0, 2, 3]
