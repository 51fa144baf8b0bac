"""What a keeper does by itself: after a ring change, for missing copies, and now and then.

After a ring change it exchanges with those whom `Settling` names, so that new keepers are given
what they lack and learn when they have it all. Then with one at random of those who keep the
same tasks, every `sync_interval_s`, and less and less often while that finds nothing (Trickle,
RFC 6206): who lacks an entry is asked by those who have it.
"""

from __future__ import annotations

from collections.abc import Iterator

from gossipcache.dht.records.exchange import Exchange
from gossipcache.dht.records.paging import batches
from gossipcache.dht.records.recall import Recall
from gossipcache.dht.records.replication import ReplicationCore
from gossipcache.dht.records.standing import Standing
from gossipcache.dht.records.steps import (
    Signal,
    Steps,
    clock,
    persist,
    sleep,
    sleep_until,
    together,
    unless,
    wait,
    within,
)
from gossipcache.dht.records.surroundings import Means, Surroundings
from gossipcache.ids import NodeId, TaskId

MAX_EXCHANGES = 4
"""Exchanges at a time after a ring change."""
GATHER_S = 0.25
"""For how long the ring is to rest before a keeper compares, so that one exchange does for all
who come at once; `MAX_GATHER_S` at most."""
MAX_GATHER_S = 1.0
REST_S = 3.0
"""After how long without a change a keeper does ahead what the next one needs; up to twice as
long, so that those who share a processor do not do it all at once."""
BYSTANDERS_S = 0.5
MAX_CALM = 4
"""How often the interval between exchanges that find nothing is doubled."""
_RETRY_S = 0.2
_MAX_RETRY_S = 1.0
_HINT_INTERVAL_S = 1.0


class Upkeep:
    """The background work of one keeper."""

    def __init__(
        self,
        means: Means,
        around: Surroundings,
        core: ReplicationCore,
        exchange: Exchange,
        recall: Recall,
    ) -> None:
        self._rng = means.rng
        self._config = means.config
        self._around = around
        self._core = core
        self._exchange = exchange
        self._recall = recall
        self._hints: dict[NodeId, dict[TaskId, None]] = {}
        self._hinted = Signal()
        self._ring_changed = Signal()
        self._stirred = Signal()
        self._exchanging: dict[NodeId, Signal] = {}
        """With whom, after a ring change; set to break it off."""
        self.synced = Signal()
        """Set when the keeper first has all that it should."""

    def loops(self) -> list[Steps[None]]:
        """What is to run for as long as the keeper does."""
        return [self._settle_loop(), self._hint_loop(), self._exchange_loop(), self._tidy_loop()]

    def on_ring_change(self) -> None:
        """Says that the core has a new ring. Who is gone from it is not waited for any more."""
        self._ring_changed.set()
        self._stirred.set()
        for node, exchange in self._exchanging.items():
            if node not in self._core.ring.members:
                exchange.set()

    # After a ring change

    def _settle_loop(self) -> Steps[None]:
        settling = self._core.settling
        if not settling.settled:
            yield from self._ask_bystanders()
        while True:
            self._ring_changed.clear()
            yield from self._recall.own()
            if not settling.settled:
                yield from self._settle()
            if settling.settled:
                self.synced.set()
                yield from self._hand_off()
                yield from self._rest()
                if not settling.settled:
                    yield from self._gather()

    def _rest(self) -> Steps[None]:
        """Until the ring changes."""
        moment = yield from clock()
        until = moment.now + REST_S * self._rng.uniform(1, 2)
        if not (yield from wait(self._ring_changed, until)):
            self._core.settling.foresee()
            yield from wait(self._ring_changed)

    def _ask_bystanders(self) -> Steps[None]:
        """At the start, for the deletions that those remember who keep no records. Who hangs is
        not waited for: it speaks up itself when it sees this node on its ring."""
        waiting = iter(self._around.bystanders())
        asking = together([self._ask_each(waiting) for _ in range(MAX_EXCHANGES)])
        moment = yield from clock()
        yield from within(asking, moment.now + BYSTANDERS_S)

    def _ask_each(self, waiting: Iterator[NodeId]) -> Steps[None]:
        for node in waiting:
            yield from self._recall.try_ask(node)

    def _gather(self) -> Steps[None]:
        moment = yield from clock()
        over_at, changed = moment.now + MAX_GATHER_S, True
        while changed and moment.now < over_at:
            self._ring_changed.clear()
            changed = yield from wait(self._ring_changed, min(over_at, moment.now + GATHER_S))
            moment = yield from clock()

    def _settle(self) -> Steps[None]:
        """Exchanges until the ring is settled."""
        settling = self._core.settling
        retry_s = _RETRY_S
        while not settling.settled:
            epoch = settling.ring.epoch
            yield from self._exchange_with_all(settling.waiting())
            if settling.ring.epoch != epoch:
                retry_s = _RETRY_S
            moment = yield from clock()
            if moment.now >= settling.gives_up_at():
                settling.give_up()
            if not settling.settled:
                yield from sleep(retry_s * self._rng.uniform(0.5, 1.5))
                retry_s = min(2 * retry_s, _MAX_RETRY_S)

    def _exchange_with_all(self, nodes: list[NodeId]) -> Steps[None]:
        """In random order, so that of a pair seldom both ask at once."""
        self._rng.shuffle(nodes)
        waiting, at_once = iter(nodes), min(MAX_EXCHANGES, len(nodes))
        yield from together([self._exchange_with_each(waiting) for _ in range(at_once)])

    def _exchange_with_each(self, waiting: Iterator[NodeId]) -> Steps[None]:
        for node in waiting:
            if node in self._core.settling.waiting():
                yield from self._exchange_or_miss(node)

    def _exchange_or_miss(self, node: NodeId) -> Steps[None]:
        over = self._exchanging[node] = Signal()
        yield from unless(over, self._exchange.exchange(node))
        del self._exchanging[node]

    def _hand_off(self) -> Steps[None]:
        """Entries that this node keeps no more are dropped once all their keepers have them."""
        view = yield from self._exchange.view(self._core.ring)
        groups: dict[tuple[NodeId, ...], list[TaskId]] = {}
        for task_id in view.strays(self._core.me):
            groups.setdefault(view.keepers(task_id), []).append(task_id)
        for keepers, task_ids in groups.items():
            for batch in batches(self._exchange.entries(task_ids)):
                yield from self._hand_over(keepers, batch)

    def _hand_over(self, keepers: tuple[NodeId, ...], batch: list[Standing]) -> Steps[None]:
        for node in keepers:
            if not (yield from self._exchange.push(node, batch)):
                return  # Kept until the next ring change or exchange.
        for standing in batch:
            if self._core.standing(standing.task_id) is standing:
                yield from persist(self._core.drop(standing.task_id))

    # Now and then

    def _exchange_loop(self) -> Steps[None]:
        calm = 0
        while True:
            rested = yield from clock()
            interval_s = self._config.sync_interval_s * self._rng.uniform(0.75, 1.25)
            if (yield from wait(self._stirred, rested.now + interval_s * 2**calm)):
                calm = 0
                yield from sleep_until(rested.now + interval_s)
            self._stirred.clear()
            if self._core.settling.settled:
                if (yield from self._exchange_with_one()) is not True:
                    calm = 0
                calm = min(calm + 1, MAX_CALM)
                yield from self._hand_off()

    def _exchange_with_one(self) -> Steps[bool | None]:
        view = yield from self._exchange.view(self._core.ring)
        others = [
            node for node in view.sharers() if node != self._core.me and self._around.is_alive(node)
        ]
        if not others:
            return True
        return (yield from self._exchange.exchange(self._rng.choice(others)))

    def _tidy_loop(self) -> Steps[None]:
        while True:
            timeout = self._core.next_timeout()
            moment = yield from clock()
            until = moment.now + self._config.sync_interval_s
            yield from sleep_until(until if timeout is None else min(until, timeout))
            moment = yield from clock()
            yield from persist(self._core.handle_timeout(moment.now))
            for task_id in self._core.spent(moment.wall_s):
                yield from persist(self._core.drop(task_id))

    # Hints

    def hint(self, node: NodeId, task_id: TaskId) -> None:
        """Remembers that `node` lacks the entry of `task_id`."""
        self._hints.setdefault(node, {})[task_id] = None
        self._hinted.set()
        self._stirred.set()

    def _hint_loop(self) -> Steps[None]:
        while True:
            yield from wait(self._hinted)
            for node in list(self._hints):
                yield from self._deliver_hints(node)
            if not self._hints:
                self._hinted.clear()
                continue
            yield from sleep(_HINT_INTERVAL_S * self._rng.uniform(0.5, 1.5))

    def _deliver_hints(self, node: NodeId) -> Steps[None]:
        settling = self._core.settling
        moment = yield from clock()
        if node not in settling.ring.members and node not in settling.expects(moment.now):
            # It went for good, or it will compare everything when it comes back.
            del self._hints[node]
            return
        wanted = list(self._hints[node])
        for batch in batches(self._exchange.entries(wanted)):
            if not self._around.is_alive(node):
                return
            if not (yield from self._exchange.push(node, batch)):
                return
        left = self._hints[node]
        for task_id in wanted:
            left.pop(task_id, None)
        if not left:
            del self._hints[node]
