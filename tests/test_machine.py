"""The real machine's workers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import pytest
import trio
import trio.testing

from gossipcache.machine import ThreadWorkers, real_env


async def test_work_runs_in_another_thread_and_its_failure_comes_back() -> None:
    workers = ThreadWorkers()
    assert await workers.run(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await workers.run(lambda: 1 // 0)


async def test_at_most_so_many_run_at_once() -> None:
    workers = ThreadWorkers(limit=2)
    both = threading.Barrier(2)
    running, most = 0, 0

    def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        both.wait(10)
        running -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(workers.run, work)
    assert most <= 2


async def test_a_cancellation_waits_for_work_that_has_begun() -> None:
    begun, released = threading.Event(), threading.Event()
    done: list[str] = []

    def work() -> None:
        begun.set()
        released.wait(10)
        done.append("done")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ThreadWorkers().run, work)
        await trio.to_thread.run_sync(begun.wait)
        nursery.cancel_scope.cancel()
        released.set()
    assert done == ["done"]


async def test_each_step_of_a_queue_is_told_as_it_ends() -> None:
    released = threading.Event()
    loop, told = threading.get_ident(), []
    queue: deque[Callable[[], int]] = deque((threading.get_ident, threading.get_ident))

    def done(thread: int) -> None:
        assert threading.get_ident() == loop
        told.append(thread)
        if len(told) == 1:
            queue.append(lambda: -1)
            released.set()

    queue.append(lambda: int(released.wait(10)))
    await ThreadWorkers().run_each(queue, done)
    assert told[0] == told[1] != loop
    assert told[2:] == [True, -1]


async def test_a_queue_makes_room_for_other_work() -> None:
    workers, released = ThreadWorkers(limit=1), threading.Event()
    told: list[str] = []

    def step() -> str:
        released.wait(10)
        return "step"

    async def other() -> None:
        told.append(await workers.run(lambda: "other"))

    queue: deque[Callable[[], str]] = deque((step, step))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workers.run_each, queue, told.append)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(other)
        await trio.testing.wait_all_tasks_blocked()
        released.set()
    assert (told, len(queue)) == (["step", "other"], 1)


async def test_a_step_that_fails_leaves_those_behind_it_in_the_queue() -> None:
    told: list[float] = []
    queue: deque[Callable[[], float]] = deque((lambda: 1, lambda: 1 / 0, lambda: 2))
    with pytest.raises(ZeroDivisionError):
        await ThreadWorkers().run_each(queue, told.append)
    assert (told, len(queue)) == ([1], 1)


def test_a_lane_does_its_steps_in_order_beside_who_gives_them() -> None:
    released, done = threading.Event(), []

    def first() -> None:
        released.wait(10)
        done.append("first")

    with ThreadWorkers().lane() as lane:
        lane.do(first)
        assert not done
        released.set()
        lane.do(lambda: done.append("second"))
    assert done == ["first", "second"]


def test_the_failure_of_a_step_comes_back_with_the_next() -> None:
    with ThreadWorkers().lane() as lane:
        lane.do(lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            lane.finish()
        lane.finish()


def test_a_real_env_has_everything() -> None:
    env = real_env()
    assert len(env.entropy(16)) == 16
    assert env.wall_time() > 1_700_000_000
    assert 0 <= env.rng.random() < 1
