"""A cluster of real nodes in a simulated world: how it starts, and what users do with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import ExitStack, aclosing
from functools import partial
from typing import TypeVar

import trio

from gossipcache.errors import GossipcacheError
from gossipcache.ids import task_id_of
from gossipcache.node.node import Node
from gossipcache.requests import DeleteRequest, ExportRequest, ImportRequest, TaskQuery
from gossipcache.results import (
    DeleteResult,
    ExportResult,
    ImportResult,
    Outcome,
    Progress,
    StatResult,
)
from sim.chronicle import Verb
from sim.errors import told
from sim.whole.machine import DATA
from sim.whole.machines import HOME, PIECE_BYTES, PORT, Machines, Wrong
from sim.whole.witness import Output, Task, Tree, put_tree

__all__ = ["EXPORT_TIMEOUT_S", "HOME", "PIECE_BYTES", "PORT", "World", "Wrong"]

R = TypeVar("R")

EXPORT_TIMEOUT_S = 120.0


class World(Machines):
    """Machines on one network, on one clock, from one seed, and the verbs on their nodes."""

    _exports = 0
    _imports = 0

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

    @property
    def contents(self) -> dict[Task, bytes]:
        """What every task that was imported reads as."""
        return self.witness.model.contents

    # Verbs.

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
        sync: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> ExportResult:
        """`export` on a node: its output is what was imported, or if it fails not there. With
        `sync` the node is a holder whom the keepers may count on."""
        self._exports += 1
        path = DATA / f"export-{self._exports}"
        machine = self.machines[name]
        with machine.disk.unhindered():
            machine.disk.make_folder(DATA)
        request = ExportRequest(task=TaskQuery(cid), path=path, timeout_s=timeout_s, sync=sync)
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

    async def import_many(self, name: str, cids: Sequence[str], size: int) -> dict[str, Outcome]:
        """Imports `size` random bytes each as `cids`, by one request, and remembers them; what
        came of each before the request ended, or the node."""
        requests: list[ImportRequest] = []
        for cid in cids:
            content = self._content(cid, "", size)
            self._imports += 1
            path = self.machines[name].put_file(f"import-{self._imports}", content)
            self.witness.expect((cid, ""), content)
            requests.append(ImportRequest(path=path, cid=cid))
        ended: dict[str, Outcome] = {}

        def tell(number: int, outcome: Outcome) -> None:
            ended[cids[number]] = outcome
            if not isinstance(outcome, GossipcacheError):
                self.witness.acknowledge((cids[number], ""))

        what = f"{len(cids)} tasks"
        await self._verb(name, "import", what, lambda node: node.import_files(requests, tell))
        return ended

    async def export_many(self, name: str, cids: Sequence[str]) -> dict[str, Outcome]:
        """Exports tasks by one request: each output is what was imported, or not there."""
        machine = self.machines[name]
        with machine.disk.unhindered():
            machine.disk.make_folder(DATA)
        ended: dict[str, Outcome] = {}
        requests: list[ExportRequest] = []
        with ExitStack() as stack:
            outputs: list[Output] = []
            for cid in cids:
                self._exports += 1
                path = DATA / f"export-{self._exports}"
                requests.append(ExportRequest(task=TaskQuery(cid), path=path))
                outputs.append(stack.enter_context(self.witness.output(name, path, (cid, ""))))

            def tell(number: int, outcome: Outcome) -> None:
                ended[cids[number]] = outcome
                is_whole = self.witness.is_whole(outputs[number], machine.disk)
                if is_whole == isinstance(outcome, GossipcacheError):
                    self.report(f"the export of {cids[number]} on {name} and its output differ")

            what = f"{len(cids)} tasks"
            await self._verb(name, "export", what, lambda node: node.export_files(requests, tell))
        with machine.disk.unhindered():
            for request in requests:
                machine.disk.remove(request.path)
        return ended

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


async def _read_tree(cid: str, node: Node) -> tuple[bytes, bytes]:
    """The tar of a tree, and what its pieces are cut from."""
    async with node.reader(TaskQuery(cid), local=True) as reader:
        tar = b"".join([chunk async for chunk in reader.chunks()])
    file = node.services.store.open_data(task_id_of(cid, ""))
    stored = file.read_at(0, file.size())
    file.close()
    return tar, stored
