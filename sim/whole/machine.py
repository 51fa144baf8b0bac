"""One simulated machine: a disk that outlives its processes, and the node that runs on it."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, TypeVar

import outcome
import trio

from gossipcache.cluster import Cluster
from gossipcache.config import NodeConfig
from gossipcache.env import Env, Lane, inline_lane
from gossipcache.identity import Identity
from gossipcache.node.node import Node
from sim.kernel.clock import SimClock
from sim.kernel.entropy import CURRENT_STREAM, WALL_EPOCH_S
from sim.kernel.process import PROCESS, Process
from sim.network.fabric import SimHost
from sim.storage.disk import SimDisk

R = TypeVar("R")

DATA = PurePath("/data")
"""Where users keep their files on every machine."""


class NodeKilled(Exception):
    """The node died while it worked on this call."""


class SimWorkers:
    """`gossipcache.env.Workers`: runs work inline, then lets its virtual cost pass."""

    def __init__(self, disk: SimDisk) -> None:
        self._disk = disk

    async def run(self, work: Callable[[], R]) -> R:
        """Runs `work`; it has taken effect even if the process dies before it returns."""
        await trio.lowlevel.checkpoint()
        try:
            return work()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(self._disk.take_cost_s())

    async def run_each(self, queue: deque[Callable[[], R]], done: Callable[[R], None]) -> None:
        """Runs all that stands in `queue`, each as `run` does."""
        while queue:
            done(await self.run(queue.popleft()))

    def lane(self) -> AbstractContextManager[Lane]:
        """Nothing runs beside anything."""
        return inline_lane()


class Incarnation:
    """One process of a node, from its start to its death."""

    def __init__(self, name: str, host: SimHost, disk: SimDisk, node: Node) -> None:
        self.host = host
        self.disk = disk
        self.node = node
        self.process = Process(name)
        self.started = trio.Event()
        self.ended = trio.Event()
        self.is_ending = False
        """Whether its end is wanted, so that what it raises is no finding."""
        self._nursery: trio.Nursery | None = None
        self._calls: dict[_Call, None] = {}

    async def live(self, on_failure: Callable[[BaseException], None]) -> None:
        """Runs the node until it ends; `on_failure` is told if it does so by itself."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await nursery.start(self.node.run)
                self.started.set()
        except BaseException as error:
            # Swallowed whatever it is: this is where a process ends.
            if not self.is_ending:
                on_failure(error)
        finally:
            self.is_ending = True
            self.fail_calls()
            self.started.set()
            self.ended.set()

    async def call(self, work: Callable[[Node], Awaitable[R]]) -> R:
        """Runs `work` as a task of this process. Raises `NodeKilled` if it dies meanwhile."""
        if self._nursery is None or self.is_ending:
            raise NodeKilled(f"{self.process.name} is not running")
        call = _Call()
        self._calls[call] = None
        with self.context():
            self._nursery.start_soon(call.perform, work, self.node)
        try:
            await call.done.wait()
        except trio.Cancelled:
            call.scope.cancel()
            raise
        finally:
            self._calls.pop(call, None)
        if isinstance(call.result, outcome.Error) and self._has_broken_off:
            raise NodeKilled(f"{self.process.name} ended") from call.result.error
        result: R = call.result.unwrap()
        return result

    @property
    def _has_broken_off(self) -> bool:
        """Whether the node ended, so that what its verbs raise says no more than that."""
        return self._nursery is None or self._nursery.cancel_scope.cancel_called

    def context(self) -> _InProcess:
        """A context in which tasks that are started belong to this process."""
        return _InProcess(self.process)

    def freeze(self, *, silent: bool) -> None:
        """The process is dead from this instant: nothing it does reaches anything."""
        self.is_ending = True
        self.process.hold()
        self.host.kill(silent=silent)
        self.fail_calls()

    def fail_calls(self) -> None:
        """Tells the waiting callers that no answer comes."""
        for call in list(self._calls):
            call.fail(NodeKilled(f"{self.process.name} died"))

    def cancel(self) -> None:
        """Ends the node's tasks: SIGTERM, or the burial of what a kill left."""
        self.is_ending = True
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()


class _InProcess:
    def __init__(self, process: Process) -> None:
        self._process = process

    def __enter__(self) -> None:
        self._token = PROCESS.set(self._process)
        self._stream_token = CURRENT_STREAM.set(self._process.entropy)

    def __exit__(self, *_: object) -> None:
        PROCESS.reset(self._token)
        CURRENT_STREAM.reset(self._stream_token)


class _Call:
    def __init__(self) -> None:
        self.done = trio.Event()
        self.scope = trio.CancelScope()
        self.result: outcome.Outcome[Any] = outcome.Error(NodeKilled("unanswered"))

    async def perform(self, work: Callable[[Node], Awaitable[Any]], node: Node) -> None:
        with self.scope:
            try:
                self.result = outcome.Value(await work(node))
            except Exception as error:
                self.result = outcome.Error(error)
        self.done.set()

    def fail(self, error: Exception) -> None:
        if not self.done.is_set():
            self.result = outcome.Error(error)
            self.done.set()


@dataclass(eq=False)
class WallClock:
    """A machine's wall clock; it may be wrong, and run at a wrong rate."""

    clock: SimClock
    reads: int = 0
    """How often it was looked at."""
    _ahead_s: float = 0.0
    _rate: float = 0.0
    _since: float = 0.0

    def read(self) -> float:
        """Seconds since 1970, by this clock."""
        self.reads += 1
        return WALL_EPOCH_S + self.clock.now + self.ahead_s

    @property
    def ahead_s(self) -> float:
        """How far it is ahead."""
        return self._ahead_s + self._rate * (self.clock.now - self._since)

    def set(self, *, ahead_s: float = 0.0, rate: float = 0.0) -> None:
        """Puts it `ahead_s` ahead, to gain `rate` seconds a second from now on."""
        self._ahead_s, self._rate, self._since = ahead_s, rate, self.clock.now


@dataclass(eq=False)
class Machine:
    """What a node needs to run again: its key, its address, its disk."""

    name: str
    ip: str
    config: NodeConfig
    identity: Identity
    cluster: Cluster
    rng: random.Random
    wall: WallClock
    disk: SimDisk = field(default_factory=SimDisk)
    life: Incarnation | None = None
    is_visitor: bool = False
    """Whether it is here for a while only, by a fault, and need not be up at the end."""

    @property
    def is_up(self) -> bool:
        """Whether its node runs (paused ones do)."""
        return self.life is not None and not self.life.is_ending

    def boot(self, host: SimHost) -> Incarnation:
        """A new process of the node, not yet running."""
        stream = random.Random(self.rng.getrandbits(128))
        env = Env(
            network=host,
            disk=self.disk,
            workers=SimWorkers(self.disk),
            wall_time=self.wall.read,
            entropy=stream.randbytes,
            rng=random.Random(stream.getrandbits(128)),
        )
        node = Node(env, self.config, self.identity, self.cluster)
        self.life = Incarnation(self.name, host, self.disk, node)
        self.life.process.entropy = stream
        return self.life

    def put_file(self, name: str, content: bytes) -> PurePath:
        """A user's file on this machine, durable."""
        path = DATA / name
        with self.disk.unhindered():
            self.disk.make_folder(DATA)
            self.disk.remove(path)
            file = self.disk.open(path, "create")
            file.write_at(0, content)
            file.sync()
            file.close()
            self.disk.sync_folder(DATA)
            self.disk.sync_folder(DATA.parent)
        return path

    def get_file(self, path: PurePath) -> bytes | None:
        """The content of a user's file, or None if it is not there."""
        with self.disk.unhindered():
            stamp = self.disk.stamp(path)
            if stamp is None:
                return None
            file = self.disk.open(path, "read")
            content = file.read_at(0, stamp.size)
            file.close()
            return content
