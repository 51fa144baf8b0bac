"""Finds a smaller schedule that still fails: delta debugging over its faults, then over their
parameters and the number of nodes.

The search is pure: `Shrinker` proposes cases and is told whether each failed; `trial` plays them.
The faults are minimised by ddmin (Zeller and Hildebrandt, "Simplifying and Isolating
Failure-Inducing Input", 2002). A fault that is left out is None, so that the later ones keep
their place.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from sim.faults import AnyFault
from sim.shrinking.simpler import nodes_of, renumbered, simpler

MIN_NODES = 3


@dataclass(frozen=True, slots=True)
class Case:
    """What a scenario is played with."""

    nodes: int
    faults: tuple[AnyFault | None, ...]

    @property
    def places(self) -> list[int]:
        """Where in `faults` there is one."""
        return [place for place, fault in enumerate(self.faults) if fault is not None]

    def keeping(self, places: Iterable[int]) -> Case:
        """Without the faults at other places."""
        kept = set(places)
        faults = [fault if place in kept else None for place, fault in enumerate(self.faults)]
        return replace(self, faults=tuple(faults)).cut(len(faults))

    def cut(self, count: int) -> Case:
        """With the first `count` faults only, and without None behind the last."""
        last = max((place + 1 for place in self.places if place < count), default=0)
        return replace(self, faults=self.faults[:last])

    def with_fault(self, place: int, fault: AnyFault) -> Case:
        """With another fault at `place`."""
        return replace(self, faults=(*self.faults[:place], fault, *self.faults[place + 1 :]))

    def with_nodes(self, nodes: int) -> Case | None:
        """On fewer nodes: those that the faults name and that are gone become others. None if
        the faults name more than `nodes`."""
        named = sorted({number for each in self.faults if each for number in nodes_of(each)})
        if len(named) > nodes:
            return None
        free = [number for number in range(nodes) if number not in named]
        gone = [number for number in named if number >= nodes]
        moved = dict(zip(gone, free[-len(gone) :], strict=True)) if gone else {}
        faults = [None if each is None else renumbered(each, moved) for each in self.faults]
        return Case(nodes, tuple(faults))


_Search = Generator[Case, bool, None]


class Shrinker:
    """The search from a case that fails: `propose`, play it, `judge`, until nothing is proposed
    or the time is up. `best` is the smallest case that was seen to fail."""

    def __init__(self, failing: Case) -> None:
        self.best = failing.cut(len(failing.faults))
        self._tried = {self.best}
        self._search = self._passes()
        self._proposed = next(self._search, None)

    def propose(self) -> Case | None:
        """The case to be played next; None at the end."""
        return self._proposed

    def judge(self, asked: int | None) -> None:
        """What became of the proposed case: None if it did not fail, else for how many faults
        the scenario had asked until it did. Those beyond had no part in it."""
        assert self._proposed is not None, "nothing was proposed"
        self._tried.add(self._proposed)
        if asked is not None:
            self.best = self._proposed.cut(asked)
            self._tried.add(self.best)
        try:
            self._proposed = self._search.send(asked is not None)
        except StopIteration:
            self._proposed = None

    def _passes(self) -> _Search:
        before = None
        while before != self.best:
            before = self.best
            yield from self._fewer_faults()
            yield from self._simpler_faults()
            yield from self._fewer_nodes()

    def _fewer_faults(self) -> _Search:
        """ddmin; when it ends, no single fault that is left can be left out."""
        parts = 2
        yield from self._first_failing([self.best.keeping([])])
        while len(places := self.best.places) > 1:
            # Later faults first: they are nearer to what they break.
            chunks = list(reversed(_split(places, parts)))
            if (yield from self._first_failing(self.best.keeping(chunk) for chunk in chunks)):
                parts = 2
            elif (yield from self._first_failing(self._complements(chunks))):
                parts = max(parts - 1, 2)
            elif parts < len(places):
                parts = min(2 * parts, len(places))
            else:
                return

    def _complements(self, chunks: list[list[int]]) -> Iterator[Case]:
        places = self.best.places
        return (
            self.best.keeping([place for place in places if place not in chunk]) for chunk in chunks
        )

    def _simpler_faults(self) -> _Search:
        for place in reversed(self.best.places):
            found = True
            while found and place < len(self.best.faults):
                fault = self.best.faults[place]
                variants = [] if fault is None else list(simpler(fault))
                found = yield from self._first_failing(
                    self.best.with_fault(place, variant) for variant in variants
                )

    def _fewer_nodes(self) -> _Search:
        found = True
        while found:
            nodes = self.best.nodes
            fewer = sorted({MIN_NODES, nodes // 4, nodes // 2, nodes * 3 // 4, nodes - 1})
            sizes = [count for count in fewer if MIN_NODES <= count < nodes]
            cases = [self.best.with_nodes(count) for count in sizes]
            found = yield from self._first_failing([case for case in cases if case is not None])

    def _first_failing(self, cases: Iterable[Case]) -> Generator[Case, bool, bool]:
        """Whether one of the cases fails; it is `best` then. A case is played only once."""
        for case in list(cases):
            if case not in self._tried and (yield case):
                return True
        return False


def _split(places: list[int], parts: int) -> list[list[int]]:
    """Into `parts` runs of about the same length."""
    ends = [len(places) * part // parts for part in range(parts + 1)]
    return [places[start:end] for start, end in pairwise(ends)]
