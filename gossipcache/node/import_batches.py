"""Importing many small files at once; see `rounds`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from gossipcache.dht.records.service import Published
from gossipcache.errors import Conflict, GossipcacheError, NoSpace, NotReady, from_os_error
from gossipcache.identity import MAX_BATCH
from gossipcache.ids import TaskId
from gossipcache.manifest import SignedManifest, sign_manifest, sign_manifests
from gossipcache.node.fetching import announce
from gossipcache.node.importing import (
    ANNOUNCE_TIMEOUT_S,
    PUBLISH_TIMEOUT_S,
    Content,
    described,
    import_file,
    named,
    piece_size,
    withdraw,
)
from gossipcache.node.rounds import (
    MAX_SMALL_BYTES,
    SINGLES_AT_ONCE,
    Numbered,
    Tell,
    each,
    in_rounds,
    settled,
)
from gossipcache.node.services import Services
from gossipcache.requests import ImportRequest
from gossipcache.schedule.service import not_announced
from gossipcache.transfer.files.ingest import found_at, ingest_small
from gossipcache.transfer.store.packed import Packing

PUBLISHED_AT_ONCE = 32


async def import_files(services: Services, requests: Sequence[ImportRequest], tell: Tell) -> None:
    """Imports all; `tell` hears of each one when it stands as after `import`, or failed."""
    await in_rounds(
        requests, lambda round_: _ImportRound(services, tell, services.store.pack()).run(round_)
    )


@dataclass(frozen=True)
class _Read:
    """A small file that was read."""

    number: int
    request: ImportRequest
    content: Content
    data: bytes


@dataclass(frozen=True)
class _Staged:
    """The same in the store's staging area, with the manifest that it is to have."""

    number: int
    request: ImportRequest
    content: Content
    mine: SignedManifest


@dataclass
class _ImportRound:
    services: Services
    tell: Tell
    packing: Packing
    reading: dict[TaskId, _Read] = field(default_factory=dict)
    """What was read and is not staged yet."""
    staged: dict[TaskId, _Staged] = field(default_factory=dict)
    others: Numbered[ImportRequest] = field(default_factory=list)
    """What goes the ordinary way."""
    failed: list[tuple[int, GossipcacheError]] = field(default_factory=list)

    async def run(self, requests: Numbered[ImportRequest]) -> None:
        run = self.services.env.workers.run
        started = trio.current_time()
        try:
            async with self.services.one_round:
                await self.services.run_abandonable(lambda check: self._stage(requests, check))
            adopted = await settled(lambda: run(self.packing.adopt))
        finally:
            with trio.CancelScope(shield=True):
                await run(self.packing.discard)
        for number, error in self.failed:
            self.tell(number, error)
        taken = self._taken(adopted)
        await self._publish(taken, started)
        await each(self.others, self._import_alone, at_once=SINGLES_AT_ONCE)

    def _stage(self, requests: Numbered[ImportRequest], check: Callable[[], None]) -> None:
        for number, request in requests:
            check()
            with self._failing(number):
                if not self._read(number, request):
                    self.others.append((number, request))
            if len(self.reading) == MAX_BATCH:
                self._sign()
        self._sign()

    @contextmanager
    def _failing(self, number: int) -> Iterator[None]:
        """What goes wrong with one file is told of that one."""
        try:
            yield
        except GossipcacheError as error:
            self.failed.append((number, error))
        except OSError as error:
            self.failed.append((number, from_os_error(error)))

    def _read(self, number: int, request: ImportRequest) -> bool:
        services = self.services
        if request.path is None or request.link or request.replicas > 1 or request.timeout_s:
            return False
        path, stamp = found_at(services.env.disk, request.path)
        if stamp is None or stamp.kind != "file" or stamp.size > MAX_SMALL_BYTES:
            return False
        data, ingested = ingest_small(
            services.env.disk,
            path,
            stamp,
            piece_size=piece_size(services, stamp.size),
            want_sha256=request.cid is None or request.cid.startswith("sha256:"),
        )
        content = named(services, request, ingested)
        task_id = content.task_id
        if task_id in self.staged or task_id in self.reading:
            return False
        if services.store.find(task_id) is not None:
            return False
        self.reading[task_id] = _Read(number, request, content, data)
        return True

    def _sign(self) -> None:
        """Signs what was read, all of it together, and puts it into the staging area."""
        cluster_id = self.services.cluster.cluster_id
        read, self.reading = list(self.reading.values()), {}
        manifests = [one.content.manifest(cluster_id, 1) for one in read]
        for one, mine in zip(read, sign_manifests(manifests, self.services.identity), strict=True):
            with self._failing(one.number):
                self._add(one, mine)

    def _add(self, one: _Read, mine: SignedManifest) -> None:
        try:
            tree = one.content.ingested.tree
            self.packing.add(mine, tree, one.data, pinned=one.request.pin)
        except NoSpace as full:
            if not full.wanted_bytes:
                raise
            self.others.append((one.number, one.request))  # That way makes room.
        else:
            self.staged[mine.task_id] = _Staged(one.number, one.request, one.content, mine)

    def _signed(self, content: Content, generation: int) -> SignedManifest:
        cluster_id = self.services.cluster.cluster_id
        return sign_manifest(content.manifest(cluster_id, generation), self.services.identity)

    def _taken(self, adopted: list[TaskId] | GossipcacheError) -> list[_Staged]:
        if isinstance(adopted, GossipcacheError):
            for staged in self.staged.values():
                self.tell(staged.number, adopted)
            return []
        taken = set(adopted)
        self.others += [
            (staged.number, staged.request)
            for task_id, staged in self.staged.items()
            if task_id not in taken
        ]
        return [staged for task_id, staged in self.staged.items() if task_id in taken]

    async def _publish(self, taken: list[_Staged], started: float) -> None:
        services = self.services
        # Until it is known whether its record stands, each is one that a stop leaves unsettled.
        open_ones = {staged.content.task_id: staged for staged in taken}
        standing: list[tuple[_Staged, Published]] = []

        async def publish(staged: _Staged) -> None:
            published = await settled(lambda: self._published(staged))
            if isinstance(published, Published):
                standing.append((staged, published))
                return
            if published is None:
                self.others.append((staged.number, staged.request))
            else:
                if not isinstance(published, (Conflict, NotReady)):
                    services.unsettled[staged.content.task_id] = None
                self.tell(staged.number, published)
            del open_ones[staged.content.task_id]

        try:
            at_once = await services.records.publish_many([staged.mine for staged in taken])
            singly: list[_Staged] = []
            for staged in taken:
                task_id = staged.content.task_id
                if (published := at_once.get(task_id)) is None:
                    singly.append(staged)
                else:
                    services.unsettled.pop(task_id, None)
                    standing.append((staged, published))
            await each(singly, publish, at_once=PUBLISHED_AT_ONCE)
            ids = [staged.content.task_id for staged, _ in standing]
            if ids:
                await services.env.workers.run(lambda: services.store.mark_all_published(ids))
            open_ones.clear()
        finally:
            services.unsettled.update(dict.fromkeys(open_ones))
        for task_id in ids:
            announce(services, task_id)
        untold = await services.announcer.flush_all(ids, ANNOUNCE_TIMEOUT_S)
        for staged, published in standing:
            if staged.content.task_id in untold:
                self.tell(staged.number, not_announced())
            else:
                self.tell(staged.number, described(staged.content, published, False, started))

    async def _published(self, staged: _Staged) -> Published | None:
        """None: something stood there already, which is judged the ordinary way."""
        task_id = staged.content.task_id
        self.services.unsettled.pop(task_id, None)
        try:
            published = await self.services.records.publish(
                lambda number: staged.mine if number == 1 else self._signed(staged.content, number),
                task_id=task_id,
                timeout_s=PUBLISH_TIMEOUT_S,
            )
        except (Conflict, NotReady):
            await withdraw(self.services, task_id)
            raise
        return published if published.manifest.name == staged.mine.name else None

    async def _import_alone(self, numbered: tuple[int, ImportRequest]) -> None:
        number, request = numbered
        self.tell(number, await settled(lambda: import_file(self.services, request, None, None)))
