"""The scenarios, one module a theme; importing this registers them all."""

from sim.scenarios import content, deaths, disks, membership

__all__ = ["content", "deaths", "disks", "membership"]
