"""Core: in what order a complete parent offers its pieces to many children.

Children that ask one parent for the same pieces have nothing to swap with each other, and the
parent sends each piece many times. A complete parent therefore tells each child of few pieces at
first, of those that nobody was told of, and of more as they ask for what they know of: each piece
then goes out once before any goes out twice (super-seeding, BEP 16). When each did, it offers none
to several children any more: they have all that there is between them. A child asks for what it
was not offered where nobody else would bring it anything soon (`DownloadCore`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from gossipcache.ids import NodeId

FIRST_OFFERS = 4
"""Pieces that a child hears of at first, and each time it has asked for all but one of them."""
ALONE_OFFERS = 16
"""The same for the only child, once it has the first: enough to fill a long link."""

LATEST = 8
"""Pieces that a child that is gone may have been the only one to have."""
SLOW_TURNS = 12
"""So many requests a child, settled since one was made that is not, show that its child is slow:
three times what a child has waiting here."""
MAX_SILENT = 5
"""So often a child that asks for nothing of what it knows is left to that."""


@dataclass(slots=True)
class _Offer:
    """What one child has been told, and what it asked for (bitmaps)."""

    told: int = 0
    asked: int = 0
    spared: int = 0
    """What it has from others, or will have, as it says."""
    owed: int = 0
    """Requests that wait for an answer."""
    latest: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=LATEST))
    """What it asked for last, and how many requests of all children had been settled by then."""
    silent: int = 0
    """How often in a row it waited for nothing, though it knows of pieces."""

    @property
    def known(self) -> int:
        return self.told | self.spared

    @property
    def is_used_up(self) -> bool:
        return (self.told & ~self.asked & ~self.spared).bit_count() <= 1


class Offering:
    """The offers of one complete task to the children of one parent."""

    def __init__(self, piece_count: int, start: int) -> None:
        """`start`: the piece that is offered first; another one for each parent."""
        self._everything = (1 << piece_count) - 1
        self._start = start
        self._unoffered = self._everything
        self._unsent = self._everything
        self._offers: dict[NodeId, _Offer] = {}
        self._again = 0
        """Pieces that were offered a second time, for they went to a slow child."""
        self._settled = 0
        """Requests that were answered, or taken back."""

    @property
    def is_open(self) -> bool:
        """Whether everybody hears of everything at once: there are few pieces."""
        return not self._everything >> FIRST_OFFERS

    @property
    def is_alone(self) -> bool:
        """Whether there is a single child, with nobody to swap with. Children that come together
        are here by the time that the first pieces were sent."""
        return len(self._offers) <= 1 and self._settled >= FIRST_OFFERS

    @property
    def is_idle(self) -> bool:
        """Whether nobody follows."""
        return not self._offers

    def join(self, child: NodeId) -> None:
        """A child follows from now on; one that did already starts anew."""
        self._offers[child] = _Offer()

    def leave(self, child: NodeId) -> None:
        """It does not any more; what it never asked for is for others, and so is what it got last,
        for it may have died before it gave that to anyone."""
        offer = self._offers.pop(child, _Offer())
        for index, _ in offer.latest:
            self._unsent |= 1 << index
        self._unoffered |= (offer.told | offer.asked) & self._unsent

    def follows(self, child: NodeId) -> bool:
        """Whether a child does."""
        return child in self._offers

    def knows_all(self, child: NodeId) -> bool:
        """Whether there is nothing more to tell a child."""
        return child not in self._offers or self._offers[child].known == self._everything

    def asked(self, child: NodeId, index: int) -> bool:
        """A child asks for a piece; whether it should hear of more at once."""
        self._unsent &= ~(1 << index)
        self._unoffered &= ~(1 << index)
        offer = self._offers.get(child)
        if offer is None:
            return False
        offer.asked |= 1 << index
        offer.latest.append((index, self._settled))
        offer.owed += 1
        return offer.is_used_up

    def spared(self, child: NodeId, pieces: int) -> bool:
        """A child has these pieces (bitmap) from others, or will have, and need not be told of
        them; whether it should hear of more at once."""
        offer = self._offers.get(child)
        if offer is None:
            return False
        offer.spared |= pieces & self._everything
        return offer.is_used_up

    def settled(self, child: NodeId, lost: int | None = None) -> None:
        """A request of a child was answered, or taken back; or the channel broke, and the piece is
        `lost` on the way: others are to have it."""
        self._settled += 1
        if lost is not None:
            self._unsent |= 1 << lost
            self._unoffered |= 1 << lost
        if child in self._offers:
            self._offers[child].owed -= 1

    def more(self, child: NodeId) -> int:
        """What a child hears of now (bitmap), after it asked, or a while after the last time.

        Where it knows of pieces, and asks for none of them for long, these are of no use to it.
        """
        offer = self._offers.get(child)
        if offer is None:
            return 0
        offer.silent = 0 if offer.is_used_up or offer.owed > 0 else offer.silent + 1
        if not offer.is_used_up and offer.silent < MAX_SILENT:
            return 0
        offer.silent = 0
        return self._take(offer)

    def _take(self, offer: _Offer) -> int:
        pieces = 0
        for _ in range(ALONE_OFFERS if self.is_alone else FIRST_OFFERS):
            fresh = self._fresh(offer)
            if not fresh:
                break
            ahead = fresh >> self._start << self._start or fresh
            piece = ahead & -ahead
            self._unoffered &= ~piece
            offer.told |= piece
            pieces |= piece
        return pieces

    def _fresh(self, offer: _Offer) -> int:
        """What it may hear of: pieces that nobody was told of; when there are none, those that
        nobody asked for; then those that slow children wait for, and a child that is alone, all."""
        if not self._unoffered & ~offer.known:
            self._unoffered |= self._unsent & ~offer.known
        fresh = self._unoffered & ~offer.known
        if fresh or self.is_alone:
            return fresh or self._everything & ~offer.known
        self._unoffered |= self._late()
        return self._unoffered & ~offer.known

    def _late(self) -> int:
        """What is owed to children that take it in far more slowly than the others (bitmap), each
        once: nobody can have it of them soon."""
        patience = SLOW_TURNS * len(self._offers)
        late = 0
        for offer in self._offers.values():
            for index, settled in list(offer.latest)[-offer.owed :] if offer.owed > 0 else []:
                if self._settled - settled > patience:
                    late |= 1 << index
        late &= ~self._again
        self._again |= late
        return late
