"""How a kind of fault says what it does: a function under `@applies(Kind)`.

It gets the strike (the world, and when what it did is to end) and the fault, and returns how to
count that it *bit*. A schedule may be changed by hand or shrunk: a fault whose node is dead, or
not there, does nothing and bites nobody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from gossipcache.errors import GossipcacheError
from sim.faults import Fault
from sim.kernel.heap import Timer
from sim.whole.machine import Incarnation, NodeKilled
from sim.whole.world import World

F = TypeVar("F", bound=Fault)
Bites = Callable[[], int]
"""How often a fault took effect so far."""
Apply = Callable[["Strike", F], Awaitable[Bites]]

_APPLIED: dict[type[Fault], Apply[Any]] = {}


class Strike:
    """One fault as it is applied."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._beginnings: list[Timer] = []
        self._endings: list[tuple[Timer, Callable[[], None]]] = []

    def ends(self, after_s: float, undo: Callable[[], None]) -> None:
        """Calls `undo` in `after_s` seconds, or when all is healed if that is earlier."""
        self._endings.append((self.world.clock.call_later(after_s, undo), undo))

    def begins(self, after_s: float, work: Callable[[], None]) -> None:
        """Calls `work` in `after_s` seconds, unless all is healed before."""
        self._beginnings.append(self.world.clock.call_later(after_s, work))

    def heal(self) -> None:
        """Ends what has not ended yet."""
        for timer in self._beginnings:
            timer.cancel()
        for timer, undo in self._endings:
            if timer.is_pending:
                timer.cancel()
                undo()

    def life(self, name: str) -> Incarnation | None:
        """The process of a machine's node that runs and serves; None if there is none."""
        machine = self.world.machines.get(name)
        life = machine.life if machine is not None and machine.is_up else None
        return life if life is not None and life.started.is_set() else None

    def ips(self, *names: str) -> frozenset[str]:
        """The addresses of machines."""
        machines = self.world.machines
        return frozenset(machines[name].ip for name in names if name in machines)


def applies(kind: type[F]) -> Callable[[Apply[F]], Apply[F]]:
    """Registers the function below it for faults of `kind`."""

    def registered(function: Apply[F]) -> Apply[F]:
        _APPLIED[kind] = function
        return function

    return registered


def applied_kinds() -> set[type[Fault]]:
    """The kinds for which there is a function."""
    return set(_APPLIED)


async def apply(strike: Strike, fault: Fault) -> Bites:
    """Applies `fault`; returns when it stands, or is over where it takes its time."""
    try:
        return await _APPLIED[type(fault)](strike, fault)
    except (NodeKilled, GossipcacheError):
        return nothing  # another fault was faster


def nothing() -> int:
    """A fault that bites nobody."""
    return 0
