"""The scenarios, one module a theme; importing this registers them all."""

from sim.scenarios import (
    content,
    deaths,
    disks,
    forms,
    holders,
    hostile,
    keepers,
    members,
    membership,
    thousand,
)

__all__ = [
    "content",
    "deaths",
    "disks",
    "forms",
    "holders",
    "hostile",
    "keepers",
    "members",
    "membership",
    "thousand",
]
