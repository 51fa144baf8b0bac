"""A few at a time, each task once, and no failure stops the others."""

from __future__ import annotations

import trio

from gossipcache.errors import TimedOut
from gossipcache.ids import TaskId
from gossipcache.schedule.repairs import Repairs

TASKS = [TaskId(bytes([number]) * 32) for number in range(5)]


async def test_only_so_many_are_under_way_and_all_have_their_turn(nursery: trio.Nursery) -> None:
    failures: list[None] = []
    repairs = Repairs(2, lambda: failures.append(None))
    begun: list[TaskId] = []
    gate = trio.Event()

    def work(task_id: TaskId) -> None:
        async def run() -> None:
            begun.append(task_id)
            await gate.wait()
            if task_id == TASKS[1]:
                raise TimedOut("its keepers do not answer")

        repairs.add(nursery, task_id, run)

    for task_id in (*TASKS, *TASKS):
        work(task_id)
    await trio.testing.wait_all_tasks_blocked()
    assert begun == TASKS[:2]
    gate.set()
    await trio.testing.wait_all_tasks_blocked()
    assert begun == TASKS
    assert len(failures) == 1
    work(TASKS[0])
    await trio.testing.wait_all_tasks_blocked()
    assert begun == [*TASKS, TASKS[0]]
