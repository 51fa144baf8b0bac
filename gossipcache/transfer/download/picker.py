"""Which piece to ask of which parent next: rarest first (BEP 3; Legout et al., IMC 2006), and of
those the latest (Bonald et al., SIGMETRICS 2008).

Bitmaps are integers, bit `i` for piece `i`: a step costs a few microseconds for a thousand
pieces and stays below a millisecond for millions.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection

from gossipcache.ids import NodeId
from gossipcache.swarm import Border

MAX_NEWS = 32
"""So many times that a download heard of new pieces are told apart."""
PLENTY = 3
"""With so many pieces a parent to be asked for, none of them runs out of them soon."""


class Picker:
    """Pieces present, requested and still to be requested, and who has which.

    Rarity counts *partial* parents only, for a complete parent adds one to every piece alike, also
    one that offers its pieces by and by: what is known of that one is what it offered.
    A child has few parents, so that of what is rare to it much is common in the swarm; least of all
    what it heard of last, which therefore comes first: a new piece does not stand behind old ones.
    Among pieces heard of together the choice is random, so that children of one parent get
    different pieces to swap. When every parent is complete there is nothing to swap with
    them, and pieces are taken in order: that is kind to read-ahead and whole-content digests.
    """

    def __init__(self, total: int, rng: random.Random) -> None:
        """`total`: number of pieces, all of which are missing at first."""
        self._total = total
        self._rng = rng
        self.everything = (1 << total) - 1
        self.missing = self.everything
        self.unrequested = self.missing
        """Nobody is relied on for these."""
        self._asked = 0
        """Those of them that somebody was asked for all the same."""
        self._holdings: dict[NodeId, int] = {}
        self._offering: dict[NodeId, int] = {}
        """What each has been asked for, or told that it need not offer (bitmap)."""
        self._rarity: list[int] | None = None
        self._known = 0
        """What any parent ever had."""
        self._news: deque[int] = deque(maxlen=MAX_NEWS)
        """What became known at once, the latest first."""
        self._far: set[NodeId] = set()
        """Also those that are not assigned any more, but may be open."""
        self._shared = 0

    def divide(self, border: Border) -> None:
        """Which parents are in other zones, and what is to be fetched of them."""
        self._far.update(border.parents)
        self._shared = border.pieces(self._total)

    def may_ask(self, parent: NodeId, index: int) -> bool:
        """Whether piece `index` is one that `parent` is there for."""
        return parent not in self._far or bool(self._shared >> index & 1)

    def add(self, parent: NodeId, pieces: int) -> None:
        """`parent` has `pieces` (bitmap) besides those it was known to have."""
        pieces &= self.everything
        self._holdings[parent] = self._holdings.get(parent, 0) | pieces
        if news := pieces & ~self._known:
            self._known |= news
            self._news.appendleft(news)
        self._rarity = None

    def offers(self, parent: NodeId) -> None:
        """`parent` has everything, and offers it by and by."""
        self._offering.setdefault(parent, 0)
        self.add(parent, 0)

    def withdraw(self, parent: NodeId, index: int) -> None:
        """`parent` has not got piece `index` after all."""
        self._holdings[parent] = self._holdings.get(parent, 0) & ~(1 << index)
        self._rarity = None

    def remove(self, parent: NodeId) -> None:
        """`parent` is gone."""
        self._holdings.pop(parent, None)
        self._offering.pop(parent, None)
        self._rarity = None

    def has(self, parent: NodeId, index: int) -> bool:
        """Whether `parent` is known to have piece `index`."""
        return bool(self._holdings.get(parent, 0) >> index & 1)

    @property
    def is_offered(self) -> bool:
        """Whether any parent has everything, and offers it by and by."""
        return bool(self._offering)

    def is_offering(self, parent: NodeId) -> bool:
        """Whether `parent` has everything, and offers it by and by."""
        return parent in self._offering

    @property
    def untried(self) -> int:
        """The pieces (bitmap) that nobody was asked for."""
        return self.unrequested & ~self._asked

    def is_partial(self, parent: NodeId) -> bool:
        """Whether `parent` is not known to have everything."""
        return self._holdings.get(parent, 0) != self.everything

    def is_scarce(self, parent: NodeId) -> bool:
        """Whether `parent` tells what it has as it gets it, and it and its like know of few pieces
        that are to be asked for. What stands in one line then cannot be had where a line is empty.
        """
        if parent in self._offering or not self.is_partial(parent):
            return False
        levels = self._levels()
        known = levels[0] & self.unrequested if levels else 0
        return known.bit_count() < PLENTY * len(self._holdings)

    def claim(self, parent: NodeId, exclude: int = 0) -> int | None:
        """The best piece to ask of `parent`, now counted as requested; None if there is none.

        `exclude`: bitmap of pieces not to choose.
        """
        candidates = self.unrequested & self._holdings.get(parent, 0) & ~exclude
        if parent in self._offering:
            candidates &= ~self._held_by_others(self._offering)
        elif parent in self._far:
            candidates &= self._shared & ~self._held_by_others(self._far)
        return self._claim(parent, candidates)

    def claim_beyond(self, parent: NodeId, exclude: int = 0) -> int | None:
        """The same of a parent that has everything, whether it offered the piece or not."""
        pieces = self._shared if parent in self._far else self.everything
        return self._claim(parent, self.unrequested & pieces & ~exclude)

    def spare(self, parent: NodeId) -> int:
        """What one that offers should hear that it need not offer (bitmap), now counted as known;
        0 as long as it has offered more than one piece that is to be asked for, or gave all of
        what it offered."""
        offered, known = self._holdings[parent], self._offering[parent]
        useful = offered & self.unrequested
        if useful.bit_count() > 1 or not offered & ~self.unrequested & ~known:
            return 0
        spared = self.everything & ~self.unrequested & ~known
        self._offering[parent] |= spared
        self._holdings[parent] |= spared
        return spared

    def reclaim(self, index: int) -> bool:
        """Counts piece `index` as requested again; False if it no longer waits for that."""
        waits = bool(self.unrequested >> index & 1)
        self.unrequested &= ~(1 << index)
        return waits

    def release(self, index: int, *, is_asked: bool = False) -> None:
        """Nobody is relied on for piece `index` any more; `is_asked`: it may still come from those
        who were asked, so that others come first."""
        self.unrequested |= self.missing & 1 << index
        self._asked = self._asked & ~(1 << index) | is_asked << index

    def found(self, pieces: int) -> None:
        """`pieces` (bitmap) are present."""
        self.missing &= ~pieces
        self.unrequested &= ~pieces

    def _claim(self, parent: NodeId, candidates: int) -> int | None:
        candidates = candidates & ~self._asked or candidates
        if not candidates:
            return None
        index = self._choose(candidates)
        self.unrequested &= ~(1 << index)
        if parent in self._offering:
            self._offering[parent] |= 1 << index
        return index

    def _held_by_others(self, parents: Collection[NodeId]) -> int:
        """The pieces that can be had of parents other than these."""
        pieces = 0
        for parent, held in self._holdings.items():
            if parent not in parents:
                pieces |= held
        return pieces

    def _choose(self, candidates: int) -> int:
        levels = self._levels()
        if not levels:
            return _lowest(candidates)
        for common in levels:
            if rare := candidates & ~common:
                candidates = rare
                break
        candidates = next(filter(None, (candidates & news for news in self._news)), candidates)
        start = self._rng.randrange(self._total)
        above = candidates >> start
        return start + _lowest(above) if above else _lowest(candidates)

    def _levels(self) -> list[int]:
        """Bitmap `n`: the pieces that more than `n` partial parents have."""
        if self._rarity is None:
            self._rarity = []
            for parent, pieces in self._holdings.items():
                if pieces != self.everything and parent not in self._offering:
                    self._count(pieces)
        return self._rarity

    def _count(self, pieces: int) -> None:
        assert self._rarity is not None
        for level, common in enumerate(self._rarity):
            self._rarity[level] = common | pieces
            pieces &= common
        self._rarity.append(pieces)


def _lowest(bitmap: int) -> int:
    return (bitmap & -bitmap).bit_length() - 1
