"""Users at work on every node: they import, stat, export and delete, whatever strikes."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from gossipcache.errors import GossipcacheError
from sim.whole.machine import NodeKilled
from sim.whole.world import PIECE_BYTES, World

PATIENCE_S = 20.0
"""How long a user waits for an export."""
_PAUSE_S = 4.0
_SPREAD_TO = 3
"""How many nodes export a new task at the same time."""
MANY = 1000
_KEPT = 4
"""So many tasks are left when users delete."""


class Clients:
    """One user a node. What fails is tried no further: a user of a struck node has no better
    luck; what is said to have worked is what the witness holds the cluster to."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._imports = 0
        self.done = 0
        self.failed = 0
        self._stopped = trio.Event()

    async def run(self) -> None:
        """Works until `stop`, and until all that was begun has ended."""
        async with trio.open_nursery() as nursery:
            for name, machine in list(self._world.machines.items()):
                if not machine.is_visitor:
                    nursery.start_soon(self._work, name)

    def stop(self) -> None:
        """Nothing more is begun."""
        self._stopped.set()

    async def begin(self, names: list[str]) -> None:
        """A task on each of some nodes, before anything strikes; one more copy of each."""
        for name, second in zip(names, [*names[1:], names[0]], strict=True):
            cid = self._new_cid()
            await self._world.import_content(name, cid, self._size())
            await self._world.export(second, cid)

    async def spread_all(self) -> None:
        """Each running node imports a task that all others want at once, and everybody looks at
        everything."""
        known = [cid for cid, _ in self._world.witness.model.acknowledged]
        async with trio.open_nursery() as nursery:
            for name in self._world.up():
                for cid in known:
                    nursery.start_soon(self._try, partial(self._world.stat, cid=cid), name)
            for name in self._world.up():
                nursery.start_soon(self._try, partial(self._spread, count=MANY), name)

    async def _work(self, name: str) -> None:
        while not self._stopped.is_set():
            with trio.move_on_after(self._rng.expovariate(1 / _PAUSE_S)):
                await self._stopped.wait()
            if not self._stopped.is_set() and self._world.machines[name].is_up:
                await self._try(self._verb(), name)

    def _verb(self) -> Callable[[str], Awaitable[object]]:
        verbs = (self._import, self._spread, self._export, self._stat, self._delete)
        return self._rng.choices(verbs, weights=(25, 15, 35, 20, 5))[0]

    async def _try(self, verb: Callable[[str], Awaitable[object]], name: str) -> None:
        try:
            await verb(name)
            self.done += 1
        except (GossipcacheError, NodeKilled, OSError):
            self.failed += 1

    async def _import(self, name: str) -> None:
        with trio.move_on_after(PATIENCE_S):
            await self._world.import_content(name, self._new_cid(), self._size())

    async def _spread(self, name: str, count: int = _SPREAD_TO) -> None:
        """A larger task that several nodes want at once, so that they give it to each other."""
        cid = self._new_cid()
        await self._world.import_content(name, cid, 8 * PIECE_BYTES)
        up = [each for each in self._world.up() if each != name]
        children = self._rng.sample(up, min(count, len(up)))
        async with trio.open_nursery() as nursery:
            for child in children:
                nursery.start_soon(self._try, partial(self._export_one, cid=cid), child)

    async def _export(self, name: str) -> None:
        await self._export_one(name, self._known())

    async def _export_one(self, name: str, cid: str) -> None:
        await self._world.export(name, cid, timeout_s=PATIENCE_S)

    async def _stat(self, name: str) -> None:
        await self._world.stat(name, self._known())

    async def _delete(self, name: str) -> None:
        if len(self._world.witness.model.acknowledged) > _KEPT:
            await self._world.delete(name, self._known(), timeout_s=PATIENCE_S)

    def _known(self) -> str:
        known = [cid for cid, _ in self._world.witness.model.acknowledged]
        return self._rng.choice(known) if known else "none"

    def _new_cid(self) -> str:
        self._imports += 1
        return f"work-{self._imports}"

    def _size(self) -> int:
        return int(PIECE_BYTES * self._rng.choice((0.1, 1, 4))) + self._rng.randrange(1000)
