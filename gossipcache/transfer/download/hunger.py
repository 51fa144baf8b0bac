"""Whether a download goes short, so that it may ask beyond what it was offered.

A parent that offers its pieces gives each to one child, and the children swap. What it did not
offer is left to others as long as they bring something; else those who have everything give all
of it to everybody, and fastest where they are the least busy. The last few pieces are waited for
no moment: at the end all parents may be complete, and offer by and by what the download has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from gossipcache.transfer.download.parent import Parent
from gossipcache.transfer.download.picker import Picker
from gossipcache.transfer.offering import FIRST_OFFERS

PATIENCE_S = 0.5
"""How long a download waits for nothing first: several times as long as partial parents keep news
to themselves."""
_GAIN = 4.0
"""What an offering parent must bring more than all others together, to be asked all the same."""


class Hunger:
    """Of one download."""

    def __init__(self, picker: Picker) -> None:
        self._picker = picker
        self._waits_since: float | None = None
        """Since when nothing is in flight, though pieces are to be asked for."""
        self._is_starved = False
        """It was so for too long, and nobody but those who offer was asked since."""

    def look(self, parents: Collection[Parent], now: float) -> None:
        """How it stands. Who makes it wait in line brings nothing soon."""
        owing = [parent for parent in parents if parent.requests and not parent.is_waiting]
        if owing or not (self._picker.unrequested and self._picker.is_offered):
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = now
        if not all(map(self._offers, owing)):
            self._is_starved = False
        elif self._waits_since is not None and now >= self._waits_since + self._patience_s:
            self._is_starved = True

    def may_ask(self, offering: Parent, parents: Iterable[Parent]) -> bool:
        """Whether one that offers is to be asked for what others have, or will have soon."""
        if self._is_starved or offering.requests:
            return self._is_starved
        others = [one for one in parents if one.requests and not self._offers(one)]
        income = sum(parent.meter.rate or 0.0 for parent in others)
        return (offering.meter.rate or 0.0) > _GAIN * income > 0

    def _offers(self, parent: Parent) -> bool:
        return self._picker.is_offering(parent.node)

    @property
    def starves_at(self) -> float | None:
        """When it goes short unless something is in flight by then; None if something is, or it
        does already."""
        if self._waits_since is None or self._is_starved:
            return None
        return self._waits_since + self._patience_s

    @property
    def _patience_s(self) -> float:
        """None where as few pieces are lacking as a task has that is not offered by and by."""
        return PATIENCE_S if self._picker.missing.bit_count() > FIRST_OFFERS else 0.0
