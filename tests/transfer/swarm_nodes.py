"""Nodes that consist of a store, a piece server and a downloader, joined by fake channels."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import PurePath
from typing import TypeVar, cast

import trio

from gossipcache.config import TransferConfig
from gossipcache.env import Env, Network
from gossipcache.errors import TaskNotFound
from gossipcache.ids import NodeId
from gossipcache.link.interface import Links
from gossipcache.manifest import SignedManifest
from gossipcache.metrics import Metrics
from gossipcache.swarm import NO_BORDER, Border, PieceReport, Swarm
from gossipcache.transfer.download.client import Downloader
from gossipcache.transfer.limits import TransferLimits
from gossipcache.transfer.server import PieceServer
from sim.storage.disk import SimDisk
from tests.fakes.channels import ChannelBoard, ChannelLinks, Wire
from tests.fakes.workers import InlineWorkers
from tests.transfer.samples import Shop

R = TypeVar("R")


class SwarmNode:
    """One node; `name` is one letter."""

    def __init__(
        self,
        board: ChannelBoard,
        name: str,
        config: TransferConfig | None = None,
        *,
        node_id: NodeId | None = None,
    ) -> None:
        self.node_id = node_id or NodeId(name.encode() * 16)
        self.shop = Shop(SimDisk(), PurePath("/home"))
        self.store = self.shop.store
        self.metrics = Metrics()
        self.config = TransferConfig()
        self.limits = TransferLimits(self.config)
        env = Env(
            network=cast(Network, None),
            disk=self.shop.disk,
            workers=InlineWorkers(),
            wall_time=lambda: self.shop.now,
            entropy=random.Random(1).randbytes,
            rng=random.Random(2),
        )
        links = cast(Links, ChannelLinks(board, self.node_id))
        self.downloader = Downloader(env, self.config, links, self.store, self.metrics, self.limits)
        self.server = PieceServer(
            self.node_id,
            env,
            self.config,
            self.store,
            self.metrics,
            self.downloader.arrivals,
            self.limits,
        )
        self._board = board

    def serve(self, wire: Wire | None = None) -> Wire:
        """Answers piece channels from now on."""
        return self._board.serve(self.node_id, self.server.serve, wire)


class FakeSwarm:
    """Implements `Swarm`: says what a test tells it to say."""

    def __init__(self, *parents: NodeId) -> None:
        self._send, self._receive = trio.open_memory_channel[tuple[NodeId, ...]](16)
        self.failures: list[tuple[NodeId, str]] = []
        self.reported: list[int] = []
        self.reports: list[PieceReport] = []
        self._send.send_nowait(parents)

    def assign(self, *parents: NodeId) -> None:
        self._send.send_nowait(parents)

    def delete(self) -> None:
        """The task has been deleted."""
        self._send.close()

    async def parents(self) -> tuple[NodeId, ...]:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise TaskNotFound("the task was deleted") from None

    @property
    def border(self) -> Border:
        return NO_BORDER

    def report(self, have: Collection[int], reports: tuple[PieceReport, ...]) -> None:
        self.reported.extend(have)
        self.reports.extend(reports)

    def failed(self, parent: NodeId, reason: str) -> None:
        self.failures.append((parent, reason))

    @asynccontextmanager
    async def session(
        self, _signed: SignedManifest, _have: Collection[int]
    ) -> AsyncIterator[Swarm]:
        """This swarm as what `Downloads` opens."""
        yield self
