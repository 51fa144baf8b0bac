"""What a node's transfers may take: rates up and down, and uploads at once. All of it may be
changed while they run; control messages go by other connections and never wait here."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from gossipcache.config import TransferConfig
from gossipcache.ids import NodeId, TaskId
from gossipcache.pacing import Direction, Pace
from gossipcache.requests import LimitsChange, TaskLimitsChange
from gossipcache.transfer.promise import Promise
from gossipcache.transfer.slots import UploadSlots

Tell = Callable[[float], Awaitable[None]]
"""Tells a child that its turn comes in so many seconds; 0.0: that it has come."""


class TransferLimits:
    """The limits of one node, shared by its `PieceServer` and its `Downloader`."""

    def __init__(self, config: TransferConfig) -> None:
        self.upload = Direction(config.upload_rate, config.task_upload_rate)
        self.download = Direction(config.download_rate, config.task_download_rate)
        self.slots: UploadSlots[trio.Event] = UploadSlots(config.max_uploads)
        self._changed = trio.Event()

    async def wait_change(self) -> None:
        """Returns when a limit has changed."""
        await self._changed.wait()

    def change(self, wanted: LimitsChange) -> None:
        """New limits for the node, from now on; what `wanted` leaves out stays."""
        now = trio.current_time()
        for rate, setter in (
            (wanted.upload_rate, self.upload.set_rate),
            (wanted.download_rate, self.download.set_rate),
            (wanted.task_upload_rate, self.upload.set_default),
            (wanted.task_download_rate, self.download.set_default),
        ):
            if rate is not None:
                setter(rate or None, now)
        if wanted.max_uploads is not None:
            self.slots.total = wanted.max_uploads
        self._has_changed()

    def change_task(self, task_id: TaskId, wanted: TaskLimitsChange) -> None:
        """New limits for one task, from now on."""
        now = trio.current_time()
        for direction, rate in (
            (self.upload, wanted.upload_rate),
            (self.download, wanted.download_rate),
        ):
            if wanted.reset:
                direction.forget_task_rate(task_id, now)
            if rate is not None:
                direction.set_task_rate(task_id, rate or None, now)
        self._has_changed()

    def _has_changed(self) -> None:
        self._grant()
        self._changed.set()
        self._changed = trio.Event()

    async def pay(self, pace: Pace, size_bytes: int) -> None:
        """Takes `size_bytes` and returns when they are paid for."""
        pace.take(size_bytes, trio.current_time())
        while (paid_at := pace.paid_at()) > trio.current_time():
            with trio.move_on_at(paid_at):
                await self.wait_change()

    @asynccontextmanager
    async def slot(self, child: NodeId, tell: Tell | None = None) -> AsyncIterator[None]:
        """One of the uploads at once, for a piece to `child`; waits until it is its turn. `tell` is
        called with how long that is likely to take, and with 0.0 when it has come after that."""
        turn = trio.Event()
        self.slots.ask(child, turn)
        self._grant()
        try:
            if not turn.is_set():
                await self._wait_turn(child, turn, tell)
            yield
        finally:
            self.slots.end(child, turn, trio.current_time())
            self._grant()

    async def _wait_turn(self, child: NodeId, turn: trio.Event, tell: Tell | None) -> None:
        promise = Promise(trio.current_time())
        while not turn.is_set():
            now = trio.current_time()
            if tell is not None and now >= promise.look_at:
                wait_s = self.slots.wait_s(child, turn, now)
                if promise.look(wait_s, now):
                    await tell(wait_s)
            due = self.slots.next_timeout(now)
            looks_at = math.inf if tell is None else promise.look_at
            with trio.move_on_at(min(looks_at, math.inf if due is None else due)):
                await turn.wait()
            self._grant()
        if tell is not None and promise.is_made:
            await tell(0.0)

    def _grant(self) -> None:
        for turn in self.slots.grant(trio.current_time()):
            turn.set()
