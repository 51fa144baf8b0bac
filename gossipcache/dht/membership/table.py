"""The members that a node knows, in the orders in which they are asked for."""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence

from gossipcache.dht.membership.member import DIGEST_BYTES, Member
from gossipcache.ids import Address, NodeId


class MemberTable:
    """This node and all others.

    A change costs O(log n), and a move of at most as many pointers as there are members;
    sampling and the digest cost O(1).
    """

    def __init__(self, me: Member, rng: random.Random) -> None:
        self._rng = rng
        self._me = me.node_id
        self.me = me
        """This node."""
        self._members: dict[NodeId, Member] = {}
        self.get: Callable[[NodeId], Member | None] = self._members.get
        """The member, this node included."""
        self._sorted: list[NodeId] = []
        self._live: list[NodeId] = []
        """The others that are live, in the order of ids."""
        self._down: list[NodeId] = []
        """The dead, in the order of ids."""
        self._rotation: list[NodeId] = []
        self._by_address: dict[Address, NodeId] = {}
        self._digest = 0
        self._short_digest: bytes | None = None
        self.put(me)

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return (self._members[node] for node in self._sorted)

    @property
    def live_count(self) -> int:
        """Alive and suspect members, this node included."""
        return len(self._live) + 1

    @property
    def dead_count(self) -> int:
        """The dead that are listed (not those that left)."""
        return len(self._down)

    def at(self, address: Address) -> Member | None:
        """The member that last gave this address."""
        node = self._by_address.get(address)
        return None if node is None else self._members.get(node)

    def put(self, member: Member) -> None:
        """Adds or replaces a member."""
        node = member.node_id
        old = self._members.get(node)
        if old is None:
            insort(self._sorted, node)
        elif old.is_live:
            self._digest -= old.mark
        if old is not None and old.address != member.address:
            self._release(old)
        self._members[node] = member
        self._short_digest = None
        if member.is_live:
            self._digest += member.mark
            self._by_address[member.address] = node
        if node == self._me:
            self.me = member
        else:
            was_live, was_dead = (False, False) if old is None else (old.is_live, old.is_dead)
            _place(self._live, node, was_live, member.is_live)
            _place(self._down, node, was_dead, member.is_dead)

    def fill(self, members: Sequence[Member]) -> None:
        """Adds live members, none of which is known yet (but this node, which is passed over):
        the same as `put` and `probe_soon` for each of them, in a tenth of the time."""
        others = {member.node_id: member for member in members if member.node_id != self._me}
        self._members.update(others)
        self._sorted = sorted(self._members)
        self._live = sorted([*self._live, *others])
        self._by_address.update((member.address, node) for node, member in others.items())
        self._rotation += others
        self._rng.shuffle(self._rotation)
        self._digest += sum(member.mark for member in others.values())
        self._short_digest = None

    def forget(self, node: NodeId) -> None:
        """Removes a member that is not live."""
        member = self._members.pop(node)
        self._release(member)
        del self._sorted[bisect_left(self._sorted, node)]
        _place(self._down, node, member.is_dead, False)

    def digest(self) -> bytes:
        """16 bytes; equal if, and in practice only if, two views hold the same members live
        at the same incarnations."""
        return (self._digest % (1 << 8 * DIGEST_BYTES)).to_bytes(DIGEST_BYTES, "big")

    def short_digest(self) -> bytes:
        """The last 8 bytes of the digest, for pings."""
        if self._short_digest is None:
            self._short_digest = self.digest()[-8:]
        return self._short_digest

    def sample(self, count: int, exclude: tuple[NodeId, ...] = ()) -> list[Member]:
        """Up to `count` distinct random live members, without this node."""
        live = self._live
        if len(live) <= count + len(exclude):
            chosen = [node for node in live if node not in exclude]
            self._rng.shuffle(chosen)
        else:
            chosen = []
            while len(chosen) < count:
                node = live[int(self._rng.random() * len(live))]
                if node not in chosen and node not in exclude:
                    chosen.append(node)
        return [self._members[node] for node in chosen[:count]]

    def random_dead(self) -> Member | None:
        """One of the dead (not of those that left)."""
        return self._members[self._rng.choice(self._down)] if self._down else None

    def successor(self) -> Member | None:
        """The next live member in the order of ids, the last one's is the first."""
        live = self._live
        if not live:
            return None
        place = bisect_left(live, self._me)
        return self._members[live[place if place < len(live) else 0]]

    def next_probe(self) -> Member | None:
        """The next in a random rotation in which each live member stands once (SWIM, 4.3)."""
        for _turn in range(2):
            while self._rotation:
                member = self._members.get(self._rotation.pop())
                if member is not None and member.is_live:
                    return member
            self._rotation = list(self._live)
            self._rng.shuffle(self._rotation)
        return None

    def probe_soon(self, node: NodeId) -> None:
        """Puts a newcomer at a random place of the present rotation."""
        rotation = self._rotation
        rotation.insert(int(self._rng.random() * (len(rotation) + 1)), node)

    def page(self, start: bytes, limit: int) -> list[Member]:
        """Up to `limit` members in the order of ids, from the id `start`."""
        place = bisect_left(self._sorted, start)
        return [self._members[node] for node in self._sorted[place : place + limit]]

    def _release(self, member: Member) -> None:
        if self._by_address.get(member.address) == member.node_id:
            del self._by_address[member.address]


def _place(nodes: list[NodeId], node: NodeId, was_there: bool, is_there: bool) -> None:
    if is_there and not was_there:
        insort(nodes, node)
    elif was_there and not is_there:
        del nodes[bisect_left(nodes, node)]
