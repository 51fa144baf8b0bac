"""The copies of a whole bare world: who imported, fetched and deleted what."""

from __future__ import annotations

import random

from gossipcache.config import ScheduleConfig
from gossipcache.dht.records.publishing import Published
from gossipcache.identity import Identity
from gossipcache.ids import TaskId, task_id_of
from gossipcache.manifest import SignedManifest
from gossipcache.schedule.task import RecordView
from sim.bare.holding import BareHolder
from sim.bare.library import Library
from sim.bare.outcome import Outcome
from sim.bare.scheduling import BareScheduling
from sim.bare.world import BareWorld
from sim.kernel.entropy import WALL_EPOCH_S


class Holders:
    """Every node that runs or starts from now on imports, fetches and deletes."""

    def __init__(self, world: BareWorld, library: Library) -> None:
        self._world = world
        self._library = library
        self._keys: dict[str, Identity] = {}
        self._holders: dict[str, BareHolder] = {}
        for name in world.up():
            self._take_part(name)
        world.on_start.append(self._take_part)

    def of(self, name: str) -> BareHolder:
        """The copies of the process that runs on a machine, or ran last."""
        return self._holders[name]

    def publish(self, name: str, cid: str, size: int) -> Outcome[Published]:
        """A node imports the content that goes by `cid`."""

        def candidate(generation: int) -> SignedManifest:
            return self._library.manifest(cid, size, generation, self._keys[name])

        return self._holders[name].publish(candidate, task_id_of(cid, ""))

    def _take_part(self, name: str) -> None:
        world, machine = self._world, self._world.machines[name]
        membership = machine.membership
        seed = world.streams.named(f"publisher/{name}")
        key = self._keys.setdefault(name, Identity(seed.randbytes(32)))

        def wall_time() -> float:
            return WALL_EPOCH_S + world.timeline.now + machine.wall_skew_s

        def record_of(task_id: TaskId) -> RecordView | None:
            core = records.core
            return None if core is None else core.standing(task_id)

        records = self._library.of(name)
        scheduling = BareScheduling(
            membership,
            world.timeline,
            world.wire,
            identity=machine.identity,
            cluster_id=world.cluster_id,
            rng=random.Random(machine.rng.getrandbits(64)),
            wall_time=wall_time,
            record_of=record_of,
            is_scheduler="scheduler" in machine.roles,
            config=ScheduleConfig(),
        )
        membership.attach(scheduling)
        self._holders[name] = holder = BareHolder(
            membership.process,
            machine.disk,
            records,
            scheduling,
            identity=key,
            cluster_id=world.cluster_id,
            wall_time=wall_time,
        )
        membership.attach(holder)
