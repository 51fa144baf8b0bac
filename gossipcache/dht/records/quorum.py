"""Asking several nodes: at once until enough said yes, or in turn without waiting for the slow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence

import trio

from gossipcache.errors import GossipcacheError
from gossipcache.ids import NodeId


async def gather(
    nodes: Iterable[NodeId],
    ask: Callable[[NodeId], Awaitable[bool]],
    *,
    needed: int,
    straggler_wait_s: float,
) -> tuple[NodeId, ...]:
    """The nodes that said yes.

    Returns when all have answered or failed, or `straggler_wait_s` after `needed` said yes; the
    rest are then no longer waited for. An error counts as a no.
    """
    waiting = dict.fromkeys(nodes)
    agreed: list[NodeId] = []
    changed = trio.Event()

    async def one(node: NodeId) -> None:
        nonlocal changed
        try:
            yes = await ask(node)
        except (GossipcacheError, OSError):
            yes = False
        del waiting[node]
        if yes:
            agreed.append(node)
        changed.set()
        changed = trio.Event()

    async with trio.open_nursery() as nursery:
        for node in tuple(waiting):
            nursery.start_soon(one, node)
        while waiting and len(agreed) < needed:
            await changed.wait()
        with trio.move_on_after(straggler_wait_s):
            while waiting:
                await changed.wait()
        nursery.cancel_scope.cancel()
    return tuple(agreed)


async def ask_in_turn(
    nodes: Sequence[NodeId],
    ask: Callable[[NodeId], Awaitable[None]],
    *,
    at_once: int,
    budget_s: float,
    is_done: Callable[[], bool],
) -> None:
    """Asks the first `at_once` nodes, and the next one when one has answered or after `budget_s`.

    Returns when `is_done()`, the rest is then no longer waited for, or when all have answered.
    `nodes` may grow meanwhile; `ask` must not raise.
    """
    begun = running = 0
    answered = trio.Event()

    async def one(node: NodeId) -> None:
        nonlocal running, answered
        await ask(node)
        running -= 1
        answered.set()
        answered = trio.Event()

    async with trio.open_nursery() as nursery:
        is_late = False
        while begun < len(nodes) or running:
            while begun < len(nodes) and (running < at_once or is_late):
                nursery.start_soon(one, nodes[begun])
                begun += 1
                running += 1
                is_late = False
            with trio.move_on_after(budget_s) as budget:
                await answered.wait()
            if is_done():
                nursery.cancel_scope.cancel()
                return
            is_late = budget.cancelled_caught
