"""A cluster of real nodes in a simulated world, and the verbs that drive it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePath
from typing import TypeVar

import trio

from gossipcache.cluster import cluster_from_secret
from gossipcache.config import ALL_ROLES, NodeConfig, Role, TransferConfig
from gossipcache.errors import GossipcacheError
from gossipcache.identity import SEED_BYTES, Identity
from gossipcache.ids import Address, task_id_of
from gossipcache.node.node import Node
from gossipcache.requests import DeleteRequest, ExportRequest, ImportRequest, TaskQuery
from gossipcache.results import DeleteResult, ExportResult, ImportResult, Progress, StatResult
from sim.chronicle import Chronicle, Verb
from sim.errors import is_of_the_disk, told
from sim.kernel.clock import SimClock
from sim.kernel.entropy import Streams
from sim.network.fabric import Fabric, LinkProfile
from sim.storage.disk import SimDisk
from sim.storage.medium import DiskTiming
from sim.trace import Trace
from sim.whole.machine import DATA, Machine, WallClock
from sim.whole.wiretap import Wiretap
from sim.whole.witness import Task, Tree, Witness, put_tree

R = TypeVar("R")

PORT = 7100
HOME = PurePath("/home/node")
PIECE_BYTES = 64 * 1024
"""Small pieces: as many steps of the protocol for less work."""
EXPORT_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Wrong:
    """A finding: what was violated, and when."""

    at_s: float
    what: str

    def __str__(self) -> str:
        return f"{self.at_s:.3f} s: {self.what}"


class World:
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
        self._exports = 0
        self._imports = 0
        self._moves = 0
        self.zombies: list[Machine] = []

    # Machines and their nodes.

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

    async def start_cluster(self, count: int, **changes: object) -> None:
        """`count` machines whose nodes run, all see each other and keep records; `changes` go
        to the `NodeConfig` of each."""
        for _ in range(count):
            self.add_machine(**changes)  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            for name in self.machines:
                nursery.start_soon(self.start, name)
        await self.wait_views(count)
        await self.wait_until(
            "all keep records",
            lambda: all(self._schedulers_on(name) == count for name in self.up()),
            within_s=60.0,
        )

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

    @property
    def contents(self) -> dict[Task, bytes]:
        """What every task that was imported reads as."""
        return self.witness.model.contents

    def name_of(self, node: str | None) -> str:
        """The machine of a node, by its name, its id in hex or its host."""
        for name, machine in self.machines.items():
            if node in (name, machine.identity.node_id.hex(), machine.ip):
                return name
        raise KeyError(f"no machine has the node {node}")

    # Verbs.

    async def on(self, name: str, work: Callable[[Node], Awaitable[R]]) -> R:
        """Runs `work` on a machine's node, as a task of its process."""
        life = self.machines[name].life
        assert life is not None, f"{name} was never started"
        return await life.call(work)

    async def _verb(
        self, name: str, verb: str, cid: str, work: Callable[[Node], Awaitable[R]]
    ) -> R:
        started, failure = self.clock.now, ""
        try:
            return await self.on(name, work)
        except BaseException as error:
            failure = told(error)
            raise
        finally:
            if self.chronicle is not None:
                done = Verb(name, verb, cid, started, self.clock.now, failure)
                self.chronicle.worked(done)

    async def import_content(
        self,
        name: str,
        cid: str,
        size: int,
        *,
        tag: str = "",
        content: bytes | None = None,
        **options: object,
    ) -> ImportResult:
        """Imports `size` random bytes (or `content`) as `cid`, the same at each call, and
        remembers them."""
        content = self._content(cid, tag, size) if content is None else content
        self._imports += 1
        path = self.machines[name].put_file(f"import-{self._imports}", content)
        request = ImportRequest(path=path, cid=cid, tag=tag, **options)  # type: ignore[arg-type]
        self.witness.expect((cid, tag), content)
        result = await self._verb(name, "import", cid, lambda node: node.import_file(request))
        self.witness.acknowledge((cid, tag))
        return result

    async def import_stream(
        self, name: str, cid: str, size: int, *, chunk_bytes: int, interval_s: float
    ) -> ImportResult:
        """The same from a stream, whose chunks come slowly."""
        content = self._content(cid, "", size)

        async def chunks() -> AsyncGenerator[bytes, None]:
            for offset in range(0, size, chunk_bytes):
                yield content[offset : offset + chunk_bytes]
                await trio.sleep(interval_s)

        async def work(node: Node) -> ImportResult:
            async with aclosing(chunks()) as stream:
                return await node.import_file(ImportRequest(path=None, cid=cid), stream=stream)

        self.witness.expect((cid, ""), content)
        result = await self._verb(name, "import", cid, work)
        self.witness.acknowledge((cid, ""))
        return result

    async def import_tree(self, name: str, cid: str, tree: Tree) -> ImportResult:
        """Imports a folder that holds `tree`."""
        path = DATA / "import-tree"
        put_tree(self.machines[name].disk, path, tree)
        request = ImportRequest(path=path, cid=cid)
        result = await self._verb(name, "import", cid, lambda node: node.import_file(request))
        self.witness.expect_tree((cid, ""), tree, *await self.on(name, partial(_read_tree, cid)))
        self.witness.acknowledge((cid, ""))
        return result

    async def stat(self, name: str, cid: str, *, timeout_s: float = 10.0) -> StatResult:
        """`stat` on a node."""
        query = TaskQuery(cid)
        return await self._verb(
            name, "stat", cid, lambda node: node.stat(query, timeout_s=timeout_s)
        )

    async def export(
        self,
        name: str,
        cid: str,
        *,
        timeout_s: float = EXPORT_TIMEOUT_S,
        progress: Callable[[Progress], None] | None = None,
    ) -> ExportResult:
        """`export` on a node: its output is what was imported, or if it fails not there."""
        self._exports += 1
        path = DATA / f"export-{self._exports}"
        machine = self.machines[name]
        with machine.disk.unhindered():
            machine.disk.make_folder(DATA)
        request = ExportRequest(task=TaskQuery(cid), path=path, timeout_s=timeout_s)
        with self.witness.output(name, path, (cid, "")) as output:
            try:
                result = await self._verb(
                    name, "export", cid, lambda node: node.export(request, progress=progress)
                )
            except GossipcacheError:
                if self.witness.is_whole(output, machine.disk):
                    self.report(f"the export of {cid} on {name} failed and left its output")
                raise
            if not self.witness.is_whole(output, machine.disk):
                self.report(f"the export of {cid} on {name} left no output")
        with machine.disk.unhindered():
            machine.disk.remove(path)
        return result

    async def delete(self, name: str, cid: str, **options: object) -> DeleteResult:
        """`delete` on a node."""
        request = DeleteRequest(task=TaskQuery(cid), **options)  # type: ignore[arg-type]
        if request.local:
            return await self._verb(name, "drop", cid, lambda node: node.delete(request))
        self.witness.deleting((cid, ""))
        result = await self._verb(name, "delete", cid, lambda node: node.delete(request))
        self.witness.deleted((cid, ""), {self.name_of(node) for node in result.confirmed})
        return result

    def _content(self, cid: str, tag: str, size: int) -> bytes:
        return self.streams.fresh(f"content/{cid}/{tag}").randbytes(size)

    async def owner_of(self, name: str, cid: str) -> tuple[str, list[str]]:
        """The machines of a task's owner and replicas, on one node's view."""

        async def ask(node: Node) -> tuple[str, list[str]]:
            found = node.ring(TaskQuery(cid))
            return self.name_of(found.owner), [self.name_of(each) for each in found.replicas]

        return await self.on(name, ask)

    def alive_on(self, name: str) -> set[str]:
        """The machines that a node sees alive."""
        views = self.node(name).members()
        return {self.name_of(view.id) for view in views if view.state == "alive"}

    def _schedulers_on(self, name: str) -> int:
        return len(self.node(name).services.membership.ring.members)

    async def wait_until(
        self, what: str, holds: Callable[[], bool], within_s: float, step_s: float = 0.1
    ) -> bool:
        """Waits until `holds()`; reports a violation if it does not in time."""
        started = self.clock.now
        while not holds():
            if self.clock.now - started > within_s:
                self.report(f"not within {within_s} s: {what}")
                return False
            await trio.sleep(step_s)
        self.metrics[f"{what} after s"] = round(self.clock.now - started, 3)
        return True

    async def wait_views(self, count: int, within_s: float = 60.0) -> bool:
        """Waits until every running node sees exactly the running nodes alive."""
        assert len(self.up()) == count, f"{self.up()} run, not {count}"
        return await self.wait_until(
            "all views agree",
            lambda: all(self.alive_on(name) == set(self.up()) for name in self.up()),
            within_s,
        )

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


async def _read_tree(cid: str, node: Node) -> tuple[bytes, bytes]:
    """The tar of a tree, and what its pieces are cut from."""
    async with node.reader(TaskQuery(cid), local=True) as reader:
        tar = b"".join([chunk async for chunk in reader.chunks()])
    file = node.services.store.open_data(task_id_of(cid, ""))
    stored = file.read_at(0, file.size())
    file.close()
    return tar, stored
