"""Whatever happens to a cluster, a keeper that says "absent" has what the task's keepers have."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from gossipcache.config import RecordConfig
from gossipcache.dht import ring
from gossipcache.dht.records.settling import Settling
from gossipcache.dht.ring import Ring
from gossipcache.ids import NodeId, TaskId

REPLICAS = 3
IDS = tuple(NodeId(bytes([number + 1]) * 16) for number in range(8))
TASKS = tuple(TaskId(bytes([number, 7]) + bytes(30)) for number in range(0, 256, 16))
LATER = 1e6
"""When what depends on time is long over."""

Entry = tuple[TaskId, int]


@dataclass
class Model:
    """Schedulers that come, go, lose their disks and compare. All see each change of the ring,
    in order, but each when it does."""

    rings: list[Ring] = field(default_factory=lambda: [Ring(IDS[:5])])
    disks: dict[NodeId, set[Entry]] = field(default_factory=lambda: {node: set() for node in IDS})
    up: dict[NodeId, Settling] = field(default_factory=dict)
    seen: dict[NodeId, int] = field(default_factory=dict)
    entries: int = 0

    def __post_init__(self) -> None:
        for node in self.ring.members:
            self.start(node)
            self.up[node].give_up()

    @property
    def ring(self) -> Ring:
        return self.rings[-1]

    def start(self, node: NodeId) -> None:
        """It runs, though perhaps nobody has it on the ring yet."""
        if node not in self.up:
            self.up[node] = Settling(node, self.ring, RecordConfig(), 0.0)
            self.seen[node] = len(self.rings)

    def join(self, node: NodeId) -> None:
        self.start(node)
        if node not in self.ring.members:
            self.rings.append(Ring((*self.ring.members, node)))

    def crash(self, node: NodeId) -> None:
        if len(self.up) > 1 and self.up.pop(node, None) is not None:
            del self.seen[node]

    def bury(self, node: NodeId) -> None:
        """The others notice that it is gone."""
        if node not in self.up and node in self.ring.members:
            self.rings.append(Ring(one for one in self.ring.members if one != node))

    def wipe(self, node: NodeId) -> None:
        if node not in self.up:
            self.disks[node].clear()

    def bring(self, node: NodeId, task: TaskId) -> None:
        """It was written to beyond a partition, where it kept the task as it does here."""
        keepers = Ring(IDS).keepers(task, REPLICAS)
        if node in keepers and node not in self.up and node not in self.ring.members:
            self.disks[node].add(self._entry(task))

    def write(self, task: TaskId) -> None:
        """To all keepers, while all agree who they are."""
        ready = all(node in self.ring.members for node in self.up)
        if ready and all(seen == len(self.rings) for seen in self.seen.values()):
            entry = self._entry(task)
            for node in self.ring.keepers(task, REPLICAS):
                if node in self.up:
                    self.disks[node].add(entry)

    def see(self, node: NodeId) -> None:
        if node in self.up and self.seen[node] < len(self.rings):
            self.up[node].set_ring(self.rings[self.seen[node]], 0.0)
            self.seen[node] += 1

    def catch_up(self) -> None:
        """Everybody sees the ring as it is."""
        for node in self.up:
            while self.seen[node] < len(self.rings):
                self.see(node)

    def compare(self, asking: NodeId, asked: NodeId) -> None:
        if asking == asked or asking not in self.up or asked not in self.up:
            return
        seen = self.up[asked].ring
        shown = seen.with_members((*seen.members, asking))
        told = {entry for entry in self.disks[asked] if asking in shown.keepers(entry[0], REPLICAS)}
        if asked not in self.ring.members and not told <= self.disks[asking]:
            return  # It will be asked when it has joined.
        self.disks[asking] |= told
        self.up[asking].compared(asked, shown.epoch, 0.0)

    def compare_but(self, asking: NodeId, left_out: NodeId) -> None:
        """With all whom it has to, but one."""
        if asking in self.up:
            for node in self.up[asking].waiting():
                if node != left_out:
                    self.compare(asking, node)

    def come(self, node: NodeId, task: TaskId) -> None:
        """From beyond a partition; all see it."""
        self.bring(node, task)
        self.join(node)
        self.catch_up()

    def die(self, node: NodeId) -> None:
        """All notice."""
        self.crash(node)
        self.bury(node)
        self.catch_up()

    def replace(self, node: NodeId) -> None:
        """It loses its disk, and is back before anybody notices."""
        if node in self.up and len(self.up) > 1:
            self.crash(node)
            self.wipe(node)
            self.start(node)

    def _entry(self, task: TaskId) -> Entry:
        self.entries += 1
        return task, self.entries

    def is_sound(self) -> bool:
        """Asks those who see the ring as it is."""
        return all(
            self._is_told(node, task)
            for node, settling in self.up.items()
            if self.seen[node] == len(self.rings)
            for task in TASKS
            if settling.is_settled(task, LATER)
        )

    def _is_told(self, node: NodeId, task: TaskId) -> bool:
        keepers = self.up[node].ring.keepers(task, REPLICAS)
        return all(
            entry in self.disks[node]
            for other in keepers
            if other in self.up
            for entry in self.disks[other]
            if entry[0] == task
        )


STEPS: dict[Callable[..., None], tuple[int, tuple[Sequence[Any], ...]]] = {
    Model.start: (2, (IDS,)),
    Model.join: (2, (IDS,)),
    Model.crash: (1, (IDS,)),
    Model.bury: (2, (IDS,)),
    Model.wipe: (1, (IDS,)),
    Model.bring: (2, (IDS, TASKS)),
    Model.come: (1, (IDS, TASKS)),
    Model.write: (4, (TASKS,)),
    Model.see: (4, (IDS,)),
    Model.catch_up: (2, ()),
    Model.die: (2, (IDS,)),
    Model.replace: (1, (IDS,)),
    Model.compare: (4, (IDS, IDS)),
    Model.compare_but: (6, (IDS, IDS)),
}
"""How often each step is taken, and what its arguments are drawn from."""
HISTORIES = 400
"""With a base of only what was there when all was settled, the 218th fails."""


def test_a_keeper_that_is_settled_has_what_the_others_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "POINTS_PER_NODE", 8)  # Rings are made quickly.
    for seed in range(HISTORIES):
        drawn, model = random.Random(seed), Model()
        history: list[tuple[str, list[Any]]] = []
        for _ in range(drawn.randint(5, 60)):
            step = drawn.choices(list(STEPS), [weight for weight, _ in STEPS.values()])[0]
            arguments = [drawn.choice(choices) for choices in STEPS[step][1]]
            history.append((step.__name__, arguments))
            step(model, *arguments)
            assert model.is_sound(), (seed, history)
