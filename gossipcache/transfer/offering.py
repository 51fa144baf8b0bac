"""Core: in what order a complete parent offers its pieces to many children.

Children that ask one parent for the same pieces have nothing to swap with each other, and the
parent sends each piece many times. While several children follow it, a complete parent therefore
tells each of them of few pieces at first, of those that it has offered least, and of more as they
ask for what they know of: each piece then goes out once before any goes out twice (super-seeding,
BEP 16). On the wire it is a parent that gets its pieces one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from gossipcache.ids import NodeId

FIRST_OFFERS = 4
"""Pieces that a child hears of at first, and each time it has asked for all but one of them. Who is
alone once so many were sent hears of everything: children that come together are here by then."""


@dataclass(slots=True)
class _Offer:
    """What one child has been told, and what it asked for (bitmaps)."""

    told: int = 0
    asked: int = 0
    owed: int = 0
    """Requests that wait for an answer."""
    count: int = FIRST_OFFERS

    @property
    def is_used_up(self) -> bool:
        return (self.told & ~self.asked).bit_count() <= 1


class Offering:
    """The offers of one complete task to the children of one parent."""

    def __init__(self, piece_count: int, start: int) -> None:
        """`start`: the piece that is offered first; another one for each parent."""
        self._everything = (1 << piece_count) - 1
        self._start = start
        self._unoffered = self._everything
        self._unsent = self._everything
        self._offers: dict[NodeId, _Offer] = {}
        self._settled = 0
        """Requests that were answered, or taken back."""

    @property
    def is_open(self) -> bool:
        """Whether everybody hears of everything: there are few pieces, or a single child, with
        nobody to swap with, or each piece went out once."""
        is_small = not self._everything >> FIRST_OFFERS
        is_alone = len(self._offers) <= 1 and self._settled >= FIRST_OFFERS
        return is_small or is_alone or not self._unsent

    @property
    def is_idle(self) -> bool:
        """Whether nobody follows."""
        return not self._offers

    def join(self, child: NodeId) -> None:
        """A child follows from now on; one that did already starts anew."""
        self._offers[child] = _Offer()

    def leave(self, child: NodeId) -> None:
        """It does not any more; what it never asked for is for others."""
        offer = self._offers.pop(child, _Offer())
        self._unoffered |= offer.told & ~offer.asked & self._unsent

    def follows(self, child: NodeId) -> bool:
        """Whether a child does."""
        return child in self._offers

    def knows_all(self, child: NodeId) -> bool:
        """Whether there is nothing more to tell a child."""
        return child not in self._offers or self._offers[child].told == self._everything

    def asked(self, child: NodeId, index: int) -> bool:
        """A child asks for a piece; whether it should hear of more at once."""
        self._unsent &= ~(1 << index)
        self._unoffered &= ~(1 << index)
        offer = self._offers.get(child)
        if offer is None:
            return False
        offer.asked |= 1 << index
        offer.owed += 1
        return offer.is_used_up

    def settled(self, child: NodeId) -> None:
        """A request of a child was answered, or taken back."""
        self._settled += 1
        if child in self._offers:
            self._offers[child].owed -= 1

    def more(self, child: NodeId) -> int:
        """What a child hears of now (bitmap), after it asked, or a while after the last time.

        Where it knows of pieces, and asks for none of them, these are of no use to it: it hears
        of twice as many as the last time.
        """
        offer = self._offers.get(child)
        if offer is None:
            return 0
        if self.is_open:
            pieces = self._everything & ~offer.told
            offer.told |= pieces
            return pieces
        if offer.is_used_up:
            offer.count = FIRST_OFFERS
        elif offer.owed <= 0:
            offer.count *= 2
        else:
            return 0
        return self._take(offer)

    def _take(self, offer: _Offer) -> int:
        pieces = 0
        for _ in range(offer.count):
            if not self._unoffered & ~offer.told:
                # All are offered to somebody: those that nobody asked for yet come again.
                self._unoffered |= self._unsent
            fresh = self._unoffered & ~offer.told or self._everything & ~offer.told
            if not fresh:
                break
            ahead = fresh >> self._start << self._start or fresh
            piece = ahead & -ahead
            self._unoffered &= ~piece
            offer.told |= piece
            pieces |= piece
        return pieces
