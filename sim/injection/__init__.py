"""Applies faults to a world: one module a theme, as in `sim.faults`."""

from sim.injection import disk, intruding, liars, network, nodes, time
from sim.injection.injector import Injector

__all__ = ["Injector", "disk", "intruding", "liars", "network", "nodes", "time"]
