"""One simulated machine of a bare world: a key, an address, and the process that runs there."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from gossipcache.config import Role
from gossipcache.identity import Identity
from gossipcache.ids import Address
from sim.bare.disk import BareDisk
from sim.bare.membership import BareMembership
from sim.bare.network import BareHost
from sim.bare.process import Process


@dataclass(eq=False)
class BareMachine:
    """What a node needs to run again."""

    name: str
    number: int
    identity: Identity
    roles: frozenset[Role]
    seeds: tuple[Address, ...]
    rng: random.Random
    host: BareHost
    process: Process | None = None
    wall_skew_s: float = 0.0
    zone: str = ""
    disk: BareDisk = field(default_factory=BareDisk)

    @property
    def is_up(self) -> bool:
        """Whether its node runs (paused ones do)."""
        return self.process is not None and not self.process.is_dead

    @property
    def membership(self) -> BareMembership:
        """Of the process that runs here, or ran last."""
        assert self.process is not None, f"{self.name} was never started"
        return self.process.membership
