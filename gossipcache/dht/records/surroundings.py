"""What all parts of the records work with, and what they ask of the node around them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gossipcache.charter import Deletion
from gossipcache.config import RecordConfig
from gossipcache.dht.records.standing import Opener
from gossipcache.dht.ring import Ring
from gossipcache.env import Env
from gossipcache.ids import NodeId, TaskId
from gossipcache.link.interface import Links
from gossipcache.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Means:
    """What the parts of one node's records work with."""

    env: Env
    config: RecordConfig
    me: NodeId
    links: Links
    metrics: Metrics
    opener: Opener


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the records ask, and tell, the rest of their node."""

    ring: Callable[[], Ring]
    """Of the ACTIVE schedulers."""
    is_alive: Callable[[NodeId], bool]
    reach_charter: Callable[[int], Awaitable[None]]
    """Fetches the charter of that number. Raises `GossipcacheError` if nobody has it."""
    bystanders: Callable[[], list[NodeId]] = list
    """The alive members that keep no records: they may have been holders."""
    deletion: Callable[[], Deletion] = Deletion
    """What is known now of who may delete."""
    on_over: Callable[[TaskId], None] = lambda _task_id: None
    """Hears of each task of which a generation is over, durably: it was deleted, or a later one
    stands."""
    on_void: Callable[[NodeId, int], None] = lambda _node, _count: None
    """Hears of nodes that sent so many entries whose signatures do not hold."""
