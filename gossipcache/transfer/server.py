"""The parent's end of a piece channel."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import trio

from gossipcache.config import TransferConfig
from gossipcache.env import Env
from gossipcache.errors import IntegrityError, NodeUnreachable, ProtocolError, TaskNotFound
from gossipcache.ids import NodeId, TaskId
from gossipcache.link.interface import PieceChannel
from gossipcache.messages.pieces import OpenTask, TaskRefused
from gossipcache.metrics import Metrics
from gossipcache.transfer.limits import TransferLimits
from gossipcache.transfer.store.arrivals import Arrivals
from gossipcache.transfer.store.store import Store
from gossipcache.transfer.upload import Offers, OpenedTask, Upload

OPEN_TIMEOUT_S = 10.0
"""A channel on which no task is opened by then is closed."""
MAX_CHANNELS = 1024
"""Served at once: it bounds the line of those who wait for a piece, and with it the memory. The
children of further ones are told when to come back."""
FAIR_CHANNELS = 2
"""What each child may keep, however many others come."""
RETRY_AFTER_S = (1.0, 60.0)
"""When they are, at the earliest and at the latest; else as long as the line is."""


class PieceServer:
    """Serves any number of channels; as many pieces as the limits say are sent at once, and the
    children take turns. Memory per channel is bounded by the protocol's
    limits, and pieces go from the file to the connection without being held here."""

    def __init__(
        self,
        me: NodeId,
        env: Env,
        config: TransferConfig,
        store: Store,
        metrics: Metrics,
        arrivals: Arrivals,
        limits: TransferLimits,
    ) -> None:
        """`arrivals`: that of this node's `Downloader`, so that what comes in is served at once."""
        self._me = me
        self._env = env
        self._config = config
        self._store = store
        self._metrics = metrics
        self._arrivals = arrivals
        self._limits = limits
        self._offers: dict[bytes, Offers] = {}
        """By manifest, of complete tasks that somebody follows."""
        self._served: dict[NodeId, dict[trio.CancelScope, None]] = {}
        """The channels of each child, oldest first."""

    async def serve(self, channel: PieceChannel) -> None:
        """Serves one channel until it ends; a child outside the protocol is cut off."""
        self._metrics.count("piece_channels")
        try:
            await self._admit(channel)
        except* ProtocolError:
            self._metrics.count("piece_protocol_errors")
        except* (trio.EndOfChannel, NodeUnreachable):
            pass
        except* (OSError, IntegrityError):
            self._metrics.count("piece_read_errors")
        finally:
            with trio.move_on_after(1.0, shield=True):
                await channel.aclose()

    async def _admit(self, channel: PieceChannel) -> None:
        child = channel.peer.node_id
        if sum(map(len, self._served.values())) >= MAX_CHANNELS and not self._make_room(child):
            await self._send_away(channel)
            return
        with trio.CancelScope() as scope:
            self._served.setdefault(child, {})[scope] = None
            try:
                await self._serve(channel)
            finally:
                self._forget(child, scope)

    def _make_room(self, child: NodeId) -> bool:
        """Ends the oldest channel of the child that has most, if that is many: else a few nodes
        could keep everybody else away, by channels on which they ask for nothing."""
        greedy = max(self._served, key=lambda node: len(self._served[node]))
        if len(self._served[greedy]) <= max(FAIR_CHANNELS, len(self._served.get(child, ())) + 1):
            return False
        oldest = next(iter(self._served[greedy]))
        self._forget(greedy, oldest)
        oldest.cancel()
        self._metrics.count("piece_channels_displaced")
        return True

    def _forget(self, child: NodeId, scope: trio.CancelScope) -> None:
        channels = self._served.get(child, {})
        channels.pop(scope, None)
        if not channels:
            self._served.pop(child, None)

    async def _send_away(self, channel: PieceChannel) -> None:
        await _open_request(channel)
        self._metrics.count("piece_channels_refused")
        shortest_s, longest_s = RETRY_AFTER_S
        wait_s = min(longest_s, max(shortest_s, self._limits.slots.line_s(trio.current_time())))
        await channel.send(TaskRefused(code="busy", retry_after_ms=math.ceil(1000 * wait_s)))

    async def _serve(self, channel: PieceChannel) -> None:
        request = await _open_request(channel)
        task_id = TaskId(request.task_id)
        with ExitStack() as stack:
            opened = await self._open(request, stack)
            if opened is None:
                self._metrics.count("piece_tasks_refused")
                await channel.send(TaskRefused(code="not_found"))
                return
            self._store.touch(task_id, self._env.wall_time())
            offers = stack.enter_context(self._offered(opened, channel.peer.node_id, request))
            upload = Upload(
                channel,
                opened,
                offers,
                self._env.workers,
                self._config,
                self._limits,
                self._metrics,
            )
            await upload.run(follow=request.follow)

    @contextmanager
    def _offered(
        self, task: OpenedTask, child: NodeId, request: OpenTask
    ) -> Iterator[Offers | None]:
        """How the pieces of a complete task are offered to a child that follows; None to others."""
        stored, name = task.stored(), request.manifest_name
        if stored is None or not stored.have.complete or not task.manifest.piece_count:
            yield None
            return
        if not request.follow:
            offers = self._offers.get(name)
            yield offers if offers is not None and offers.core.follows(child) else None
            return
        total = task.manifest.piece_count
        # From the publisher in order: a lone child can hash the whole as it comes.
        is_publisher = stored.signed.publisher == self._me
        start = 0 if is_publisher else self._env.rng.randrange(total)
        offers = self._offers.setdefault(name, Offers(total, start))
        offers.core.join(child)
        try:
            yield offers
        finally:
            offers.core.leave(child)
            if offers.core.is_idle:
                self._offers.pop(name, None)

    async def _open(self, request: OpenTask, stack: ExitStack) -> OpenedTask | None:
        task_id = TaskId(request.task_id)
        stored = self._store.find(task_id)
        if stored is None or stored.manifest_name != request.manifest_name:
            return None
        stack.enter_context(self._store.using(task_id))
        try:
            tree, file = await self._env.workers.run(
                lambda: (self._store.tree(task_id), self._store.open_data(task_id))
            )
        except (TaskNotFound, IntegrityError):
            return None
        stack.callback(file.close)
        manifest, name = stored.signed.manifest, stored.manifest_name
        return OpenedTask(self._store, self._arrivals, manifest, name, tree, file)


async def _open_request(channel: PieceChannel) -> OpenTask:
    with trio.move_on_after(OPEN_TIMEOUT_S):
        message = await channel.receive()
        if not isinstance(message, OpenTask):
            raise ProtocolError("a piece channel that does not begin with OpenTask")
        return message
    raise trio.EndOfChannel
