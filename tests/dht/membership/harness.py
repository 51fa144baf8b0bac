"""A cluster of membership cores on virtual time: a heap of events, no trio, no I/O."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache

from gossipcache.config import ALL_ROLES, SwimConfig
from gossipcache.dht.membership import sync
from gossipcache.dht.membership.effects import (
    Effect,
    PingLink,
    RequestJoin,
    RequestSync,
    SendDatagram,
)
from gossipcache.dht.membership.member import Profile, Verifier, boot_incarnation
from gossipcache.dht.membership.swim import SwimCore
from gossipcache.identity import Identity
from gossipcache.ids import Address, NodeId
from gossipcache.messages.gossip import Datagram
from gossipcache.metrics import Metrics
from gossipcache.wire import decode, encode

CLUSTER_ID = b"a-test!!"
BOOT_TIME_S = 1_800_000_000.0
LATENCY_S = 0.001


@cache
def identity(number: int) -> Identity:
    return Identity(hashlib.blake2b(b"key %d" % number, digest_size=32).digest())


def node_id(number: int) -> NodeId:
    return identity(number).node_id


def profile(number: int, port: int | None = None) -> Profile:
    address = Address(f"10.0.{number // 256}.{number % 256}", port or 7000)
    return Profile(CLUSTER_ID, f"node-{number}", address, ALL_ROLES)


class VirtualCluster:
    """Nodes are known by small numbers; every datagram is encoded, measured and decoded."""

    def __init__(self, *, seed: int = 1, config: SwimConfig | None = None, loss: float = 0) -> None:
        self.config = config or SwimConfig()
        self.rng = random.Random(seed)
        self.loss = loss
        self.now = 0.0
        self.cut: Callable[[int, int], bool] = lambda _one, _other: False
        self.firewalled: set[int] = set()
        """Nodes whose host refuses datagrams and lets links through."""
        self.cores: dict[int, SwimCore] = {}
        self.metrics = Metrics()
        self.largest_datagram = 0
        self.datagrams = 0
        self.log: list[tuple[float, int, Effect]] = []
        self._verifier = Verifier(CLUSTER_ID, 100_000)
        self._paused: set[int] = set()
        self._numbers: dict[Address, int] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._wakes: dict[int, float] = {}

    # What a test does.

    def start(
        self, number: int, *, join: Iterable[int] = (), port: int | None = None, wall: float = 0
    ) -> SwimCore:
        """Starts (or restarts) a node; `wall` is added to its wall clock."""
        own = profile(number, port)
        core = self.cores[number] = SwimCore(
            self.config,
            identity(number),
            own,
            verifier=self._verifier,
            metrics=self.metrics,
            rng=random.Random(self.rng.random()),
            now=self.now,
            incarnation=boot_incarnation(BOOT_TIME_S + self.now + wall),
            seeds=tuple(profile(seed).address for seed in join),
        )
        self._numbers = {a: n for a, n in self._numbers.items() if n != number}
        self._numbers[own.address] = number
        self._act(number, core.enter("active", self.now))
        return core

    def grow(self, count: int) -> None:
        """Nodes 0 to `count` - 1, all joined through node 0 and seeing each other."""
        for number in range(count):
            self.start(number, join=[0] if number else [])
        self.run(10)
        assert self.agree(range(count))

    def crash(self, number: int) -> None:
        del self.cores[number]

    def pause(self, number: int) -> None:
        self._paused.add(number)

    def resume(self, number: int) -> None:
        self._paused.remove(number)
        self._wake(number)

    def act(self, number: int, effects: list[Effect]) -> None:
        """Carries out what an input that the test gave by itself returned."""
        self._act(number, effects)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = end

    def run_until(self, condition: Callable[[], bool], limit_s: float) -> float:
        """Runs until `condition` holds; returns how long that took."""
        start = self.now
        while not condition():
            assert self.now < start + limit_s, "the condition did not come true"
            self.run(0.05)
        return self.now - start

    # What a test looks at.

    def state(self, observer: int, subject: int) -> str | None:
        member = self.cores[observer].table.get(node_id(subject))
        return None if member is None else member.state

    def live(self, observer: int) -> set[NodeId]:
        return {member.node_id for member in self.cores[observer].table if member.is_live}

    def agree(self, numbers: Iterable[int]) -> bool:
        """Whether each of `numbers` sees exactly them alive."""
        group = {node_id(number) for number in numbers}
        return all(self.live(number) == group for number in self.cores if node_id(number) in group)

    # The world.

    def _at(self, when: float, event: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (when, self._order, event))

    def _act(self, number: int, effects: list[Effect]) -> None:
        for effect in effects:
            self.log.append((self.now, number, effect))
            match effect:
                case SendDatagram(address, message):
                    self._send(number, address, message)
                case PingLink(node, sequence):
                    self._ping_link(number, node, sequence)
                case RequestSync(node):
                    self._sync(number, self._reach(number, self._address_of(number, node), node))
                case RequestJoin(address):
                    peer = self._reach(number, address)
                    if peer is not None:
                        self.cores[number].seed_answered(address, node_id(peer))
                        self._sync(number, peer)
        self._schedule(number)

    def _send(self, number: int, address: Address, message: Datagram) -> None:
        data = encode(message)
        self.largest_datagram = max(self.largest_datagram, len(data))
        self.datagrams += 1
        peer = self._numbers.get(address)
        if peer is None or self.cut(number, peer) or self.rng.random() < self.loss:
            return
        if number in self.firewalled:
            return
        sender = self.cores[number]
        source = sender.me.address

        def deliver() -> None:
            core = self.cores.get(peer)
            if core is None or core.me.address != address or peer in self.firewalled:
                self._at(self.now + LATENCY_S, lambda: self._bounced(number, sender, address))
                return
            if peer in self._paused:
                self._at(self.now + 0.1, deliver)
                return
            decoded: Datagram = decode(data, Datagram)  # type: ignore[arg-type]
            self._act(peer, core.receive(decoded, source, self.now))

        self._at(self.now + LATENCY_S * (1 + self.rng.random()), deliver)

    def _address_of(self, number: int, node: NodeId) -> Address:
        member = self.cores[number].table.get(node)
        assert member is not None
        return member.address

    def _reach(self, number: int, address: Address, node: NodeId | None = None) -> int | None:
        """Who answers a connection to `address`, if it is the node that is meant."""
        peer = self._numbers.get(address)
        if peer is None or peer not in self.cores or peer in self._paused or self.cut(number, peer):
            return None
        return peer if node in (None, node_id(peer)) else None

    def _ping_link(self, number: int, node: NodeId, sequence: int) -> None:
        address = self._address_of(number, node)
        peer, core = self._numbers.get(address), self.cores[number]
        if self._reach(number, address, node) is not None:
            self._at(
                self.now + 4 * LATENCY_S,
                lambda: self._answered(number, core, sequence),
            )
        elif peer is not None and peer not in self.cores and not self.cut(number, peer):
            self._at(self.now + LATENCY_S, lambda: self._refused(number, core, node))

    def _answered(self, number: int, core: SwimCore, sequence: int) -> None:
        if number in self._paused:
            self._at(self.now + 0.1, lambda: self._answered(number, core, sequence))
        elif self.cores.get(number) is core:
            self._act(number, core.link_answered(sequence, self.now))

    def _bounced(self, number: int, core: SwimCore, address: Address) -> None:
        if self.cores.get(number) is core:
            self._act(number, core.address_refused(address, self.now))

    def _refused(self, number: int, core: SwimCore, node: NodeId) -> None:
        if self.cores.get(number) is core:
            self._act(number, core.report_refused(node, self.now))

    def _sync(self, asker: int, answerer: int | None) -> None:
        if answerer is None or answerer == asker:
            return
        one, other = self.cores[asker], self.cores[answerer]
        spread = one.table.live_count > 1
        opened = sync.open_sync(one.view, CLUSTER_ID)
        self._act(answerer, other.absorb([opened.record], [], self.now))
        if other.view.refutation.is_waiting:
            return
        answer = sync.answer_open(other.view, opened)
        self._act(asker, one.absorb([answer.record], [], self.now))
        start = None if answer.equal else b""
        while start is not None:
            found = sync.diff(other.view, sync.range_from(one.view, start))
            assert len(encode(found)) <= 64 * 1024
            self._act(asker, one.absorb(found.records, found.accusations, self.now, spread=spread))
            for push in sync.pushes(one.view, found.wanted):
                assert len(encode(push)) <= 64 * 1024
                self._act(answerer, other.absorb(push.records, push.accusations, self.now))
            start = found.until or None

    def _schedule(self, number: int) -> None:
        core = self.cores.get(number)
        due = None if core is None else core.next_timeout()
        if due is None or self._wakes.get(number, float("inf")) <= due:
            return
        self._wakes[number] = due
        self._at(due, lambda: self._wake(number, due))

    def _wake(self, number: int, due: float | None = None) -> None:
        if due is not None and self._wakes.get(number) == due:
            del self._wakes[number]
        core = self.cores.get(number)
        if core is not None and number not in self._paused:
            self._act(number, core.handle_timeout(self.now))


def config(**changes: float) -> SwimConfig:
    return replace(SwimConfig(), **changes)  # type: ignore[arg-type]
