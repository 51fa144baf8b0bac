"""The scenarios, one module a theme; importing this registers them all."""

from sim.scenarios import (
    content,
    deaths,
    deletions,
    disks,
    forms,
    holders,
    hostile,
    keepers,
    loads,
    lookups,
    members,
    membership,
    thousand,
    traffic,
    weather,
)

__all__ = [
    "content",
    "deaths",
    "deletions",
    "disks",
    "forms",
    "holders",
    "hostile",
    "keepers",
    "loads",
    "lookups",
    "members",
    "membership",
    "thousand",
    "traffic",
    "weather",
]
