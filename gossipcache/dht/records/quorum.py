"""Asking several nodes at once until enough of them said yes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

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
