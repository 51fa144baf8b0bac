"""What a keeper does by itself: after a ring change, for missing copies, and now and then.

After a ring change it exchanges with those whom `Settling` names, so that new keepers are given
what they lack and learn when they have it all. Then with one at random of those who keep the
same tasks, every `sync_interval_s`, and less and less often while that finds nothing (Trickle,
RFC 6206): who lacks an entry is asked by those who have it.
"""

from __future__ import annotations

import trio

from gossipcache.dht.records.exchange import Exchange, batches
from gossipcache.dht.records.log import RecordLog
from gossipcache.dht.records.recall import Recall
from gossipcache.dht.records.replication import ReplicationCore
from gossipcache.dht.records.standing import Standing
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
        log: RecordLog,
        exchange: Exchange,
        recall: Recall,
    ) -> None:
        self._env = means.env
        self._config = means.config
        self._around = around
        self._core = core
        self._log = log
        self._exchange = exchange
        self._recall = recall
        self._hints: dict[NodeId, dict[TaskId, None]] = {}
        self._hinted = trio.Event()
        self._ring_changed = trio.Event()
        self._stirred = trio.Event()

    async def run(self, synced: trio.Event) -> None:
        """Works until cancelled; sets `synced` when the keeper first has all that it should."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._settle_loop, synced)
            nursery.start_soon(self._hint_loop)
            nursery.start_soon(self._exchange_loop)
            nursery.start_soon(self._tidy_loop)

    def on_ring_change(self) -> None:
        """Says that the core has a new ring."""
        self._ring_changed.set()
        self._stirred.set()

    # After a ring change

    async def _settle_loop(self, synced: trio.Event) -> None:
        settling = self._core.settling
        if not settling.settled:
            await self._ask_bystanders()
        while True:
            self._ring_changed = trio.Event()
            await self._recall.own()
            if not settling.settled:
                await self._settle()
            if settling.settled:
                synced.set()
                await self._hand_off()
                await self._rest()
                if not settling.settled:
                    await self._gather()

    async def _rest(self) -> None:
        """Until the ring changes."""
        with trio.move_on_after(REST_S * self._env.rng.uniform(1, 2)):
            await self._ring_changed.wait()
            return
        self._core.settling.foresee()
        await self._ring_changed.wait()

    async def _ask_bystanders(self) -> None:
        """At the start, for the deletions that those remember who keep no records. Who hangs is
        not waited for: it speaks up itself when it sees this node on its ring."""
        waiting = iter(self._around.bystanders())

        async def work() -> None:
            for node in waiting:
                await self._recall.try_ask(node)

        with trio.move_on_after(BYSTANDERS_S):
            async with trio.open_nursery() as nursery:
                for _ in range(MAX_EXCHANGES):
                    nursery.start_soon(work)

    async def _gather(self) -> None:
        with trio.move_on_after(MAX_GATHER_S):
            rests = False
            while not rests:
                self._ring_changed = trio.Event()
                with trio.move_on_after(GATHER_S) as rest:
                    await self._ring_changed.wait()
                rests = rest.cancelled_caught

    async def _settle(self) -> None:
        """Exchanges until the ring is settled."""
        settling = self._core.settling
        retry_s = _RETRY_S
        while not settling.settled:
            await self._exchange_with_all(settling.waiting())
            if trio.current_time() >= settling.gives_up_at():
                settling.give_up()
            if not settling.settled:
                await trio.sleep(retry_s * self._env.rng.uniform(0.5, 1.5))
                retry_s = min(2 * retry_s, _MAX_RETRY_S)

    async def _exchange_with_all(self, nodes: list[NodeId]) -> None:
        """In random order, so that of a pair seldom both ask at once."""
        self._env.rng.shuffle(nodes)
        waiting = iter(nodes)

        async def work() -> None:
            for node in waiting:
                if node in self._core.settling.waiting():
                    await self._exchange.exchange(node)

        async with trio.open_nursery() as nursery:
            for _ in range(min(MAX_EXCHANGES, len(nodes))):
                nursery.start_soon(work)

    async def _hand_off(self) -> None:
        """Entries that this node keeps no more are dropped once all their keepers have them."""
        view = await self._exchange.view(self._core.ring)
        groups: dict[tuple[NodeId, ...], list[TaskId]] = {}
        for task_id in view.strays(self._core.me):
            groups.setdefault(view.keepers(task_id), []).append(task_id)
        for keepers, task_ids in groups.items():
            for batch in batches(self._exchange.entries(task_ids)):
                await self._hand_over(keepers, batch)

    async def _hand_over(self, keepers: tuple[NodeId, ...], batch: list[Standing]) -> None:
        for node in keepers:
            if not await self._exchange.push(node, batch):
                return  # Kept until the next ring change or exchange.
        for standing in batch:
            if self._core.standing(standing.task_id) is standing:
                await self._log.write(self._core.drop(standing.task_id))

    # Now and then

    async def _exchange_loop(self) -> None:
        calm = 0
        while True:
            rested_at = trio.current_time()
            interval_s = self._config.sync_interval_s * self._env.rng.uniform(0.75, 1.25)
            with trio.move_on_at(rested_at + interval_s * 2**calm):
                await self._stirred.wait()
                calm = 0
                await trio.sleep_until(rested_at + interval_s)
            self._stirred = trio.Event()
            if self._core.settling.settled:
                if await self._exchange_with_one() is not True:
                    calm = 0
                calm = min(calm + 1, MAX_CALM)
                await self._hand_off()

    async def _exchange_with_one(self) -> bool | None:
        view = await self._exchange.view(self._core.ring)
        others = [
            node for node in view.sharers() if node != self._core.me and self._around.is_alive(node)
        ]
        return await self._exchange.exchange(self._env.rng.choice(others)) if others else True

    async def _tidy_loop(self) -> None:
        while True:
            timeout = self._core.next_timeout()
            until = trio.current_time() + self._config.sync_interval_s
            await trio.sleep_until(until if timeout is None else min(until, timeout))
            await self._log.write(self._core.handle_timeout(trio.current_time()))
            for task_id in self._core.spent(self._env.wall_time()):
                await self._log.write(self._core.drop(task_id))

    # Hints

    def hint(self, node: NodeId, task_id: TaskId) -> None:
        """Remembers that `node` lacks the entry of `task_id`."""
        self._hints.setdefault(node, {})[task_id] = None
        self._hinted.set()
        self._stirred.set()

    async def _hint_loop(self) -> None:
        while True:
            await self._hinted.wait()
            for node in list(self._hints):
                await self._deliver_hints(node)
            if not self._hints:
                self._hinted = trio.Event()
                continue
            await trio.sleep(_HINT_INTERVAL_S * self._env.rng.uniform(0.5, 1.5))

    async def _deliver_hints(self, node: NodeId) -> None:
        settling = self._core.settling
        if node not in settling.ring.members and node not in settling.expects(trio.current_time()):
            # It went for good, or it will compare everything when it comes back.
            del self._hints[node]
            return
        wanted = list(self._hints[node])
        for batch in batches(self._exchange.entries(wanted)):
            if not self._around.is_alive(node) or not await self._exchange.push(node, batch):
                return
        left = self._hints[node]
        for task_id in wanted:
            left.pop(task_id, None)
        if not left:
            del self._hints[node]
