"""What all parts of the records work with, and what they ask of the node around them."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from gossipcache.charter import Deletion
from gossipcache.config import RecordConfig
from gossipcache.dht.records.standing import Opener
from gossipcache.dht.ring import Ring
from gossipcache.identity import Signed
from gossipcache.ids import NodeId, TaskId
from gossipcache.metrics import Metrics

ReachCharters = Callable[[int], Awaitable[None]]
"""Fetches the charter of that number. Raises `GossipcacheError` if nobody has it."""


@dataclass(frozen=True, slots=True)
class Means:
    """What the parts of one node's records work with."""

    config: RecordConfig
    me: NodeId
    metrics: Metrics
    opener: Opener
    rng: random.Random


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the records ask, and tell, the rest of their node."""

    ring: Callable[[], Ring]
    """Of the ACTIVE schedulers."""
    is_alive: Callable[[NodeId], bool]
    reach_charter: ReachCharters
    may_keep: Callable[[NodeId], bool] = lambda _node: True
    """Whether a node is known as a scheduler, alive or not: the word of others is no record."""
    bystanders: Callable[[], list[NodeId]] = list
    """The alive members that keep no records: they may have been holders."""
    introduce: Callable[[Iterable[NodeId]], tuple[Signed, ...]] = lambda _nodes: ()
    """The member records, as each signed it, of those of the nodes that are known."""
    meet: Callable[[NodeId, Iterable[Signed]], None] = lambda _teller, _records: None
    """Takes member records that `teller` sent, who pays for checking them."""
    deletion: Callable[[], Deletion] = Deletion
    """What is known now of who may delete."""
    on_over: Callable[[TaskId], None] = lambda _task_id: None
    """Hears of each task of which a generation is over, durably: it was deleted, or a later one
    stands."""
    on_void: Callable[[NodeId, int], None] = lambda _node, _count: None
    """Hears of nodes that sent so many entries whose signatures do not hold."""
