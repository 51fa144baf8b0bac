"""The pieces of a whole bare world: who has them, how they spread, and what must hold of that."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from gossipcache.config import ScheduleConfig, TransferConfig
from gossipcache.ids import NodeId, TaskId
from gossipcache.manifest import SignedManifest
from gossipcache.schedule.announcement import Held
from gossipcache.schedule.task import RecordView
from gossipcache.transfer.download.buffers import LIMIT_BYTES, MAX_PIECES_AT_ONCE
from sim.bare.bulk import BulkHost, BulkNetwork
from sim.bare.download import BareDownload
from sim.bare.library import Library
from sim.bare.process import Process
from sim.bare.scheduling import BareScheduling
from sim.bare.serving import BareServer, Shelf, content_of
from sim.bare.world import BareWorld
from sim.kernel.entropy import WALL_EPOCH_S


@dataclass(frozen=True, slots=True)
class Rates:
    """Of a machine's link, in bytes a second."""

    up_bytes_s: float
    down_bytes_s: float


@dataclass(eq=False, slots=True)
class _Peer:
    server: BareServer
    scheduling: BareScheduling


class Distribution:
    """Every node that runs or starts from now on serves pieces, and can download."""

    def __init__(
        self,
        world: BareWorld,
        library: Library,
        rates: Rates,
        *,
        slower: Mapping[str, Rates] | None = None,
        transfer: TransferConfig | None = None,
        schedule: ScheduleConfig | None = None,
    ) -> None:
        """`slower`: machines whose rates are others."""
        self._world = world
        self._library = library
        self._rates = rates
        self._others = slower or {}
        self._transfer = transfer or TransferConfig()
        self._schedule = schedule or ScheduleConfig()
        self.network = BulkNetwork(world.timeline, world.trace, world.network.profile.latency_s)
        self._peers: dict[str, _Peer] = {}
        self.finished_at: dict[str, float] = {}
        """When each download was complete."""
        self._downloads: dict[str, BareDownload] = {}
        for name in world.up():
            self._take_part(name)
        world.on_start.append(self._take_part)

    def seed(self, name: str, signed: SignedManifest) -> None:
        """A node has all of a task, and announces it."""
        peer = self._peers[name]
        peer.server.shelf(signed).fill()
        total = signed.manifest.piece_count
        peer.scheduling.hold(Held(signed.task_id, signed.name, total, total))

    def download(self, name: str, signed: SignedManifest) -> None:
        """A node begins to fetch a task."""
        peer = self._peers[name]
        machine = self._world.machines[name]
        budget = min(MAX_PIECES_AT_ONCE, LIMIT_BYTES // signed.manifest.piece_size)
        self._downloads[name] = download = BareDownload(
            peer.server,
            peer.scheduling,
            self._find,
            signed,
            number=1,
            budget=max(1, budget),
            transfer=self._transfer,
            schedule=self._schedule,
            is_alive=machine.membership.is_alive,
            rng=random.Random(machine.rng.getrandbits(64)),
            finished=partial(self._finish, name, signed),
        )
        download.start()

    def is_over(self) -> bool:
        """Whether every download whose process runs is complete."""
        return all(
            name in self.finished_at or not self._world.machines[name].is_up
            for name in self._downloads
        )

    def bulk(self, name: str) -> BulkHost:
        """A machine's ends of its piece connections."""
        return self._peers[name].server.bulk

    def shelf(self, name: str, signed: SignedManifest) -> Shelf:
        """What a machine's process has of a task."""
        return self._peers[name].server.shelf(signed)

    def owner(self, viewer: str, signed: SignedManifest) -> str:
        """The machine that owns a task as `viewer` sees the ring."""
        return self._world.name_of(self._peers[viewer].scheduling.keepers_of(signed.task_id)[0])

    def known(self, viewer: str, signed: SignedManifest) -> dict[str, int]:
        """What the task's owner knows that each machine has (bitmaps), by its sessions."""
        scheduler = self._peers[self.owner(viewer, signed)].scheduling.scheduler
        known = {} if scheduler is None else scheduler.pieces_of(signed.task_id)
        return {self._world.name_of(node): pieces for node, pieces in known.items()}

    def decisions(self) -> int:
        """How often schedulers chose parents."""
        cores = [peer.scheduling.scheduler for peer in self._peers.values()]
        return sum(core.decisions for core in cores if core is not None)

    def wasted_bytes(self) -> int:
        """What came in that nobody wanted any more."""
        return sum(download.wasted_bytes for download in self._downloads.values())

    def faults(self) -> list[str]:
        """What parents were given up for, by those who download."""
        return [fault for download in self._downloads.values() for fault in download.faults]

    def _finish(self, name: str, signed: SignedManifest) -> None:
        self.finished_at[name] = self._world.timeline.now
        contents = self._peers[name].server.shelf(signed).contents
        task_id, total = signed.task_id, signed.manifest.piece_count
        if any(contents.get(index) != content_of(task_id, index) for index in range(total)):
            self._world.report(f"{name} took a download for complete that is not what it must be")

    def _find(self, node: NodeId) -> BareServer | None:
        name = self._world.name_of(node)
        peer = self._peers.get(name)
        return None if peer is None or not self._world.machines[name].is_up else peer.server

    def _take_part(self, name: str) -> None:
        world, machine = self._world, self._world.machines[name]
        membership = machine.membership
        rates = self._others.get(name, self._rates)
        process: Process = membership.process
        bulk = BulkHost(
            machine.host, rates.up_bytes_s, rates.down_bytes_s, self._transfer.max_uploads
        )
        scheduling = BareScheduling(
            membership,
            world.timeline,
            world.wire,
            identity=machine.identity,
            cluster_id=world.cluster_id,
            rng=random.Random(machine.rng.getrandbits(64)),
            wall_time=lambda: WALL_EPOCH_S + world.timeline.now + machine.wall_skew_s,
            record_of=partial(self._record, name),
            is_scheduler="scheduler" in machine.roles,
            config=self._schedule,
        )
        membership.attach(scheduling)
        server = BareServer(process, world.timeline, self.network, bulk)
        self._peers[name] = _Peer(server, scheduling)

    def _record(self, name: str, task_id: TaskId) -> RecordView | None:
        core = self._library.of(name).core
        return None if core is None else core.standing(task_id)
