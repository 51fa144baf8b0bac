"""The real machine's workers."""

from __future__ import annotations

import threading

import pytest
import trio

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
