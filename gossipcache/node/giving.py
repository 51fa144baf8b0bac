"""Small content in a holder's first reply."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from gossipcache.env import Workers
from gossipcache.errors import GossipcacheError
from gossipcache.ids import NodeId, TaskId
from gossipcache.link.interface import Peer
from gossipcache.messages.batches import MAX_CONTENT_BYTES, Content, Contents, GetContents
from gossipcache.metrics import Metrics
from gossipcache.transfer.limits import TransferLimits
from gossipcache.transfer.store.index import StoredTask
from gossipcache.transfer.store.store import Store

NameHolders = Callable[[TaskId, NodeId], tuple[NodeId, ...]]
"""Some nodes that have all of a task, for that asker, as far as this node keeps its record."""
_NOTHING_BYTES = 80
"""What an answer without content takes of a message, at most."""


class ContentServer:
    """Answers `GetContents` from the store."""

    def __init__(
        self,
        workers: Workers,
        store: Store,
        metrics: Metrics,
        limits: TransferLimits,
        name_holders: NameHolders,
    ) -> None:
        self._workers = workers
        self._store = store
        self._metrics = metrics
        self._limits = limits
        self._name_holders = name_holders

    async def answer(self, peer: Peer, message: GetContents) -> Contents:
        """Sends what is here, as the limits of uploads allow."""
        wanted = self._fitting([TaskId(task_id) for task_id in message.task_ids])
        stored = [one for one in wanted.values() if one is not None]
        found: dict[TaskId, bytes] = {}
        if stored:
            async with self._limits.slot(peer.node_id):
                for one in stored:
                    pace = self._limits.upload.pace(one.task_id)
                    if pace.is_limited:
                        await self._limits.pay(pace, one.size)
                found = await self._workers.run(lambda: self._read(stored))
            self._metrics.count("contents_sent", len(found))
            self._metrics.count("content_bytes_sent", sum(map(len, found.values())))
        return Contents(
            contents=tuple(
                self._content(peer.node_id, task_id, one, found.get(task_id))
                for task_id, one in wanted.items()
            )
        )

    def _fitting(self, task_ids: list[TaskId]) -> dict[TaskId, StoredTask | None]:
        """The first tasks, as many as one answer takes, with what is here of them."""
        wanted: dict[TaskId, StoredTask | None] = {}
        left_bytes = MAX_CONTENT_BYTES
        for task_id in task_ids:
            stored = self._store.find(task_id)
            if stored is not None and not _is_to_give(stored):
                stored = None
            left_bytes -= _NOTHING_BYTES if stored is None else stored.size + _NOTHING_BYTES
            if wanted and left_bytes < 0:
                break
            wanted[task_id] = stored
        return wanted

    def _read(self, stored: list[StoredTask]) -> dict[TaskId, bytes]:
        found: dict[TaskId, bytes] = {}
        with closing(self._store.open_packs()) as packs:
            for one in stored:
                try:
                    with self._store.using(one.task_id):
                        found[one.task_id] = self._store.read_whole(one.task_id, packs)
                except (GossipcacheError, OSError):
                    self._metrics.count("piece_read_errors")
        return found

    def _content(
        self, asker: NodeId, task_id: TaskId, stored: StoredTask | None, data: bytes | None
    ) -> Content:
        if stored is not None and data is not None:
            return Content(stored.manifest_name, data, ())
        return Content(None, None, self._name_holders(task_id, asker))


def _is_to_give(stored: StoredTask) -> bool:
    return (
        stored.complete
        and stored.published
        and not stored.suspect
        and stored.size <= MAX_CONTENT_BYTES
    )
