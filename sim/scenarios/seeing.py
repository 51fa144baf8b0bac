"""What nodes see of a member."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import trio

from sim.whole.world import World


def state_on(world: World, viewer: str, name: str) -> str:
    """`alive`, `suspect`, `dead`, `left` or `unknown`."""
    node_id = world.machines[name].identity.node_id
    member = world.node(viewer).services.membership.member(node_id)
    return "unknown" if member is None else member.state


def owns_keys(world: World, viewer: str, name: str) -> bool:
    """Whether a machine's node stands on the ring of another."""
    ring = world.node(viewer).services.membership.ring
    return world.machines[name].identity.node_id in ring.members


@asynccontextmanager
async def never_dead(world: World, name: str, viewers: Iterable[str]) -> AsyncIterator[None]:
    """While the block runs, none of `viewers` holds `name` for dead, not for a moment."""

    async def look(viewer: str) -> None:
        seen = -1
        while True:
            seen = await world.node(viewer).services.membership.wait_change(seen)
            if state_on(world, viewer, name) == "dead":
                world.report(f"{viewer} holds {name} for dead, which is well")
                return

    async with trio.open_nursery() as nursery:
        for viewer in viewers:
            nursery.start_soon(look, viewer)
        yield
        nursery.cancel_scope.cancel()
