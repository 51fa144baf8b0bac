"""Whom the next fault strikes, for how long, and how hard."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from gossipcache.ids import task_id_of
from sim.whole.world import World

T = TypeVar("T")

_REST_S = 3.0
"""How long a node is left alone after a fault."""
_MAX_DOWN_SHARE = 1 / 3
_AIMED = 0.7
"""How often a fault strikes where something is going on, rather than anywhere."""


class NoTarget(Exception):
    """Nobody is there whom this kind of fault could strike now."""


class Pick:
    """Draws targets at the instant of a strike, so that it strikes where it bites.

    One machine of a run has the bad disk, and one is the liar: more than one at once is more
    than three copies of a record are made for.
    """

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._taken: dict[str, float] = {}
        self._bad: str | None = None
        self._liar: str | None = None

    def seconds(self, least: float, most: float) -> float:
        """A duration, to a tenth of a second."""
        return round(self._rng.uniform(least, most), 1)

    def share(self, least: float, most: float) -> float:
        """A probability, or a short time in seconds, to a thousandth."""
        return round(self._rng.uniform(least, most), 3)

    def number(self, least: int, most: int) -> int:
        """A whole number."""
        return self._rng.randint(least, most)

    def shuffled(self, things: Sequence[T]) -> list[T]:
        """`things` in another order."""
        return self._rng.sample(things, len(things))

    def node(self, for_s: float = 0.0) -> str:
        """A node that runs and that no other fault holds; mostly one that has tasks. It is not
        struck again before `for_s` are over."""
        free = self._free()
        busy = [name for name in free if self._world.node(name).list_tasks()]
        return self._take(busy if busy and self._rng.random() < _AIMED else free, for_s)

    def mortal(self, for_s: float = 0.0) -> str:
        """A node that may end now: not so many are down."""
        residents = [m for m in self._world.machines.values() if not m.is_visitor]
        down = sum(not machine.is_up for machine in residents)
        if down + 1 > len(residents) * _MAX_DOWN_SHARE:
            raise NoTarget
        return self.node(for_s)

    def dead(self) -> str:
        """A node that is down."""
        down = [m.name for m in self._world.machines.values() if not (m.is_up or m.is_visitor)]
        return self._take([name for name in down if self._is_free(name)], 0.0)

    def bad(self, for_s: float = 0.0) -> str:
        """The node with the bad disk."""
        if self._bad is None:
            self._bad = self.node(for_s)
        elif self._bad not in self._free():
            raise NoTarget
        return self._take([self._bad], for_s)

    def liar(self, for_s: float = 0.0) -> str:
        """The node that lies."""
        if self._liar is None:
            self._liar = self.node(for_s)
        elif self._liar not in self._free():
            raise NoTarget
        return self._take([self._liar], for_s)

    def other(self, name: str) -> str:
        """A node that runs, and is not `name`."""
        return self._one([each for each in self._residents() if each != name])

    def island(self) -> tuple[str, ...]:
        """A minority of the nodes."""
        everybody = list(self._residents())
        size = self._rng.randint(1, max(1, (len(everybody) - 1) // 2))
        return tuple(sorted(self._rng.sample(everybody, size)))

    def everybody(self) -> tuple[str, ...]:
        """All nodes that run."""
        return tuple(self._residents())

    def cid(self) -> str:
        """A task whose import was acknowledged."""
        return self._one([cid for cid, _ in self._world.witness.model.acknowledged])

    def cid_kept_by(self, name: str) -> str:
        """One of whose keepers `name` is among the two that are asked first."""
        services, me = self._world.node(name).services, self._world.machines[name].identity.node_id
        known = [cid for cid, _ in self._world.witness.model.acknowledged]
        return self._one([cid for cid in known if me in services.keepers(task_id_of(cid, ""))[:2]])

    def data(self, name: str) -> str:
        """The path of a file that a node's store keeps content in."""
        store = self._world.node(name).services.store
        paths = [
            str(store.data_path(task.task_id)) for task in store.tasks() if task.linked is None
        ]
        return self._one(paths)

    def offset(self) -> int:
        """A place in every file that is not tiny."""
        return self._rng.randrange(1000)

    def _residents(self) -> list[str]:
        machines = self._world.machines
        return [
            name
            for name in self._world.up()
            if not machines[name].is_visitor and _serves(self._world, name)
        ]

    def _free(self) -> list[str]:
        return [name for name in self._residents() if self._is_free(name)]

    def _is_free(self, name: str) -> bool:
        return self._taken.get(name, 0.0) <= self._world.clock.now

    def _take(self, names: list[str], for_s: float) -> str:
        name = self._one(names)
        self._taken[name] = self._world.clock.now + for_s + _REST_S
        return name

    def _one(self, names: list[str]) -> str:
        if not names:
            raise NoTarget
        return self._rng.choice(names)


def _serves(world: World, name: str) -> bool:
    life = world.machines[name].life
    return life is not None and life.started.is_set() and not life.is_ending
