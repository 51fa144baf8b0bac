"""How a keeper learns of deletions from those who remember them (`graves`)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from gossipcache.dht.records.graves import Graves
from gossipcache.dht.records.replication import ReplicationCore
from gossipcache.dht.records.standing import Standing, standing_tombstone
from gossipcache.dht.records.steps import Steps, Turn, ask, clock, persist, work
from gossipcache.dht.records.surroundings import Means, Surroundings
from gossipcache.dht.records.verdicts import Absorbed
from gossipcache.errors import GossipcacheError
from gossipcache.ids import NodeId, TaskId
from gossipcache.journal import Change
from gossipcache.messages.graves import (
    MAX_PROOFS_ASKED,
    AskGraves,
    AskProofs,
    GravesPage,
    ProofsPage,
)

_MAX_PAGES = 1024
_AT_ONCE = 4


class Recall:
    """Asks this node's own memory, and others, for deletions that its keeper has not heard of."""

    def __init__(
        self,
        means: Means,
        around: Surroundings,
        core: ReplicationCore,
        graves: Graves,
    ) -> None:
        self._config = means.config
        self._metrics = means.metrics
        self._opener = means.opener
        self._around = around
        self._core = core
        self._graves = graves
        self._turn = Turn(_AT_ONCE)
        self._asked: dict[NodeId, tuple[bytes, int]] = {}
        """On which ring, and at what sum of its graves, a node was last asked."""

    def own(self) -> Steps[None]:
        """Takes in what this node itself remembers, as a former holder."""
        lacking = self._lacking((yield from self._graves.of(self._core.me)))
        proofs = yield from self._graves.proofs(lacking)
        yield from self._take([standing_tombstone(proof) for proof in proofs], own_memory=True)

    def ask_once(self, node: NodeId, graves: int) -> Steps[None]:
        """Asks `node`, whose graves have this sum, unless it was asked then, on this ring."""
        epoch = self._core.ring.epoch
        if not self.has_asked(node, graves):
            yield from self.ask(node)
            self._asked[node] = (epoch, graves)

    def has_asked(self, node: NodeId, graves: int) -> bool:
        """Whether there is nothing left to ask `node` for."""
        return not graves or self._asked.get(node) == (self._core.ring.epoch, graves)

    def ask(self, node: NodeId) -> Steps[None]:
        """Takes in what `node` remembers. Raises `GossipcacheError` if it does not answer."""
        after = b""
        for _ in range(_MAX_PAGES):
            page = yield from ask(
                node, AskGraves(after=after), GravesPage, self._config.request_timeout_s
            )
            yield from self._fetch(
                node, self._lacking((TaskId(row.task_id), row.generation) for row in page.graves)
            )
            if not page.more or not page.graves or page.graves[-1].task_id <= after:
                return
            after = page.graves[-1].task_id

    def try_ask(self, node: NodeId) -> Steps[bool]:
        """The same, a few at a time; whether it answered."""
        try:
            yield from self._turn.take(self.ask(node))
        except GossipcacheError:
            self._metrics.count("record_recalls_failed")
            return False
        return True

    def _lacking(self, graves: Iterable[tuple[TaskId, int]]) -> list[TaskId]:
        return [task_id for task_id, dead in graves if self._core.lacks_deletion(task_id, dead)]

    def _fetch(self, node: NodeId, task_ids: list[TaskId]) -> Steps[None]:
        start = 0
        while start < len(task_ids):
            wanted = tuple(task_ids[start : start + MAX_PROOFS_ASKED])
            page = yield from ask(
                node, AskProofs(task_ids=wanted), ProofsPage, self._config.request_timeout_s
            )
            opened = yield from work(partial(self._opener.open_all, page.entries))
            self._count_void(node, len(page.entries) - len(opened))
            yield from self._take(opened)
            if page.done == 0:
                return
            start += page.done

    def _count_void(self, node: NodeId, count: int) -> None:
        if count:
            self._metrics.count("record_entries_invalid", count)
            self._around.on_void(node, count)

    def _take(self, tombstones: list[Standing], *, own_memory: bool = False) -> Steps[None]:
        moment = yield from clock()
        changes: list[Change] = []
        for standing in tombstones:
            if standing.tombstone is None:
                continue
            recalled = self._core.recall(standing, moment.wall_s, own_memory=own_memory)
            if isinstance(recalled, Absorbed) and recalled.changes:
                self._metrics.count("record_deletions_recalled")
                changes += recalled.changes
        yield from persist(changes)
