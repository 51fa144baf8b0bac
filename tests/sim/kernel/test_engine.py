"""The engine: virtual time, repeatable order, and processes that stop and die."""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import sys
import time
import uuid

import pytest
import trio

from sim.kernel import engine
from sim.kernel.clock import SimClock
from sim.kernel.engine import WorldStopped
from sim.kernel.entropy import Streams
from sim.kernel.guard import LeakedReality
from sim.kernel.process import PROCESS, Process


def test_time_jumps_and_events_come_in_order() -> None:
    async def main(clock: SimClock, _: Streams) -> list[str]:
        seen: list[str] = []
        clock.call_at(2.0, seen.append, "event at 2")
        clock.call_at(1.0, seen.append, "event at 1")
        clock.call_at(3.0, seen.append, "never").cancel()
        await trio.sleep(1.5)
        seen.append(f"task at {trio.current_time()}")
        await trio.sleep(1000)
        return seen

    started = time.monotonic()
    assert engine.run(main, seed=0) == ["event at 1", "task at 1.5", "event at 2"]
    assert time.monotonic() - started < 10


def test_an_event_wakes_a_task() -> None:
    async def main(clock: SimClock, _: Streams) -> float:
        rung = trio.Event()
        clock.call_later(5.0, rung.set)
        await rung.wait()
        return trio.current_time()

    assert engine.run(main, seed=0) == 5.0


def test_a_deadlock_is_reported_with_who_waits() -> None:
    async def wait_in_vain() -> None:
        await trio.Event().wait()

    async def main(clock: SimClock, _: Streams) -> None:
        await wait_in_vain()

    with pytest.raises(WorldStopped, match=r"deadlock.*wait_in_vain"):
        engine.run(main, seed=0)


def test_a_run_has_a_time_limit() -> None:
    async def main(clock: SimClock, _: Streams) -> None:
        await trio.sleep(11)

    with pytest.raises(WorldStopped, match="time limit"):
        engine.run(main, seed=0, limit_s=10)


def test_an_endless_source_of_events_does_not_starve_the_end() -> None:
    async def main(clock: SimClock, _: Streams) -> str:
        def again() -> None:
            clock.call_later(0.001, again)

        again()
        await trio.sleep(0.1)
        return "ended"

    assert engine.run(main, seed=0) == "ended"


async def _draws(clock: SimClock, streams: Streams) -> list[object]:
    order: list[object] = []

    async def finish(number: int) -> None:
        await trio.lowlevel.checkpoint()
        order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(finish, number)
    order += [os.urandom(4), secrets.token_hex(4), uuid.uuid4(), random.random(), time.time()]
    order += [await trio.to_thread.run_sync(os.urandom, 3), streams.named("x").random()]
    return order


def test_one_seed_is_one_run() -> None:
    first, again, other = (engine.run(_draws, seed=seed) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_the_outside_is_left_as_it_was() -> None:
    random.seed(5)
    expected = random.random()
    random.seed(5)
    engine.run(_draws, seed=7)
    assert random.random() == expected
    assert os.urandom(8) != os.urandom(8)
    assert abs(time.time() - 1_700_000_000) > 1000


def test_another_trio_fails_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    engine.check_trio()
    monkeypatch.delattr("trio._core._run._r")
    with pytest.raises(engine.UnknownTrio, match=r"Trio .* has no .*_r.*pyproject"):
        engine.run(_draws, seed=0)


def test_real_sockets_are_refused() -> None:
    async def main(clock: SimClock, _: Streams) -> None:
        trio.socket.socket()

    with pytest.raises(LeakedReality):
        engine.run(main, seed=0)


def test_a_stopped_process_goes_on_where_it_was() -> None:
    async def main(clock: SimClock, _: Streams) -> list[float]:
        ticks: list[float] = []

        async def tick() -> None:
            while True:
                await trio.sleep(1)
                ticks.append(trio.current_time())

        process = Process("n")
        async with trio.open_nursery() as nursery:
            token = PROCESS.set(process)
            nursery.start_soon(tick)
            PROCESS.reset(token)
            await trio.sleep(1.5)
            process.hold()
            await trio.sleep(3)
            process.release()
            await trio.sleep(1.7)
            nursery.cancel_scope.cancel()
        return ticks

    assert engine.run(main, seed=0) == [1.0, 4.5, 5.5]


def test_the_steps_of_a_slow_process_take_time_one_after_the_other() -> None:
    async def main(clock: SimClock, _: Streams) -> list[float]:
        ends: list[float] = []

        async def two_steps() -> None:
            await trio.lowlevel.checkpoint()
            ends.append(trio.current_time())

        process = Process("n")
        process.slow_down(clock, 0.5)
        async with trio.open_nursery() as nursery:
            token = PROCESS.set(process)
            for _number in range(2):
                nursery.start_soon(two_steps)
            PROCESS.reset(token)
            await trio.sleep(1.2)
            process.slow_down(clock, 0.0)
        assert process.late_steps == 3
        return ends

    assert engine.run(main, seed=0) == [1.0, 1.2]


def test_a_killed_process_says_no_goodbye() -> None:
    async def main(clock: SimClock, _: Streams) -> list[str]:
        said: list[str] = []

        async def work() -> None:
            try:
                await trio.sleep(2)
            finally:
                said.append("goodbye")

        process = Process("n")
        async with trio.open_nursery() as nursery:
            token = PROCESS.set(process)
            nursery.start_soon(work)
            PROCESS.reset(token)
            await trio.sleep(1)
            process.hold()
            await trio.sleep(10)
            heard = list(said)
            process.release()  # only now, when the world is torn down, it is let go
        return heard

    assert engine.run(main, seed=0) == []


def test_the_hash_seed_changes_nothing() -> None:
    program = (
        "import sys; from sim.kernel import engine;"
        "from tests.sim.kernel.test_engine import _draws;"
        "print(repr(engine.run(_draws, seed=3)))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("0", "1")
    }
    assert len(outputs) == 1
