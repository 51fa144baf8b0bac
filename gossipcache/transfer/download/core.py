"""The core of a download: which parents to open, which piece to ask of whom, whom to drop.

Sans-IO. `handle(event, now)` and `handle_timeout(now)` return effects in order; times are
monotonic seconds. Every piece is in one of four states: present, unrequested, in flight (at
one parent, or at several when one stalls and in the endgame), or received and being checked.
A parent is never asked for one piece twice at once.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from math import inf
from operator import attrgetter, itemgetter

from gossipcache.config import TransferConfig
from gossipcache.ids import NodeId
from gossipcache.manifest import Manifest
from gossipcache.pacing import Pace
from gossipcache.transfer.download.endgame import late_requests
from gossipcache.transfer.download.events import (
    BudgetChanged,
    CancelPiece,
    CheckPiece,
    DropParent,
    Effect,
    Event,
    FetchPiece,
    Finished,
    ParentHas,
    ParentLost,
    ParentOffers,
    ParentProgressed,
    ParentRefused,
    ParentsAssigned,
    PieceChecked,
    PieceDelayed,
    PieceReceived,
    PieceRefusedBy,
    SlotOpened,
    SpareParent,
    StoreReady,
)
from gossipcache.transfer.download.hunger import Hunger
from gossipcache.transfer.download.parent import Parent
from gossipcache.transfer.download.patience import Patience
from gossipcache.transfer.download.picker import Picker
from gossipcache.transfer.download.requests import Request, Requests
from gossipcache.transfer.download.roster import Roster

_MAX_BACKLOG = 4
"""With more pieces than this waiting to be checked, this machine is the bottleneck: to ask for
more would only fill memory and cool the processor's caches."""
_FIRST_PIECES = 2
"""Asked of a partial parent until it brought one: the fewer share its uplink at first, the sooner
each of its children has something to give."""
_RETRY_SPREAD = 0.5
"""By how much more than a busy parent says a child may wait, so that not all return at once."""


class DownloadCore:
    """One download of one task."""

    def __init__(
        self,
        config: TransferConfig,
        manifest: Manifest,
        budget: int,
        rng: random.Random,
        pace: Pace | None = None,
    ) -> None:
        """`budget`: see `BudgetChanged`. `pace`: how fast pieces may be asked for."""
        self._manifest = manifest
        self._budget = budget
        self._pace = pace or Pace()
        self._paid_at: float | None = None
        """Until then nothing is asked for, because of the pace."""
        self._rng = rng
        self._picker = Picker(manifest.piece_count, rng)
        self._roster = Roster(config)
        self._parents = self._roster.parents
        self._retries = self._roster.retries
        self._patience = Patience(config)
        self._requests = Requests(self._picker)
        self._hunger = Hunger(self._picker)
        self._ready = False
        self._finished = False

    @property
    def missing(self) -> int:
        """How many pieces are not present yet."""
        return self._picker.missing.bit_count()

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Takes in `event`; what names a parent or request already gone is ignored."""
        effects: list[Effect] = []
        requests = self._requests
        match event:
            case StoreReady(present):
                self._picker.found(present)
                self._ready = True
            case ParentsAssigned(parents, border):
                self._roster.assign(parents)
                self._picker.divide(border)
            case SlotOpened(parent, slot, rtt_s):
                self._slot_opened(parent, slot, rtt_s, now)
            case ParentHas(parent, pieces) if parent in self._parents:
                self._picker.add(parent, pieces)
            case ParentOffers(parent) if parent in self._parents:
                self._picker.offers(parent)
            case ParentProgressed(parent) if parent in self._parents:
                self._progressed(self._parents[parent], now)
            case PieceDelayed(parent, request_id, wait_s) if requests.owes(parent, request_id):
                effects += self._delayed(requests.in_flight[request_id], wait_s, now)
            case PieceReceived(request_id) if request_id in requests.in_flight:
                effects += self._received(requests.in_flight.pop(request_id), now)
            case PieceChecked(request_id, valid) if request_id in requests.checking:
                effects += self._checked(requests.checking.pop(request_id), valid)
            case PieceRefusedBy(parent, request_id, code) if requests.owes(parent, request_id):
                effects += self._piece_refused(requests.in_flight.pop(request_id), code, now)
            case ParentRefused(parent, code, retry_after_s) if parent in self._parents:
                self._forget(parent)
                if code == "busy":
                    spread = 1 + self._rng.uniform(0, _RETRY_SPREAD)
                    self._retries.busy(parent, now, spread * retry_after_s)
                else:
                    self._retries.failed(parent, now)
            case ParentLost(parent, hostile=hostile) if parent in self._parents:
                self._forget(parent)
                if hostile:
                    self._retries.ban(parent)
                self._retries.failed(parent, now)
            case BudgetChanged(pieces):
                self._budget = pieces
        return effects + self._settle(now)

    def next_timeout(self) -> float | None:
        """When `handle_timeout` is due, or None."""
        if self._finished:
            return None
        waits = [self._patience.look_at(parent) for parent in self._parents.values()]
        if not self._roster.is_settled:
            waits += self._roster.retry_times()
        if self._paid_at is not None:
            waits.append(self._paid_at)
        elif self._has_room():
            waits += [at for parent in self._idle_parents() for at, _ in self._late(parent)]
            if (starves_at := self._hunger.starves_at) is not None:
                waits.append(starves_at)
        due = min(waits, default=inf)
        return None if due == inf else due

    def handle_timeout(self, now: float) -> list[Effect]:
        """Looks for parents that stalled, pieces that are overdue, and pauses that are over."""
        effects: list[Effect] = []
        for parent in list(self._parents.values()):
            if parent.paused_until is not None and now >= parent.paused_until:
                parent.paused_until = None
            effects += self._watch(parent, now)
        return effects + self._settle(now)

    # Parents

    def _slot_opened(self, node: NodeId, slot: int, rtt_s: float, now: float) -> None:
        parent = self._parents.get(node)
        if parent is None:
            return
        parent.slots.setdefault(slot, 0)
        parent.rtt_s, parent.progress_at = rtt_s, now

    def _progressed(self, parent: Parent, now: float) -> None:
        parent.progress_at = now
        if parent.stalled:
            parent.stalled = False
            if not parent.is_waiting:
                self._requests.reclaim(parent.requests.values())

    def _watch(self, parent: Parent, now: float) -> list[Effect]:
        patience = self._patience
        if not parent.is_open and now >= patience.unopened_at(parent):
            return self._drop(parent, "it did not open the task in time", now)
        if not (parent.requests or parent.stalled):
            return []
        if patience.breaks_word(parent, now):
            return self._drop(parent, "it promised a turn that did not come", now)
        if now >= patience.silent_at(parent):
            if parent.stalled:
                return self._drop(parent, "it stopped sending", now)
            parent.stalled = True
            for request in parent.requests.values():
                self._requests.release(request)
        return self._watch_oldest(parent, now)

    def _watch_oldest(self, parent: Parent, now: float) -> list[Effect]:
        oldest = parent.oldest_kept
        if oldest is None:
            return []
        is_overdue = now >= self._patience.overdue_at(parent, oldest)
        if is_overdue and parent.meter.rate is not None:
            self._picker.withdraw(parent.node, oldest.index)
            return [self._cancel(oldest)]
        is_late = now >= self._patience.late_at(parent, oldest)
        if is_late or is_overdue:
            # It may be slow, or trickle on purpose: others may have a try as well.
            self._requests.release(oldest, is_late=True)
        if not is_late:
            return []
        parent.is_late = True
        return self._unburden(parent)

    def _drop(self, parent: Parent, fault: str | None, now: float) -> list[Effect]:
        self._forget(parent.node)
        if fault is not None:
            self._retries.failed(parent.node, now)
        return [DropParent(parent.node, fault)]

    def _forget(self, node: NodeId) -> None:
        """Frees all that `node` was asked for. Pieces of it being checked are checked on."""
        parent = self._parents.pop(node)
        for request in parent.requests.values():
            del self._requests.in_flight[request.request_id]
            self._requests.release(request)
        self._picker.remove(node)

    # Pieces

    def _delayed(self, request: Request, wait_s: float, now: float) -> list[Effect]:
        """A parent says when the turn for `request` comes: others may bring it, and what waits
        behind it, sooner. Once it is there, others that have not begun are not to."""
        parent = self._parents[request.parent]
        parent.told_to_wait(wait_s, now)
        if wait_s > 0:
            for behind in parent.requests.values():
                if behind.slot == request.slot and not behind.released:
                    self._requests.release(behind)
            return []
        self._requests.reclaim([request])
        others = self._requests.others(request)
        return [self._cancel(one) for one in others if self._parents[one.parent].is_waiting]

    def _received(self, request: Request, now: float) -> list[Effect]:
        parent = self._parents[request.parent]
        elapsed_s = parent.arrived(request, now, self._budget)
        self._progressed(parent, now)
        self._requests.reclaim(parent.requests.values())
        self._retries.worked(parent.node)
        self._requests.received(request)
        others = self._requests.others(request)
        check = CheckPiece(parent.node, request.index, request.request_id, elapsed_s)
        return [check, *(self._cancel(other) for other in others), *self._unburden_slow()]

    def _unburden_slow(self) -> list[Effect]:
        self._patience.measure(self._parents.values())
        slow = [one for one in self._parents.values() if self._patience.is_slow(one)]
        return [effect for parent in slow for effect in self._unburden(parent)]

    def _unburden(self, slow: Parent) -> list[Effect]:
        """Takes back what waits behind the first piece: others bring it sooner."""
        return [self._cancel(request) for request in slow.behind_first()]

    def _checked(self, request: Request, valid: bool) -> list[Effect]:
        if valid:
            self._picker.found(1 << request.index)
            return []
        self._requests.release(request)
        self._retries.ban(request.parent)
        if request.parent not in self._parents:
            return []
        self._forget(request.parent)
        return [DropParent(request.parent, f"piece {request.index} was not what it must be")]

    def _piece_refused(self, request: Request, code: str, now: float) -> list[Effect]:
        parent = self._parents[request.parent]
        parent.settled(request)
        self._progressed(parent, now)
        self._requests.release(request)
        if code == "busy":
            parent.paused_until = self._retries.busy(parent.node, now)
        elif self._picker.is_offering(parent.node):
            return self._drop(parent, "it has not got what it says it has", now)
        else:
            self._picker.withdraw(parent.node, request.index)
        return []

    def _cancel(self, request: Request) -> CancelPiece:
        del self._requests.in_flight[request.request_id]
        self._parents[request.parent].settled(request)
        self._requests.release(request)
        return CancelPiece(request.parent, request.slot, request.request_id)

    # What to do next

    def _settle(self, now: float) -> list[Effect]:
        if self._finished:
            return []
        if self._ready and not self._picker.missing:
            self._finished = True
            return [Finished()]
        effects: list[Effect] = []
        if not self._roster.is_settled:
            for parent in self._roster.replaceable(now):
                effects += self._drop(parent, None, now)
            effects += self._roster.open(self.missing, now)
        self._paid_at = None
        if self._ready:
            effects += self._ask(now)
            effects += self._ask_beyond(now)
            effects += self._ask_again(now)
            effects += self._spare()
        return effects

    def _has_room(self) -> bool:
        has_backlog = len(self._requests.checking) > _MAX_BACKLOG
        return len(self._requests) < self._budget and not has_backlog

    def _may_ask(self, now: float) -> bool:
        """Whether there is room and the pace allows it; else `next_timeout` says when it will."""
        if not self._has_room():
            return False
        paid_at = self._pace.paid_at()
        if paid_at <= now:
            return True
        self._paid_at = paid_at
        return False

    def _can_ask(self, parent: Parent) -> bool:
        picker = self._picker
        if parent.requests and picker.is_scarce(parent.node):
            return False
        fair = max(1, self._budget // len(self._parents))
        if picker.is_partial(parent.node):
            fair = min(fair, _FIRST_PIECES)
        return parent.can_ask(fair, is_slow=self._patience.is_slow(parent))

    def _ask(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if not (self._picker.unrequested and self._has_room()):
            return effects
        ready = [parent for parent in self._parents.values() if self._can_ask(parent)]
        while ready and self._picker.unrequested and self._may_ask(now):
            parent = min(ready, key=attrgetter("turn"))
            index = self._picker.claim(parent.node, parent.pieces)
            if index is not None:
                effects.append(self._fetch(parent, index, now))
            if index is None or not self._can_ask(parent):
                ready.remove(parent)
        return effects

    def _fetch(self, parent: Parent, index: int, now: float) -> FetchPiece:
        slot, size = parent.least_busy_slot(), self._manifest.piece_length(index)
        request = self._requests.begin(parent.node, slot, index, size, now)
        parent.asked(request, now)
        if parent.is_waiting:
            self._requests.release(request)
        self._pace.take(size, now)
        return FetchPiece(parent.node, slot, index, request.request_id)

    def _ask_beyond(self, now: float) -> list[Effect]:
        """Asks those who offer for what they did not offer, where the download goes short."""
        parents = self._parents.values()
        self._hunger.look(parents, now)
        effects: list[Effect] = []
        for parent in (parent for parent in parents if self._picker.is_offering(parent.node)):
            while self._hunger.may_ask(parent, parents) and self._can_ask(parent):
                if not self._may_ask(now):
                    return effects
                index = self._picker.claim_beyond(parent.node, parent.pieces)
                if index is None:
                    break
                effects.append(self._fetch(parent, index, now))
        return effects

    def _spare(self) -> Iterator[SpareParent]:
        """Tells those who offer what others gave of it, so that they offer more: where all do, for
        what others bring need not come from them."""
        opened = [parent.node for parent in self._parents.values() if parent.is_open]
        if all(map(self._picker.is_offering, opened)):
            for node in opened:
                if pieces := self._picker.spare(node):
                    yield SpareParent(node, pieces)

    # The endgame: idle parents take over what slower ones still owe; two requests a piece.

    def _ask_again(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for parent in self._idle_parents():
            late_at, late = min(self._late(parent), key=itemgetter(0), default=(now, None))
            if late is not None and late_at <= now and self._may_ask(now):
                effects.append(self._fetch(parent, late.index, now))
        return effects

    def _idle_parents(self) -> Iterator[Parent]:
        if self._picker.untried or not self._ready:
            return
        for parent in self._parents.values():
            if self._can_ask(parent) and parent.in_flight < len(parent.slots):
                yield parent

    def _late(self, idle: Parent) -> Iterator[tuple[float, Request]]:
        in_flight = [
            request
            for request in self._requests.in_flight.values()
            if self._picker.may_ask(idle.node, request.index)
        ]
        return late_requests(idle, in_flight, self._parents, self._picker)
