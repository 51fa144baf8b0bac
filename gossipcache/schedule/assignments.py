"""Core: who feeds whom, over all tasks of a keeper, and the choice of a child's parents.

A review looks at `MAX_CANDIDATES` possible parents at most, drawn at random where there are more,
so that what a child costs does not grow with the swarm.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from gossipcache.config import ScheduleConfig
from gossipcache.deviation import behind_below
from gossipcache.ids import NodeId, TaskId
from gossipcache.schedule.announcement import Held
from gossipcache.schedule.directory import Directory
from gossipcache.schedule.gateways import Gateways
from gossipcache.schedule.parents import Candidate, choose_parents
from gossipcache.schedule.standing import Standings
from gossipcache.schedule.task import Child, Swarm, View
from gossipcache.swarm import Border, pieces_of_shares

MAX_CANDIDATES = 64
"""Considered in one review; of more, a random sample."""
MAX_CHILDREN = 8
"""Children that one parent feeds at once, over all tasks, while others can."""
PATIENCE_S = 2.0
"""How long a child without any parent waits for one with room, while others of its swarm are fed
and will soon have pieces to give, before it shares a full one."""

EXTRA_PARENTS = 3
"""Of a child that fell behind the others."""
FAR_PARENTS = 3
"""In other zones, of a child that fetches there for its own."""
FAR_PARTIAL_USE = 0.5
"""What one of these counts for that has all of the child's shares but not all pieces, beside one
that has all: what that one offers a child nobody else gives."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Assigned:
    """What a choice of parents came to."""

    changed: bool
    """Whether the child's assignment is another now."""
    robbed: tuple[Child, ...] = ()
    """Who is to fetch less from other zones, and is to be told soon."""


class Assignments:
    """The parents that children have, and how good they proved."""

    def __init__(
        self, config: ScheduleConfig, view: View, directory: Directory, rng: random.Random
    ) -> None:
        self._config = config
        self._view = view
        self._directory = directory
        self._rng = rng
        self._fed_by: dict[NodeId, dict[tuple[NodeId, TaskId], None]] = {}
        """Parent → the children it is assigned to."""
        self._gateways: dict[tuple[TaskId, str], Gateways] = {}
        """By task and zone."""
        self.standings = Standings()
        self.decisions = 0
        """How often parents were chosen for a child."""

    def fed_by(self, parent: NodeId) -> tuple[tuple[NodeId, TaskId], ...]:
        """The children that a parent is assigned to."""
        return tuple(self._fed_by.get(parent, ()))

    def room(self, parent: NodeId) -> int:
        """How many more children a parent takes."""
        return MAX_CHILDREN - len(self._fed_by.get(parent, ()))

    def assign(self, child: Child, swarm: Swarm, now: float) -> Assigned:
        """Chooses the child's parents anew."""
        self.decisions += 1
        near, elsewhere = self._divided(self._able(child, swarm, now), child.zone)
        robbed = self._share_out(child, near, elsewhere, now)
        gateways = self._gateways.get((child.task_id, child.zone))
        shares = gateways.shares(child) if gateways is not None else 0
        choose = partial(self._choose, child, swarm, now)
        chosen = choose(near, self._config.max_parents + self._help(child, swarm, now))
        far = self._far_parents(child, swarm, shares, elsewhere, now) if shares else ()
        border = Border(tuple(sorted(far)), shares)
        is_same = {*chosen, *far} == set(child.parents) and border == child.border
        changed = child.version == 0 or not is_same
        if changed:
            self.feed(child, (*chosen, *far))
            child.fed_at = {parent: child.fed_at.get(parent, now) for parent in child.parents}
            child.border = border
            child.version += 1
            child.depth = 1 + min((swarm.depth(parent) for parent in child.parents), default=0)
        return Assigned(changed, robbed)

    def end(self, child: Child) -> None:
        """The child needs no parents any more."""
        self.feed(child, ())
        key = child.task_id, child.zone
        if (gateways := self._gateways.get(key)) is not None:
            gateways.remove(child)
            if gateways.is_idle:
                del self._gateways[key]

    def feed(self, child: Child, parents: tuple[NodeId, ...]) -> None:
        """The child has these parents from now on."""
        key = (child.node_id, child.task_id)
        for parent in child.parents:
            children = self._fed_by.get(parent, {})
            children.pop(key, None)
            if not children:
                self._fed_by.pop(parent, None)
        for parent in parents:
            self._fed_by.setdefault(parent, {})[key] = None
        child.parents = parents

    def _help(self, child: Child, swarm: Swarm, now: float) -> int:
        """How many parents more than others it gets: some if it fell behind, for the last to be
        done is who waits for crowded parents all the time."""
        if now < child.since + PATIENCE_S:
            return 0  # It has just come.
        counts = [other.have.bit_count() for other in self._sample(list(swarm.givers.values()))]
        return EXTRA_PARENTS if child.have.bit_count() < behind_below(counts) else 0

    def _far_parents(
        self, child: Child, swarm: Swarm, shares: int, elsewhere: dict[NodeId, float], now: float
    ) -> tuple[NodeId, ...]:
        """The parents in other zones of a child that fetches these shares there. Who has all and is
        one already stays while it gives: what it offered the child it offers to nobody else, and
        where its children come and go its link rests."""
        kept = tuple(
            parent
            for parent in child.border.parents
            if elsewhere.get(parent) == 1.0 and not child.goes_short_of(parent, now)
        )
        useful = _of_use(elsewhere, child, swarm, shares)
        others = {node: use for node, use in useful.items() if node not in kept}
        most = FAR_PARENTS - len(kept)
        return kept + self._choose(child, swarm, now, others, most, is_fed=bool(kept))

    def _choose(
        self,
        child: Child,
        swarm: Swarm,
        now: float,
        able: dict[NodeId, float],
        most: int,
        *,
        is_fed: bool = False,
    ) -> tuple[NodeId, ...]:
        """The best of those who are able. `is_fed`: it does not depend on them."""
        return choose_parents(
            [self._candidate(child, swarm, parent, useful, now) for parent, useful in able.items()],
            child=child.node_id,
            max_parents=most,
            max_children=MAX_CHILDREN,
            may_share=not is_fed and (now >= child.since + PATIENCE_S or not swarm.is_fed),
        )

    def _divided(
        self, able: dict[NodeId, float], zone: str
    ) -> tuple[dict[NodeId, float], dict[NodeId, float]]:
        """Possible parents by their use: those in a zone, and those in others."""
        near = {
            parent: useful for parent, useful in able.items() if self._view.zone_of(parent) == zone
        }
        return near, {parent: useful for parent, useful in able.items() if parent not in near}

    def _share_out(
        self,
        child: Child,
        near: dict[NodeId, float],
        elsewhere: dict[NodeId, float],
        now: float,
    ) -> tuple[Child, ...]:
        """Gives the child its part of what its zone fetches from others, if there is need of them;
        returns whose part became smaller."""
        key = child.task_id, child.zone
        if any(
            useful == 1.0 and self.room(parent) > 0 and not child.goes_short_of(parent, now)
            for parent, useful in near.items()
        ):
            if (gateways := self._gateways.get(key)) is not None:
                gateways.remove(child)
            return ()
        if not elsewhere:
            return ()
        return self._gateways.setdefault(key, Gateways()).settle(child, now)

    def _able(self, child: Child, swarm: Swarm, now: float) -> dict[NodeId, float]:
        """Who has what the child lacks, and what share of it."""
        missing = child.missing
        lacking = missing.bit_count()
        if not lacking:
            return {}
        useful: dict[NodeId, float] = {}
        for parent in child.claimed:
            if self._view.is_alive(parent):
                useful[parent] = 0.5
        for parent, held in self._sample(
            self._holders(child), keep=lambda holder: holder[0] in child.parents
        ):
            if held.manifest_name == child.manifest_name:
                useful[parent] = held.pieces / max(1, held.piece_count)
        for other in self._givers(child, swarm):
            share = (other.have & missing).bit_count() / lacking
            announced = useful.get(other.node_id, 0.0)
            useful[other.node_id] = 1.0 if announced == 1.0 else share
        useful.pop(child.node_id, None)
        able = [
            parent
            for parent, share in useful.items()
            if share > 0 and not child.refuses(parent, now)
        ]
        kept = self._sample(able, keep=lambda parent: parent in child.parents)
        return {parent: useful[parent] for parent in kept}

    def _holders(self, child: Child) -> list[tuple[NodeId, Held]]:
        """Those of the child's zone that have everything, if there are any; else all."""
        holders = list(self._directory.holders(child.task_id))
        near = [
            (parent, held)
            for parent, held in holders
            if held.complete and self._view.zone_of(parent) == child.zone
        ]
        return near or holders

    def _givers(self, child: Child, swarm: Swarm) -> Iterator[Child]:
        """Children that have pieces: its parents, and others."""
        own = [swarm.givers[parent] for parent in child.parents if parent in swarm.givers]
        near = list(swarm.givers_in.get(child.zone, {}).values())
        for other in dict.fromkeys(
            [*own, *self._sample(near), *self._sample_of_others(swarm, near)]
        ):
            if other.manifest_name == child.manifest_name and self._view.is_alive(other.node_id):
                yield other

    def _sample_of_others(self, swarm: Swarm, near: list[Child]) -> list[Child]:
        """Children with pieces in any zone, unless all of them are in one."""
        return self._sample(list(swarm.givers.values())) if len(near) < len(swarm.givers) else []

    def _sample(self, found: list[T], keep: Callable[[T], bool] = lambda _one: False) -> list[T]:
        """All, or of more than `MAX_CANDIDATES` those to `keep` and a random choice; some twice."""
        if len(found) <= MAX_CANDIDATES:
            return found
        return [*filter(keep, found), *self._rng.sample(found, MAX_CANDIDATES)]

    def _candidate(
        self, child: Child, swarm: Swarm, parent: NodeId, useful: float, now: float
    ) -> Candidate:
        is_parent = parent in child.parents
        return Candidate(
            node_id=parent,
            useful=useful,
            children=len(self._fed_by.get(parent, ())) - is_parent,
            rate_bytes_s=self.standings.rate_bytes_s(parent),
            complainers=self.standings.complainers(parent, now),
            depth=swarm.depth(parent),
            is_parent=is_parent,
        )


def _of_use(
    elsewhere: dict[NodeId, float], child: Child, swarm: Swarm, shares: int
) -> dict[NodeId, float]:
    """Possible parents in other zones by what they have of the shares that a child fetches there,
    for the rest comes to it from its own. Of those that opened no session nothing is known."""
    lacking = child.missing & pieces_of_shares(shares, child.piece_count)
    useful = dict(elsewhere)
    for parent, use in elsewhere.items():
        giver = swarm.givers.get(parent)
        if use < 1.0 and giver is not None:
            part = (giver.have & lacking).bit_count() / max(1, lacking.bit_count())
            useful[parent] = FAR_PARTIAL_USE * part
    return useful
