"""The records of a whole bare world: who keeps what, and looking it up."""

from __future__ import annotations

import hashlib
import random
from functools import partial

from gossipcache.dht.records.standing import Opener, Standing, standing_manifest
from gossipcache.errors import IntegrityError
from gossipcache.identity import Identity
from gossipcache.ids import NodeId, TaskId, task_id_of
from gossipcache.manifest import Manifest, SignedManifest, sign_manifest
from gossipcache.messages.records import RecordEntry
from sim.bare.outcome import Outcome
from sim.bare.records import BareRecords, Lookup
from sim.bare.world import BareWorld
from sim.kernel.entropy import WALL_EPOCH_S

REPLICAS = 3


class SharedOpener(Opener):
    """Checks each signature once for all nodes."""

    def __init__(self, cluster_id: bytes) -> None:
        super().__init__(cluster_id)
        self._opened: dict[RecordEntry, Standing] = {}

    def know(self, standing: Standing) -> None:
        """An entry that was signed here just now."""
        self._opened[standing.entry] = standing

    def open(self, entry: RecordEntry, task_id: TaskId | None = None) -> Standing:
        """See `Opener.open`."""
        standing = self._opened.get(entry)
        if standing is None:
            standing = self._opened[entry] = super().open(entry)
        if task_id is not None and standing.task_id != task_id:
            raise IntegrityError("an entry of another task than was asked for")
        return standing


class Library:
    """Tasks that were imported long ago, on the keepers that a settled ring gives them."""

    def __init__(self, world: BareWorld) -> None:
        """Every node that runs or starts from now on takes part."""
        self._world = world
        self._publisher = Identity(world.streams.named("publisher").randbytes(32))
        self._opener = SharedOpener(world.cluster_id)
        self._records: dict[str, BareRecords] = {}
        self.tasks: list[TaskId] = []
        for name in world.up():
            self._take_part(name)
        world.on_start.append(self._take_part)

    def of(self, name: str) -> BareRecords:
        """The records of the process that runs on a machine, or ran last."""
        return self._records[name]

    def fill(self, count: int) -> None:
        """`count` tasks, each held by its three keepers."""
        for number in range(count):
            self.publish(f"content-{number}", size=1000)

    def publish(self, cid: str, *, size: int) -> SignedManifest:
        """One task, held by its three keepers."""
        manifest = self.manifest(cid, size)
        standing = standing_manifest(manifest)
        self._opener.know(standing)
        self.tasks.append(standing.task_id)
        for name in self.keepers(standing.task_id):
            self._records[name].hold(standing)
        return manifest

    def keepers(self, task_id: TaskId) -> list[str]:
        """The machines that keep a task in the view of the first scheduler that runs."""
        up = [name for name in self._world.up() if self._records[name].core is not None]
        ring = self._world.machines[up[0]].membership.ring
        return [self._world.name_of(node) for node in ring.keepers(task_id, REPLICAS)]

    def settle(self) -> None:
        """What has happened so far is long settled."""
        for name in self._world.up():
            self._records[name].rest()

    @property
    def is_settled(self) -> bool:
        """Whether all keepers have all that they should, on the ring that all of them see."""
        epochs: set[bytes] = set()
        for name in self._world.up():
            core = self._records[name].core
            if core is not None:
                epochs |= {core.ring.epoch, self._world.machines[name].membership.ring.epoch}
                if not core.settling.settled:
                    return False
        return len(epochs) == 1

    def look_up(self, name: str, task_id: TaskId) -> Outcome[Lookup]:
        """Reads a task's record from a node."""
        return self._records[name].look_up(task_id)

    def _take_part(self, name: str) -> None:
        machine = self._world.machines[name]
        membership = machine.membership
        self._records[name] = records = BareRecords(
            membership,
            self._world.timeline,
            self._opener,
            random.Random(machine.rng.getrandbits(64)),
            is_scheduler="scheduler" in machine.roles,
            roles_of=self._roles_of,
            cluster_id=self._world.cluster_id,
            disk=machine.disk,
            wall_time=partial(_wall_time, self._world),
        )
        membership.attach(records)

    def _roles_of(self, node: NodeId) -> frozenset[str]:
        return frozenset(self._world.machines[self._world.name_of(node)].roles)

    def manifest(
        self, cid: str, size: int, generation: int = 1, publisher: Identity | None = None
    ) -> SignedManifest:
        """Of the same content for each generation; a cid that begins with `sha256:` names it."""
        content = hashlib.sha256(cid.encode())
        digest = cid if cid.startswith("sha256:") else f"blake3:{content.hexdigest()}"
        return sign_manifest(
            Manifest(
                cluster_id=self._world.cluster_id,
                task_id=task_id_of(cid, ""),
                cid=cid,
                tag="",
                generation=generation,
                kind="file",
                size=size,
                listing_size=0,
                piece_size=2**22,
                root=content.digest(),
                digest=digest,
                created_at=int(WALL_EPOCH_S),
                expires_at=None,
            ),
            publisher or self._publisher,
        )


def _wall_time(world: BareWorld) -> float:
    return WALL_EPOCH_S + world.timeline.now
