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

CONTENT_TIMEOUT_S = 2.0
LATE_S = 0.1
"""After this long without news somebody else is asked as well."""
MAX_ASKED = 4
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
        """What has not been offered yet."""
        self._offers: dict[TaskId, tuple[NodeId, Content]] = {}
        self._asked: dict[TaskId, list[NodeId]] = {task_id: [] for task_id in self._wanted}
        self._named: dict[TaskId, tuple[NodeId, ...]] = {}
        self._awaited: dict[TaskId, NodeId] = {}
        """Whose answer is waited for before somebody else is asked."""
        self._open: dict[TaskId, None] = dict.fromkeys(self._wanted)
        """Those for which somebody may be asked by now."""
        self._running = 0
        self._news = trio.Event()
        self.over = trio.Event()
        """Set when all came, or nobody is left to ask."""

    async def ask(self) -> None:
        """First a keeper of each task, then whom it named; another one where one is late."""
        async with trio.open_nursery() as nursery:
            while self._wanted:
                self._news = trio.Event()
                for node, task_ids in self._next().items():
                    self._running += 1
                    nursery.start_soon(self._ask_one, node, task_ids)
                if not self._running:
                    break
                with trio.move_on_after(LATE_S) as waiting:
                    await self._news.wait()
                if waiting.cancelled_caught:
                    self._open.update(dict.fromkeys(self._awaited))
                    self._awaited.clear()
            nursery.cancel_scope.cancel()
        self.over.set()

    def _next(self) -> dict[NodeId, list[TaskId]]:
        by_node: dict[NodeId, list[TaskId]] = {}
        free, self._open = self._open, {}
        for task_id in free:
            if task_id not in self._wanted or task_id in self._awaited:
                continue
            if (node := self._next_for(task_id)) is not None:
                self._asked[task_id].append(node)
                self._awaited[task_id] = node
                by_node.setdefault(node, []).append(task_id)
        return by_node

    def _next_for(self, task_id: TaskId) -> NodeId | None:
        """Itself if it is a keeper: it may know who holds the task. Then the holders that were
        named, those in the own zone first, and while there are none the other keepers."""
        services, asked = self._services, self._asked[task_id]
        is_alive, me = services.membership.is_alive, services.me
        if len(asked) > MAX_ASKED:
            return None
        keepers = services.keepers(task_id)
        if not asked and me in keepers:
            return me
        zone_of, zone = services.membership.zone_of, services.config.zone
        named = sorted(self._named.get(task_id, ()), key=lambda node: zone_of(node) != zone)
        left = [
            node
            for node in (named or keepers)
            if node not in asked and node != me and is_alive(node)
        ]
        return next(iter(left), None)

    async def _ask_one(self, node: NodeId, task_ids: list[TaskId]) -> None:
        left = deque(task_ids)
        try:
            while left and await self._ask_some(node, left):
                self._news.set()
        finally:
            self._running -= 1
            for task_id in left:
                self._answered(task_id, node)
            self._news.set()

    async def _ask_some(self, node: NodeId, left: deque[TaskId]) -> bool:
        """Takes the tasks that an answer is about off `left`; whether there were any."""
        message = GetContents(task_ids=tuple(islice(left, MAX_ENTRIES)))
        links = self._services.links
        try:
            answer = await links.request(node, message, Contents, CONTENT_TIMEOUT_S)
        except GossipcacheError:
            return False
        for content in answer.contents[: len(message.task_ids)]:
            task_id = left.popleft()
            self._answered(task_id, node)
            if content.data is not None:
                self._offers[task_id] = (node, content)
                self._wanted.pop(task_id, None)
                await self._pay(task_id, len(content.data))
            elif content.holders:
                self._named[task_id] = tuple(NodeId(one) for one in content.holders)
        return bool(answer.contents)

    def _answered(self, task_id: TaskId, node: NodeId) -> None:
        if self._awaited.get(task_id) == node:
            del self._awaited[task_id]
        self._open[task_id] = None

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
    packing = services.store.pack()
    try:
        for one in found:
            if services.store.find(one.signed.task_id) is None:
                packing.add(one.signed, one.tree, one.data, published=True)
        return packing.adopt()
    finally:
        packing.discard()
