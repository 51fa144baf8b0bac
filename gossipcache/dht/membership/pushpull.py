"""Core: the push/pulls that one node opens. Which are under way, what each asks next.

Their messages stand in `sync`. A shell carries them: the opening and its answer, then range after
range, until `PushPull.asks` has none.
"""

from __future__ import annotations

from collections.abc import Iterator

from gossipcache.dht.membership import sync
from gossipcache.dht.membership.effects import Effect
from gossipcache.dht.membership.swim import SwimCore
from gossipcache.errors import NotPermitted, ProtocolError
from gossipcache.ids import Address, NodeId
from gossipcache.messages.gossip import SyncDiff, SyncOpen, SyncOpened, SyncPush, SyncRange

MAX_SYNCS = 8
"""While so many are under way none is opened with a member; a join always is."""
SYNC_TIMEOUT_S = 5.0
"""How long each answer may take."""


class PushPull:
    """One push/pull with a member, or with whoever has the address of a seed."""

    def __init__(self, core: SwimCore, target: NodeId | Address, *, spread: bool) -> None:
        """`spread`: what it brings may be news to others."""
        self.target = target
        self._core = core
        self._spread = spread
        self._node: NodeId | None = None
        self._begin: bytes | None = None
        """Where the last range began; None before the first."""
        self._next: bytes | None = None
        """Where the next range begins; None: there is none."""
        self._wanted: tuple[bytes, ...] = ()

    def answered_by(self, node: NodeId) -> bool:
        """`node` answered the opening: whether there is more to do, as it is another node."""
        self._node = node
        if isinstance(self.target, Address):
            self._core.seed_answered(self.target, node)
        return node != self._core.me.node_id

    def opened(self, answer: SyncOpened, now: float) -> list[Effect]:
        """What the opening was answered with."""
        self._next = None if answer.equal else b""
        return self._core.absorb([answer.record], (), now, spread=self._spread, payer=self._node)

    def asks(self) -> SyncRange | None:
        """The next range, or None at the end. Raises `ProtocolError` if that goes back."""
        if self._next is None:
            return None
        if self._begin is not None and self._next <= self._begin:
            raise ProtocolError("a push/pull that does not advance")
        self._begin = self._next
        return sync.range_from(self._core.view, self._begin)

    def found(self, answer: SyncDiff, now: float) -> list[Effect]:
        """What a range was answered with; `pushes` come next."""
        self._next = answer.until or None
        self._wanted = answer.wanted
        return self._core.absorb(
            answer.records, answer.accusations, now, spread=self._spread, payer=self._node
        )

    def pushes(self) -> Iterator[SyncPush]:
        """What the other side lacks of the last range."""
        return sync.pushes(self._core.view, self._wanted)


class PushPulls:
    """All those of one node."""

    def __init__(self, core: SwimCore, cluster_id: bytes, seeds: tuple[Address, ...]) -> None:
        self._core = core
        self._cluster_id = cluster_id
        self._seeds = seeds
        self._under_way: set[NodeId | Address] = set()

    def begin(self, node: NodeId) -> PushPull | None:
        """One with a member, unless there is one already, or too many with others."""
        if len(self._under_way) >= MAX_SYNCS:
            return None
        return self._begin(node, spread=True)

    def begin_join(self, seed: Address) -> PushPull | None:
        """One with a seed, unless there is one already."""
        return self._begin(seed, spread=self._core.table.live_count > 1)

    def _begin(self, target: NodeId | Address, *, spread: bool) -> PushPull | None:
        if target in self._under_way:
            return None
        self._under_way.add(target)
        return PushPull(self._core, target, spread=spread)

    def end(self, push_pull: PushPull) -> None:
        """It is done, or has failed."""
        self._under_way.discard(push_pull.target)

    def opening(self, charter: int = 0) -> SyncOpen:
        """The first message of any; `charter` is the number of this node's."""
        return sync.open_sync(self._core.view, self._cluster_id, charter)

    def is_joined_by(self, node: NodeId) -> bool:
        """Whether a node has joined once `node` answered: another, or itself as its only seed."""
        return node != self._core.me.node_id or len(self._seeds) == 1

    def check(self, peer: NodeId, message: SyncOpen) -> None:
        """Raises what forbids to answer the opening of `peer`: `NotPermitted` if it is of another
        cluster, `ProtocolError` if it brings another's record."""
        if message.cluster_id != self._cluster_id:
            raise NotPermitted("the nodes belong to different clusters", "check the secrets")
        if message.record.signer != peer:
            raise ProtocolError("a member record that is not of the node that sent it")
