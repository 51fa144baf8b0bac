"""The other members' clocks, as far as a round trip can tell (Cristian, 1989)."""

from __future__ import annotations

from functools import partial

import trio

from gossipcache.errors import GossipcacheError
from gossipcache.ids import NodeId
from gossipcache.link.interface import Peer
from gossipcache.messages.clock import AskClock, ClockReading
from gossipcache.node.services import Services
from gossipcache.results import ClockView

ASK_TIMEOUT_S = 3.0


async def handle_ask_clock(services: Services, _peer: Peer, _message: AskClock) -> ClockReading:
    """Answers `AskClock`."""
    return ClockReading(wall_time_ms=int(services.env.wall_time() * 1000))


async def read_clocks(services: Services) -> tuple[ClockView, ...]:
    """The clock of every other member that is alive and answers, in the order of their ids."""
    read: dict[NodeId, ClockView] = {}
    others = [
        member.node_id
        for member in services.membership.members()
        if member.state == "alive" and member.node_id != services.me
    ]
    async with trio.open_nursery() as nursery:
        for node in others:
            nursery.start_soon(partial(_read_clock, services, node, read))
    return tuple(read[node] for node in others if node in read)


async def _read_clock(services: Services, node: NodeId, read: dict[NodeId, ClockView]) -> None:
    before_s = services.env.wall_time()
    try:
        reply = await services.links.request(node, AskClock(), ClockReading, ASK_TIMEOUT_S)
    except GossipcacheError:
        return
    after_s = services.env.wall_time()
    read[node] = ClockView(
        node=node.hex(),
        name=services.name_of(node),
        skew_s=reply.wall_time_ms / 1000 - (before_s + after_s) / 2,
        within_s=max(0.0, after_s - before_s) / 2,
    )
