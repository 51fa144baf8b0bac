"""The policy: which parents a child gets. Pure functions.

A candidate's score is a weighted sum of five terms, each 0 to 1. The idea and the size of the
weights are those of Dragonfly's evaluator; its host type and location terms are replaced by
what is measured here. Sums are rounded so that candidates that are as good as equal fall to
the tie-break, a hash of child and parent (rendezvous hashing, Thaler and Ravishankar 1998):
equal parents are then spread over the children, and the same way each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gossipcache.deviation import slow_below
from gossipcache.ids import NodeId

USEFUL_WEIGHT = 0.30
FREE_WEIGHT = 0.25
RATE_WEIGHT = 0.20
RELIABLE_WEIGHT = 0.15
NEAR_WEIGHT = 0.10
STAY_BONUS = 0.10
"""What a new parent must be better by, so that children do not flit between equals."""
UNKNOWN_RATE = 0.5
SCORE_DIGITS = 2


@dataclass(frozen=True, slots=True)
class Candidate:
    """A possible parent as one child sees it."""

    node_id: NodeId
    useful: float
    """Share of what the child lacks that it can give, 0 to 1."""
    children: int = 0
    """Other children that have it as a parent."""
    rate_bytes_s: float | None = None
    """What it gave its children lately; None: not measured yet."""
    complainers: int = 0
    """Different children that lately reported failures of it."""
    depth: int = 0
    """Hops from a complete holder."""
    is_parent: bool = False
    """Whether the child has it already."""


def score(candidate: Candidate, *, best_rate_bytes_s: float, max_children: int) -> float:
    """How good a parent it would be; higher is better."""
    rate = UNKNOWN_RATE
    if candidate.rate_bytes_s is not None and best_rate_bytes_s > 0:
        rate = candidate.rate_bytes_s / best_rate_bytes_s
    total = (
        USEFUL_WEIGHT * candidate.useful
        + FREE_WEIGHT * max(0.0, 1 - candidate.children / max_children)
        + RATE_WEIGHT * rate
        + RELIABLE_WEIGHT / (1 + candidate.complainers)
        + NEAR_WEIGHT / (1 + candidate.depth)
        + (STAY_BONUS if candidate.is_parent else 0.0)
    )
    return round(total, SCORE_DIGITS)


def choose_parents(
    candidates: Iterable[Candidate],
    *,
    child: NodeId,
    max_parents: int,
    max_children: int,
    may_share: bool = True,
) -> tuple[NodeId, ...]:
    """The child's parents, best first.

    Only who has something that the child lacks is chosen; that alone keeps the swarm free of
    idle cycles, while two partial peers may well feed each other. Who is slow by what the others
    give (`deviation`) is left out, unless nobody else has everything. A parent takes at most
    `max_children`, unless the child would be left with nobody and `may_share`: then it shares the
    least loaded.
    """
    useful = [candidate for candidate in candidates if candidate.useful > 0]
    useful = list(_in_line(useful))
    free = [candidate for candidate in useful if candidate.children < max_children]
    if not free:
        least = sorted(useful, key=lambda found: (found.children, _affinity(child, found.node_id)))
        return tuple(candidate.node_id for candidate in least[: int(may_share)])
    ranked = _ranked(free, child, max_children)
    return tuple(candidate.node_id for candidate in ranked[:max_parents])


def _in_line(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """Those whose rate is not slow, or not known yet; all, if none of them has everything though
    one that is slow has."""
    rates = [found.rate_bytes_s for found in candidates if found.rate_bytes_s is not None]
    limit = slow_below(rates)
    quick = [found for found in candidates if (found.rate_bytes_s or limit) >= limit]
    most = max((found.useful for found in candidates), default=0.0)
    lost = most == 1.0 and all(found.useful < 1.0 for found in quick)
    return candidates if lost else quick


def _ranked(candidates: Sequence[Candidate], child: NodeId, max_children: int) -> list[Candidate]:
    best_rate = max((candidate.rate_bytes_s or 0.0) for candidate in candidates)

    def rank(candidate: Candidate) -> tuple[float, bytes]:
        points = score(candidate, best_rate_bytes_s=best_rate, max_children=max_children)
        return -points, _affinity(child, candidate.node_id)

    return sorted(candidates, key=rank)


def _affinity(child: NodeId, parent: NodeId) -> bytes:
    return hashlib.blake2b(child + parent, digest_size=8).digest()
