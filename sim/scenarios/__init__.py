"""The scenarios, one module a theme; importing this registers them all."""

from sim.scenarios import content, deaths, disks, forms, hostile, membership, thousand

__all__ = ["content", "deaths", "disks", "forms", "hostile", "membership", "thousand"]
