"""How a keeper judges what it is asked to write, or told that another wrote."""

from __future__ import annotations

from dataclasses import dataclass

from gossipcache.dht.records.standing import Standing
from gossipcache.journal import Change


@dataclass(frozen=True, slots=True)
class Ready:
    """The candidate is provisional here, once `changes` are durable."""

    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """`standing` is against it; None: nothing stands, but its generation is too high."""

    standing: Standing | None


@dataclass(frozen=True, slots=True)
class NotYet:
    """The keeper cannot judge now. `behind`: it should compare with the others."""

    reason: str
    behind: bool = False


Verdict = Ready | Refused | NotYet


@dataclass(frozen=True, slots=True)
class Absorbed:
    """A committed entry of another keeper was merged; nothing changed if `changes` is empty."""

    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Contested:
    """The entry would replace what lives here, or who told of the task differ: another keeper
    must vouch for it."""

    changes: tuple[Change, ...] = ()
    """What this keeper remembers of it."""


@dataclass(frozen=True, slots=True)
class Full:
    """This keeper holds as many entries as it may, and none of this task."""
