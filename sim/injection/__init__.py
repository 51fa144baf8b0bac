"""Applies faults to a world: one module a theme, as in `sim.faults`."""

from sim.injection import disk, liars, network, nodes, time
from sim.injection.injector import FaultCount, Injector

__all__ = ["FaultCount", "Injector", "disk", "liars", "network", "nodes", "time"]
