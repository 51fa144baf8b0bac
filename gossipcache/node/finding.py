"""Small content by one question: asked of a keeper or holder while the record is being read.

Who holds a task answers with its content; a keeper that does not hold it names some who do, and
they are asked next. Nothing of an answer counts before it has been proven by the manifest that
the record's keepers gave. Whatever does not come so is downloaded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

import trio

from gossipcache.errors import GossipcacheError
from gossipcache.ids import NodeId, TaskId, task_id_of
from gossipcache.manifest import SignedManifest
from gossipcache.messages.batches import MAX_CONTENT_BYTES, Content, Contents, GetContents
from gossipcache.messages.records import MAX_ENTRIES
from gossipcache.node.beside import beside
from gossipcache.node.evicting import make_room
from gossipcache.node.fetching import announce
from gossipcache.node.looking import find_manifest
from gossipcache.node.services import Services
from gossipcache.requests import TaskQuery
from gossipcache.transfer.contents import proven_tree
from gossipcache.transfer.digest_tree import DigestTree
from gossipcache.transfer.store.intake import Arrival
from gossipcache.transfer.store.staging import Staging

CONTENT_TIMEOUT_S = 2.0
CONTENT_WAIT_S = 0.5
"""How long a known manifest waits for its content before it is downloaded instead."""


@dataclass(frozen=True, slots=True)
class Small:
    """The whole content of a task, proven by its manifest."""

    signed: SignedManifest
    data: bytes
    tree: DigestTree
    source: NodeId


class Question:
    """Asks for the content of some tasks, and takes what is offered."""

    def __init__(self, services: Services, task_ids: Iterable[TaskId]) -> None:
        self._services = services
        self._wanted = dict.fromkeys(task_ids)
        self._offers: dict[TaskId, tuple[NodeId, Content]] = {}
        self._asked: dict[TaskId, set[NodeId]] = {task_id: set() for task_id in self._wanted}
        self._named: dict[TaskId, tuple[NodeId, ...]] = {}
        self.over = trio.Event()
        """Set when nobody is left to ask."""

    async def ask(self) -> None:
        """First a keeper of each task, then who it named."""
        try:
            while by_node := self._next():
                async with trio.open_nursery() as nursery:
                    for node, task_ids in by_node.items():
                        nursery.start_soon(self._ask_one, node, task_ids)
        finally:
            self.over.set()

    def _next(self) -> dict[NodeId, list[TaskId]]:
        by_node: dict[NodeId, list[TaskId]] = {}
        for task_id in self._wanted:
            node = None if task_id in self._offers else self._next_for(task_id)
            if node is not None:
                self._asked[task_id].add(node)
                by_node.setdefault(node, []).append(task_id)
        return by_node

    def _next_for(self, task_id: TaskId) -> NodeId | None:
        """Itself if it is a keeper: it may know who holds the task. Else the first of them, then
        a holder that was named, in the own zone if there is one."""
        services, asked = self._services, self._asked[task_id]
        is_alive, me = services.membership.is_alive, services.me
        if not asked:
            keepers = services.keepers(task_id)
            alive = [node for node in keepers if node != me and is_alive(node)]
            return me if me in keepers else next(iter(alive), None)
        named = [
            node
            for node in self._named.get(task_id, ())
            if node not in asked and node != me and is_alive(node)
        ]
        zone_of, zone = services.membership.zone_of, services.config.zone
        return min(named, key=lambda node: zone_of(node) != zone, default=None)

    async def _ask_one(self, node: NodeId, task_ids: list[TaskId]) -> None:
        left = deque(task_ids)
        while left:
            asked = tuple(islice(left, MAX_ENTRIES))
            try:
                answer = await self._services.links.request(
                    node, GetContents(task_ids=asked), Contents, CONTENT_TIMEOUT_S
                )
            except GossipcacheError:
                return
            if not answer.contents:
                return
            for content in answer.contents[: len(asked)]:
                task_id = left.popleft()
                if content.data is not None:
                    self._offers[task_id] = (node, content)
                    await self._pay(task_id, len(content.data))
                else:
                    self._named[task_id] = tuple(NodeId(one) for one in content.holders)

    async def _pay(self, task_id: TaskId, size_bytes: int) -> None:
        limits = self._services.limits
        pace = limits.download.pace(task_id)
        if pace.is_limited:
            await limits.pay(pace, size_bytes)

    def proven(self, signed: SignedManifest) -> Small | None:
        """What was offered for the task, if it is the content that `signed` names."""
        source, content = self._offers.pop(signed.task_id, (None, None))
        if source is None or content is None or content.data is None:
            return None
        if content.manifest_name != signed.name:
            return None
        metrics = self._services.metrics
        tree = proven_tree(signed, content.data)
        if tree is None:
            metrics.count("contents_bad")
            return None
        metrics.count("contents_received")
        metrics.count("content_bytes_received", len(content.data))
        return Small(signed, content.data, tree, source)


def may_be_small(signed: SignedManifest) -> bool:
    """Whether the content travels in a reply."""
    return signed.manifest.kind == "file" and signed.manifest.size <= MAX_CONTENT_BYTES


async def find_many(services: Services, task_ids: list[TaskId]) -> dict[TaskId, Small]:
    """The tasks whose record and content came by the first questions; not kept yet."""
    question = Question(services, task_ids)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(question.ask)
        records = await services.records.read_many(task_ids)
    found: dict[TaskId, Small] = {}
    for task_id, record in records.items():
        signed = None if record is None else record.manifest
        if signed is not None and may_be_small(signed):
            small = question.proven(signed)
            if small is not None:
                found[task_id] = small
    return found


async def find_one(
    services: Services, query: TaskQuery, timeout_s: float
) -> tuple[SignedManifest, Small | None]:
    """A task's manifest, and its content if it is small and came by the first questions.

    Raises as `find_manifest`.
    """
    question = Question(services, (task_id_of(query.cid, query.tag),))

    async def find() -> SignedManifest:
        signed = await find_manifest(services, query, timeout_s)
        if may_be_small(signed):
            with trio.move_on_after(CONTENT_WAIT_S):
                await question.over.wait()
        return signed

    signed = await beside(question.ask, find)
    return signed, question.proven(signed) if may_be_small(signed) else None


async def keep(services: Services, found: Mapping[TaskId, Small]) -> dict[TaskId, Small]:
    """Takes what was found into the store, durably, and announces it; what is here then.

    Not among it: what is being downloaded, or is known to be deleted. Raises `NoSpace`.
    """
    await make_room(services, sum(len(one.data) for one in found.values()))
    kept = await services.env.workers.run(lambda: _adopted(services, found.values()))
    for task_id in kept:
        announce(services, task_id)
    return {task_id: found[task_id] for task_id in kept}


def _adopted(services: Services, found: Iterable[Small]) -> list[TaskId]:
    store = services.store
    stagings: list[Staging] = []
    try:
        arrivals: list[Arrival] = []
        for one in found:
            if store.find(one.signed.task_id) is None:
                staging = store.stage()
                stagings.append(staging)
                staging.put(one.data)
                arrivals.append(Arrival(staging, one.signed, one.tree, published=True))
        return [one.signed.task_id for one in store.adopt_new(arrivals)]
    finally:
        for staging in stagings:
            staging.discard()
