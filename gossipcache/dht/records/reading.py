"""Counting the answers of a read: when is a record found, and when certainly absent?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce

from gossipcache.dht.records.standing import Standing, merge
from gossipcache.ids import NodeId
from gossipcache.manifest import SignedManifest, SignedTombstone

Accept = Callable[[SignedManifest], bool]


@dataclass(frozen=True)
class TaskRecord:
    """What the keepers say of a task: its manifest, or the tombstone that ended it.

    `copies`: keepers known to hold just this; a read that needs no agreement stops at one.
    """

    manifest: SignedManifest | None
    tombstone: SignedTombstone | None
    generation: int
    copies: int


@dataclass(frozen=True)
class Absent:
    """Enough keepers that would know hold nothing."""


@dataclass(frozen=True)
class Fork:
    """Keepers agree that these contents all claim the task, as after a partition."""

    manifests: tuple[SignedManifest, ...]


class ReadTally:
    """The answers to one read so far.

    A manifest whose bytes prove it (content-addressed, or `accept` takes it) counts if one settled
    keeper holds it and `needed` have answered, so that a deletion that one of them missed is not
    missed here; fewer suffice when nobody is left to answer, also against a later manifest that too
    few hold. All else, absence too, needs `needed`
    settled keepers that agree, so that one lying keeper cannot substitute its own, nor by way of a
    new keeper that has heard from nobody else yet. Differing answers never decide.
    """

    def __init__(self, needed: int, accept: Accept | None, wall_s: float) -> None:
        self._needed = needed
        self._accept = accept
        self._wall_s = wall_s
        self._held: dict[NodeId, Standing] = {}
        self._settled: set[NodeId] = set()
        self._absent: set[NodeId] = set()
        self._recovering = False
        self._redirects: dict[NodeId, None] = {}
        self.redirecting: set[NodeId] = set()
        """The nodes that are no keepers in their own view."""

    def held(self, node: NodeId, standing: Standing, *, settled: bool) -> None:
        """`node` holds `standing`; `settled`: and would know of anything newer."""
        self._held[node] = standing
        if settled:
            self._settled.add(node)

    def absent(self, node: NodeId) -> None:
        """`node` holds nothing, and would know."""
        self._absent.add(node)

    def recovering(self) -> None:
        """A node holds nothing, and cannot say yet what that means."""
        self._recovering = True

    def no_keeper(self, node: NodeId) -> None:
        """`node` does not keep the task in its own view."""
        self.redirecting.add(node)

    def told(self, keepers: Iterable[NodeId]) -> None:
        """Somebody sees the ring otherwise, and named `keepers`."""
        self._redirects.update(dict.fromkeys(keepers))

    @property
    def redirects(self) -> tuple[NodeId, ...]:
        """The keepers that were named."""
        return tuple(self._redirects)

    @property
    def disagrees(self) -> bool:
        """Whether keepers answered differently."""
        versions = {standing.version for standing in self._held.values()}
        return len(versions) > 1 or bool(versions and self._absent)

    @property
    def hindrance(self) -> str:
        """Why there is no decision."""
        if self.disagrees:
            return "its keepers do not agree yet"
        if self._recovering:
            return "its keepers are recovering what was lost with others"
        return "too few of its keepers answered"

    def decision(self, *, last: bool = False) -> TaskRecord | Absent | Fork | None:
        """The outcome, or None while the answers do not suffice; `last`: no more will come."""
        if not self._held:
            return Absent() if len(self._absent) >= self._needed else None
        newest = reduce(merge, self._held.values())
        holders = {
            node
            for node, one in self._held.items()
            if one == newest or one.version == newest.version
        }
        proven = self._proven(newest)
        heard = len(self._settled | self._absent)
        if proven is not None and holders & self._settled and (last or heard >= self._needed):
            return TaskRecord(proven, None, newest.generation, len(holders))
        if len(holders & self._settled) < self._needed:
            return self._named(newest) if last else None
        return self._agreed(newest, proven, len(holders))

    def _named(self, newest: Standing) -> TaskRecord | None:
        """What the caller knows, if a settled keeper holds it, and too few hold a later one."""
        for node, standing in self._held.items():
            known = self._proven(standing) if node in self._settled else None
            if known is not None and newest.tombstone is None:
                return TaskRecord(known, None, standing.generation, 1)
        return None

    def _proven(self, newest: Standing) -> SignedManifest | None:
        for one in newest.unexpired(self._wall_s):
            if one.manifest.is_content_addressed or (self._accept and self._accept(one)):
                return one
        return None

    def _agreed(
        self, newest: Standing, proven: SignedManifest | None, copies: int
    ) -> TaskRecord | Absent | Fork:
        if newest.tombstone is not None:
            return TaskRecord(None, newest.tombstone, newest.generation, copies)
        manifests = newest.unexpired(self._wall_s)
        if not manifests:
            return Absent()
        if proven is None and len(manifests) > 1:
            return Fork(manifests)
        return TaskRecord(proven or manifests[0], None, newest.generation, copies)
