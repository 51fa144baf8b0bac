"""Carrying out procedures (`steps`) on Trio."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import trio

from gossipcache.dht.records.glances import Glances
from gossipcache.dht.records.log import RecordLog
from gossipcache.dht.records.steps import (
    Ask,
    Breathe,
    Clock,
    Effect,
    Ended,
    Lead,
    Look,
    Moment,
    Notify,
    Persist,
    ReachCharter,
    Steps,
    Wait,
    Within,
    Work,
)
from gossipcache.dht.records.surroundings import ReachCharters
from gossipcache.env import Env
from gossipcache.errors import GossipcacheError, NotReady
from gossipcache.link.interface import Links

T = TypeVar("T")


class Performer:
    """What one node's procedures are carried out with."""

    def __init__(self, env: Env, links: Links, reach_charter: ReachCharters) -> None:
        self._env = env
        self._links = links
        self._reach_charter = reach_charter
        self.log: RecordLog | None = None
        """Of a keeper that runs."""
        self.glances: Glances | None = None
        """Without them all comparisons need a connection."""

    async def perform(self, procedure: Steps[T]) -> T:
        """Carries `procedure` out. Raises what it raises; it is closed when this is cancelled."""
        try:
            resume: Callable[[], Effect] = partial(next, procedure)
            while True:
                effect = resume()
                try:
                    resume = partial(procedure.send, await self._do(effect))
                except (GossipcacheError, OSError) as error:
                    resume = partial(procedure.throw, error)
        except StopIteration as ended:
            result: T = ended.value
            return result
        finally:
            procedure.close()

    async def _do(self, effect: Effect) -> Any:
        match effect:
            case Clock():
                return Moment(trio.current_time(), self._env.wall_time())
            case Ask(node, message, reply, timeout_s):
                return await self._links.request(node, message, reply, timeout_s)
            case Notify(node, message):
                await self._links.notify(node, message)
            case Persist(changes):
                await self._write(changes)
            case Work(work):
                return await self._env.workers.run(work)
            case Breathe():
                await trio.lowlevel.checkpoint()
            case Wait():
                return await self._wait(effect)
            case Lead():
                return await self._lead(effect)
            case Within(procedure, until):
                with trio.move_on_at(until):
                    return Ended(await self.perform(procedure))
            case ReachCharter(number):
                await self._reach_charter(number)
            case Look(node):
                return False if self.glances is None else await self.glances.has_same(node)
        return None

    async def _write(self, changes: tuple[Any, ...]) -> None:
        if self.log is None:
            raise NotReady("this keeper's journal is closed")
        await self.log.write(changes)

    async def _wait(self, effect: Wait) -> bool:
        signal = effect.signal
        if signal.is_set:
            await trio.lowlevel.checkpoint()
            return True
        happened = trio.Event()
        signal.waiting.append(happened.set)
        try:
            with trio.move_on_at(effect.until):
                await happened.wait()
        finally:
            signal.waiting.remove(happened.set)
        return signal.is_set

    async def _lead(self, effect: Lead) -> Any:
        result, failed = None, None
        async with trio.open_nursery() as nursery:

            def start(procedure: Steps[None]) -> None:
                nursery.start_soon(self.perform, procedure)

            effect.group.start = start
            try:
                result = await self.perform(effect.procedure)
            except (GossipcacheError, OSError) as error:
                failed = error
            nursery.cancel_scope.cancel()
        if failed is not None:
            raise failed
        return result
