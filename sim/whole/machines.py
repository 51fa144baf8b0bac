"""The machines of a simulated world, the nodes that run on them, and what goes wrong with them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePath
from typing import TypeVar

import trio

from gossipcache.cluster import cluster_from_secret
from gossipcache.config import ALL_ROLES, NodeConfig, Role, TransferConfig
from gossipcache.identity import SEED_BYTES, Identity
from gossipcache.ids import Address
from gossipcache.node.node import Node
from sim.chronicle import Chronicle
from sim.errors import is_of_the_disk, told
from sim.kernel.clock import SimClock
from sim.kernel.entropy import Streams
from sim.network.fabric import Fabric, LinkProfile
from sim.storage.disk import SimDisk
from sim.storage.medium import DiskTiming
from sim.trace import Trace
from sim.whole.machine import Machine, WallClock
from sim.whole.wiretap import Wiretap
from sim.whole.witness import Witness

R = TypeVar("R")

PORT = 7100
HOME = PurePath("/home/node")
PIECE_BYTES = 64 * 1024
"""Small pieces: as many steps of the protocol for less work."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """A finding: what was violated, and when."""

    at_s: float
    what: str

    def __str__(self) -> str:
        return f"{self.at_s:.3f} s: {self.what}"


class Machines:
    """Machines on one network, on one clock, from one seed."""

    def __init__(
        self,
        clock: SimClock,
        streams: Streams,
        trace: Trace,
        nursery: trio.Nursery,
        profile: LinkProfile | None = None,
        chronicle: Chronicle | None = None,
    ) -> None:
        self.clock = clock
        self.streams = streams
        self.trace = trace
        self.fabric = Fabric(clock, streams, trace, profile)
        self.machines: dict[str, Machine] = {}
        self._errands: list[trio.CancelScope] = []
        self.wrong: list[Wrong] = []
        self.on_wrong: Callable[[str], None] = lambda what: None
        """Told each violation as it is noted."""
        self.metrics: dict[str, float] = {}
        self.witness = Witness(self.report)
        self._nursery = nursery
        self._cluster = cluster_from_secret(streams.named("cluster").randbytes(32))
        self.chronicle = chronicle
        if chronicle is not None:
            trace.tap = Wiretap(chronicle, self._cluster, self.name_of)
        self._moves = 0
        self.zombies: list[Machine] = []

    def add_machine(self, *, roles: frozenset[Role] = ALL_ROLES, **changes: object) -> Machine:
        """One more machine, its node not yet started; `changes` go to its `NodeConfig`."""
        number = len(self.machines)
        name, ip = f"n{number}", f"10.0.{number // 250}.{number % 250 + 1}"
        config = NodeConfig(
            home=HOME,
            name=name,
            listen=Address(ip, PORT),
            join=tuple(Address(each.ip, PORT) for each in list(self.machines.values())[:3]),
            roles=roles,
            plaintext=True,  # OpenSSL's random numbers cannot be seeded
            transfer=TransferConfig(piece_size_bytes=PIECE_BYTES),
        )
        rng = self.streams.named(f"node/{name}")
        machine = Machine(
            name=name,
            ip=ip,
            config=replace(config, **changes),  # type: ignore[arg-type]
            identity=Identity(rng.randbytes(SEED_BYTES)),
            cluster=self._cluster,
            rng=rng,
            wall=WallClock(self.clock),
            disk=self._new_disk(name),
        )
        self.machines[name] = machine
        return machine

    async def start(self, name: str) -> None:
        """Boots the machine's node, unless it runs; returns when it serves."""
        machine = self.machines[name]
        if machine.is_up:
            return
        host = self.fabric.host(machine.ip)
        host.on_serve = partial(self.witness.serving, name)
        life = machine.boot(host)
        self._note_life(name, is_up=True)
        with life.context():
            self._nursery.start_soon(life.live, partial(self._failed, name))
        await life.started.wait()

    async def kill(self, name: str, *, power_loss: bool = False, lose_all: bool = False) -> None:
        """SIGKILL, or the machine's power (with some of what is unsynced lost, or all); at an
        instant at which no task runs."""
        struck = trio.Event()

        def strike() -> None:
            if power_loss:
                self.lose_power(name, lose_all=lose_all)
            else:
                self._end_process(name, silent=False)
            struck.set()

        self.clock.call_at(self.clock.now, strike)
        await struck.wait()

    def lose_power(self, name: str, *, lose_all: bool = False) -> None:
        """The machine goes off at this instant, in the midst of whatever its process does."""
        rng = None if lose_all else self.streams.named(f"disk/{name}")
        if self._end_process(name, silent=True):
            self.machines[name].disk.lose_unsynced(rng)

    def _end_process(self, name: str, *, silent: bool) -> bool:
        machine = self.machines[name]
        life = machine.life
        if life is None or life.is_ending:
            return False
        life.freeze(silent=silent)
        self.zombies.append(replace(machine))
        machine.disk = machine.disk.crash(power_loss=False)
        self.trace.record("kill", name)
        self._note_life(name, is_up=False)
        return True

    def spawn(self, work: Callable[..., Awaitable[object]], *args: object) -> None:
        """Runs `work` beside all else, until it ends or the world does."""
        self._nursery.start_soon(self._run_errand, work, *args)

    async def _run_errand(self, work: Callable[..., Awaitable[object]], *args: object) -> None:
        with trio.CancelScope() as scope:
            self._errands.append(scope)
            await work(*args)

    def move(self, name: str) -> None:
        """A dead node's machine gets an address that nobody knows."""
        machine = self.machines[name]
        self._moves += 1
        machine.ip = f"10.9.0.{self._moves}"
        machine.config = replace(machine.config, listen=Address(machine.ip, PORT))

    async def stop(self, name: str) -> None:
        """The node leaves in order and ends."""
        life = self.machines[name].life
        assert life is not None
        await life.call(lambda node: node.leave())
        life.cancel()
        await life.ended.wait()
        life.host.kill(silent=False)
        self._note_life(name, is_up=False)

    def _failed(self, name: str, error: BaseException) -> None:
        self._note_life(name, is_up=False)
        if self.machines[name].disk.has_failed and is_of_the_disk(error):
            self.metrics["fail-stops"] = self.metrics.get("fail-stops", 0) + 1
        else:
            self.report(f"{name} failed: {told(error)}")

    def _note_life(self, name: str, *, is_up: bool) -> None:
        if self.chronicle is not None:
            self.chronicle.lived(self.clock.now, name, is_up=is_up)

    def wipe(self, name: str) -> None:
        """Gives a dead node an empty disk; it keeps its key."""
        self.machines[name].disk = self._new_disk(name)

    def _new_disk(self, name: str) -> SimDisk:
        disk = SimDisk(timing=DiskTiming())
        disk.make_folder(HOME)
        for folder in (HOME.parent.parent, HOME.parent):
            disk.sync_folder(folder)
        disk.medium.observer = self._disk_observer(name)
        return disk

    def up(self) -> list[str]:
        """The names of the machines whose node runs."""
        return [name for name, machine in self.machines.items() if machine.is_up]

    def node(self, name: str) -> Node:
        """The running node of a machine."""
        life = self.machines[name].life
        assert life is not None
        return life.node

    def name_of(self, node: str | None) -> str:
        """The machine of a node, by its name, its id in hex or its host."""
        for name, machine in self.machines.items():
            if node in (name, machine.identity.node_id.hex(), machine.ip):
                return name
        raise KeyError(f"no machine has the node {node}")

    async def on(self, name: str, work: Callable[[Node], Awaitable[R]]) -> R:
        """Runs `work` on a machine's node, as a task of its process."""
        life = self.machines[name].life
        assert life is not None, f"{name} was never started"
        return await life.call(work)

    # Findings and the end.

    def report(self, what: str) -> None:
        """Notes a violation."""
        self.wrong.append(Wrong(self.clock.now, what))
        self.on_wrong(what)

    def end(self) -> str:
        """Closes the trace, then lets the world fall apart; the run's digest."""
        digest = self.trace.close()
        for errand in self._errands:
            errand.cancel()
        for machine in [*self.machines.values(), *self.zombies]:
            life = machine.life
            if life is not None and not life.ended.is_set():
                if not life.host.is_dead:
                    life.host.kill(silent=True)
                life.is_ending = True
                life.process.slow_down(self.clock, 0.0)
                life.process.release()
                life.cancel()
        return digest

    def _disk_observer(self, name: str) -> Callable[[str, int, int, bytes], None]:
        def observe(kind: str, inode: int, offset: int, data: bytes) -> None:
            self.trace.record(f"disk {kind}", f"{name}/{inode}@{offset}", data)
            self.witness.disk_changed(name, self.machines[name].disk)

        return observe
