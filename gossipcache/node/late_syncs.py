"""Outputs that stand are made durable after their exports were answered."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from pathlib import PurePath

import trio

from gossipcache.env import Disk, Workers
from gossipcache.metrics import Metrics
from gossipcache.transfer.files.syncing import sync_outputs
from gossipcache.transfer.store.outputs import Outputs

MAX_WAITING = 10_000
"""Outputs beyond these are left to the system, which writes them out within a minute."""

TIDY_INTERVAL_S = 60.0
"""The system writes out by itself within half of this."""

_log = logging.getLogger(__name__)


class LateSyncs:
    """Syncs outputs in the background, one worker at a time: all that came meanwhile together."""

    def __init__(self, disk: Disk, workers: Workers, metrics: Metrics, outputs: Outputs) -> None:
        self._disk = disk
        self._workers = workers
        self._metrics = metrics
        self._outputs = outputs
        self._waiting: dict[PurePath, None] = {}
        self._news = trio.Event()

    def begin(self, paths: Iterable[PurePath]) -> None:
        """These outputs stand; returns at once."""
        self._waiting.update(dict.fromkeys(paths))
        while len(self._waiting) > MAX_WAITING:
            self._waiting.popitem()
            self._metrics.count("outputs_unsynced")
        self._news.set()

    async def run(self) -> None:
        """Syncs what there is until it is cancelled. What fails is logged: the user has an
        answer already."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            paths, self._waiting = list(self._waiting), {}
            failed = await self._workers.run(partial(sync_outputs, self._disk, paths))
            for error in failed:
                self._metrics.count("outputs_unsynced")
                _log.warning(
                    "an output may not survive a power cut", extra={"fields": {"cause": str(error)}}
                )

    async def tidy(self) -> None:
        """Has the folders of outputs forgotten until it is cancelled; see `Outputs`."""
        while True:
            await trio.sleep(TIDY_INTERVAL_S)
            if not self._outputs.is_empty:
                await self._workers.run(self._outputs.tidy)
