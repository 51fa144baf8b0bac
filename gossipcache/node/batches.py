"""Many small imports or exports in one go, with work for many where there was work for each.

What a single import or export promises holds for each one here, and each ends with a result or
an error of its own. Only the waits are shared: a round of files is read in one job, made durable
by a few syncs, and announced together. Whatever is not a small file that is new here (or, to
export, complete here) takes the ordinary way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from gossipcache.dht.records.service import Published
from gossipcache.errors import (
    Conflict,
    GossipcacheError,
    IntegrityError,
    NotReady,
    TaskNotFound,
    from_os_error,
)
from gossipcache.ids import TaskId
from gossipcache.manifest import SignedManifest, sign_manifest
from gossipcache.node.exporting import TOKEN_BYTES, export
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
from gossipcache.node.looking import find_local
from gossipcache.node.services import Services
from gossipcache.requests import ExportRequest, ImportRequest
from gossipcache.results import ExportResult, Outcome
from gossipcache.transfer.files.batch import Target, export_small
from gossipcache.transfer.files.ingest import followed, ingest_small
from gossipcache.transfer.store.index import StoredTask
from gossipcache.transfer.store.intake import Arrival
from gossipcache.transfer.store.staging import Staging

MAX_SMALL_BYTES = 2**20
ROUND = 128
"""Files that are read in one job and share their syncs."""
ROUNDS_AT_ONCE = 2
"""While one waits for the disk and the keepers, another reads."""
PUBLISHED_AT_ONCE = 32
SINGLES_AT_ONCE = 8

T = TypeVar("T")
Q = TypeVar("Q", ImportRequest, ExportRequest)
Tell = Callable[[int, Outcome], None]
"""Takes what came of the request of that number."""
Numbered = list[tuple[int, Q]]


async def import_files(services: Services, requests: Sequence[ImportRequest], tell: Tell) -> None:
    """Imports all; `tell` hears of each one when it stands as after `import`, or failed."""
    await _in_rounds(requests, lambda round_: _ImportRound(services, tell).run(round_))


async def export_files(services: Services, requests: Sequence[ExportRequest], tell: Tell) -> None:
    """Exports all; `tell` hears of each one when its output stands, durable, or it failed."""
    await _in_rounds(requests, lambda round_: _export_round(services, round_, tell))


async def _in_rounds(requests: Sequence[Q], run: Callable[[Numbered[Q]], Awaitable[None]]) -> None:
    numbered = list(enumerate(requests))
    rounds = [numbered[at : at + ROUND] for at in range(0, len(numbered), ROUND)]
    await _each(rounds, run, at_once=ROUNDS_AT_ONCE)


async def _each(items: Iterable[T], run: Callable[[T], Awaitable[None]], *, at_once: int) -> None:
    waiting: Iterator[T] = iter(items)

    async def some() -> None:
        for item in waiting:
            await run(item)

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(some)


async def _settled(work: Callable[[], Awaitable[T]]) -> T | GossipcacheError:
    """What `work` comes to, be it an error."""
    try:
        return await work()
    except GossipcacheError as error:
        return error
    except OSError as error:
        return from_os_error(error)


@dataclass(frozen=True)
class _Staged:
    """A small file that was read, with the manifest that it is to have."""

    number: int
    request: ImportRequest
    content: Content
    mine: SignedManifest
    arrival: Arrival


@dataclass
class _ImportRound:
    services: Services
    tell: Tell
    stagings: list[Staging] = field(default_factory=list)
    staged: dict[TaskId, _Staged] = field(default_factory=dict)
    others: Numbered[ImportRequest] = field(default_factory=list)
    """What goes the ordinary way."""
    failed: list[tuple[int, GossipcacheError]] = field(default_factory=list)

    async def run(self, requests: Numbered[ImportRequest]) -> None:
        run = self.services.env.workers.run
        started = trio.current_time()
        try:
            await self.services.run_abandonable(lambda check: self._stage(requests, check))
            arrivals = [staged.arrival for staged in self.staged.values()]
            adopted = await _settled(lambda: run(lambda: self.services.store.adopt_new(arrivals)))
        finally:
            with trio.CancelScope(shield=True):
                await run(self._discard)
        for number, error in self.failed:
            self.tell(number, error)
        taken = self._taken(adopted)
        await self._publish(taken, started)
        await _each(self.others, self._import_alone, at_once=SINGLES_AT_ONCE)

    def _discard(self) -> None:
        for staging in self.stagings:
            staging.discard()

    def _stage(self, requests: Numbered[ImportRequest], check: Callable[[], None]) -> None:
        for number, request in requests:
            check()
            try:
                if not self._staged(number, request):
                    self.others.append((number, request))
            except GossipcacheError as error:
                self.failed.append((number, error))
            except OSError as error:
                self.failed.append((number, from_os_error(error)))

    def _staged(self, number: int, request: ImportRequest) -> bool:
        services = self.services
        if request.path is None or request.link or request.replicas > 1 or request.timeout_s:
            return False
        stamp = services.env.disk.stamp(followed(services.env.disk, request.path))
        if stamp is None or stamp.kind != "file" or stamp.size > MAX_SMALL_BYTES:
            return False
        staging = services.store.stage()
        self.stagings.append(staging)
        ingested = ingest_small(
            services.env.disk,
            staging,
            request.path,
            piece_size=piece_size(services, stamp.size),
            want_sha256=request.cid is None or request.cid.startswith("sha256:"),
        )
        content = named(services, request, ingested)
        task_id = content.task_id
        if task_id in self.staged or services.store.find(task_id) is not None:
            return False
        mine = self._signed(content, 1)
        arrival = Arrival(staging, mine, ingested.tree, request.pin)
        self.staged[task_id] = _Staged(number, request, content, mine, arrival)
        return True

    def _signed(self, content: Content, generation: int) -> SignedManifest:
        cluster_id = self.services.cluster.cluster_id
        return sign_manifest(content.manifest(cluster_id, generation), self.services.identity)

    def _taken(self, adopted: list[Arrival] | GossipcacheError) -> list[_Staged]:
        if isinstance(adopted, GossipcacheError):
            for staged in self.staged.values():
                self.tell(staged.number, adopted)
            return []
        taken = {arrival.signed.task_id for arrival in adopted}
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
            published = await _settled(lambda: self._published(staged))
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
            await _each(singly, publish, at_once=PUBLISHED_AT_ONCE)
            ids = [staged.content.task_id for staged, _ in standing]
            if ids:
                await services.env.workers.run(lambda: services.store.mark_all_published(ids))
            open_ones.clear()
        finally:
            services.unsettled.update(dict.fromkeys(open_ones))
        for task_id in ids:
            announce(services, task_id)
        for staged, published in standing:
            task_id = staged.content.task_id
            told = await _settled(
                lambda task_id=task_id: services.announcer.flush(task_id, ANNOUNCE_TIMEOUT_S)  # type: ignore[misc]
            )
            if isinstance(told, GossipcacheError):
                self.tell(staged.number, told)
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
        self.tell(number, await _settled(lambda: import_file(self.services, request, None, None)))


async def _export_round(services: Services, requests: Numbered[ExportRequest], tell: Tell) -> None:
    started = trio.current_time()
    targets: dict[int, Target] = {}
    others: Numbered[ExportRequest] = []
    by_number = dict(requests)
    for number, request in requests:
        stored = find_local(services, request.task)
        if stored is None or not _is_at_hand(services, request, stored):
            others.append((number, request))
            continue
        token = services.env.entropy(TOKEN_BYTES).hex()
        targets[number] = Target(
            stored, request.path, token=token, umask=request.umask, overwrite=request.overwrite
        )
    failed = await services.run_abandonable(
        lambda check: export_small(services.env.disk, services.store, targets, check)
    )
    for number, target in targets.items():
        error = failed.get(number)
        if error is None:
            tell(number, _exported(services, target, started))
        elif isinstance(error, IntegrityError | TaskNotFound):
            others.append((number, by_number[number]))
        else:
            tell(number, error)

    async def alone(numbered: tuple[int, ExportRequest]) -> None:
        number, request = numbered
        tell(number, await _settled(lambda: export(services, request, None)))

    await _each(others, alone, at_once=SINGLES_AT_ONCE)


def _is_at_hand(services: Services, request: ExportRequest, stored: StoredTask) -> bool:
    """Whether the whole file is here, small, and not deleted as far as the keepers told."""
    return (
        stored.complete
        and not stored.suspect
        and stored.size <= MAX_SMALL_BYTES
        and stored.signed.manifest.kind == "file"
        and not request.link
        and (request.local or services.announcer.is_taken(stored.task_id))
    )


def _exported(services: Services, target: Target, started: float) -> ExportResult:
    stored = target.stored
    services.store.touch(stored.task_id, services.env.wall_time())
    return ExportResult(
        sources=(),
        path=str(target.path),
        size=stored.size,
        seconds=trio.current_time() - started,
        bytes_by_source={},
        resumed_bytes=stored.size,
        digest=stored.signed.manifest.digest,
    )
