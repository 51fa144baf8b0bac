"""What a bare scenario plays on. Its body is an ordinary function that lets time pass."""

from __future__ import annotations

from collections.abc import Callable

from sim.bare.injection import BareInjector
from sim.bare.world import BareWorld
from sim.faults import AnyFault

LOOK_INTERVAL_S = 0.05
"""How often a condition that is waited for is looked at."""


class StageTimeout(AssertionError):
    """What a scenario waited for did not come true."""


class BareStage:
    """The world, its faults, the number of nodes asked for, and time."""

    def __init__(self, world: BareWorld, faults: BareInjector, nodes: int) -> None:
        self.world = world
        self.faults = faults
        self.nodes = nodes
        self.metrics: dict[str, float] = {}

    @property
    def now(self) -> float:
        """Virtual seconds since the start."""
        return self.world.timeline.now

    def run(self, seconds: float) -> None:
        """Lets time pass."""
        self.world.timeline.run_to(self.now + seconds)

    def run_until(
        self, what: str, condition: Callable[[], bool], within_s: float, *, look_s: float = 0.0
    ) -> float:
        """Lets time pass until `condition` holds; returns how long that took. Raises
        `StageTimeout` after `within_s`. It is looked at every 50 ms, or `look_s`."""
        started = self.now
        while not condition():
            if self.now - started >= within_s:
                raise StageTimeout(f"not within {within_s:g} s: {what}")
            self.run(look_s or LOOK_INTERVAL_S)
        return self.now - started

    def inject(self, fault: AnyFault) -> float:
        """Applies a fault; returns when it struck."""
        return self.faults.inject(fault)

    def report(self, violation: str) -> None:
        """Notes what is wrong; the run goes on."""
        self.world.report(violation)

    def start_cluster(self, count: int, within_s: float = 60.0) -> float:
        """`count` nodes start at once and join through the first; returns how long it took
        until each sees all."""
        for name in [self.world.add_machine().name for _ in range(count)]:
            self.world.start(name)
        return self.run_until("all see all", self.world.views_agree, within_s)
