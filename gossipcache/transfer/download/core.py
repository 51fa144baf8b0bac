"""The core of a download: which parents to open, which piece to ask of whom, whom to drop.

Sans-IO. `handle(event, now)` and `handle_timeout(now)` return effects in order; times are
monotonic seconds. Every piece is in one of four states: present, unrequested, in flight (at
one parent, or at several when one stalls and in the endgame), or received and being checked.
A parent is never asked for one piece twice at once.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from operator import itemgetter

from gossipcache.config import TransferConfig
from gossipcache.ids import NodeId
from gossipcache.manifest import Manifest
from gossipcache.pacing import Pace
from gossipcache.transfer.download.endgame import LATE_S, late_requests
from gossipcache.transfer.download.events import (
    BudgetChanged,
    CancelPiece,
    CheckPiece,
    DropParent,
    Effect,
    Event,
    FetchPiece,
    Finished,
    OpenParent,
    ParentHas,
    ParentLost,
    ParentOffers,
    ParentProgressed,
    ParentRefused,
    ParentsAssigned,
    PieceChecked,
    PieceReceived,
    PieceRefusedBy,
    SlotOpened,
    StoreReady,
)
from gossipcache.transfer.download.hunger import Hunger
from gossipcache.transfer.download.parent import Parent, Request
from gossipcache.transfer.download.picker import Picker
from gossipcache.transfer.download.retries import Retries

OPEN_TIMEOUT_S = 10.0
"""A parent that has not opened the task by then, nor sent any byte meanwhile, is given up."""
_MAX_BACKLOG = 4
"""With more pieces than this waiting to be checked, this machine is the bottleneck: to ask for
more would only fill memory and cool the processor's caches."""
_FIRST_PIECES = 2
"""Asked of a partial parent until it brought one: the fewer share its uplink at first, the sooner
each of its children has something to give."""
_OVERDUE_FACTOR = 4.0


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
        self._config = config
        self._manifest = manifest
        self._budget = budget
        self._pace = pace or Pace()
        self._paid_at: float | None = None
        """Until then nothing is asked for, because of the pace."""
        self._picker = Picker(manifest.piece_count, rng)
        self._assigned: tuple[NodeId, ...] = ()
        self._parents: dict[NodeId, Parent] = {}
        self._retries = Retries()
        self._in_flight: dict[int, Request] = {}
        self._checking: dict[int, Request] = {}
        self._last_request_id = 0
        self._hunger = Hunger()
        self._ready = False
        self._finished = False

    @property
    def missing(self) -> int:
        """How many pieces are not present yet."""
        return self._picker.missing.bit_count()

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Takes in `event`; what names a parent or request already gone is ignored."""
        effects: list[Effect] = []
        match event:
            case StoreReady(present):
                self._picker.found(present)
                self._ready = True
            case ParentsAssigned(parents, border):
                self._assigned = parents
                self._picker.divide(border)
            case SlotOpened(parent, slot, rtt_s):
                self._slot_opened(parent, slot, rtt_s, now)
            case ParentHas(parent, pieces) if parent in self._parents:
                self._picker.add(parent, pieces)
            case ParentOffers(parent) if parent in self._parents:
                self._parents[parent].offers = True
                self._picker.offers(parent)
            case ParentProgressed(parent) if parent in self._parents:
                self._progressed(self._parents[parent], now)
            case PieceReceived(request_id) if request_id in self._in_flight:
                effects += self._received(self._in_flight.pop(request_id), now)
            case PieceChecked(request_id, valid) if request_id in self._checking:
                effects += self._checked(self._checking.pop(request_id), valid)
            case PieceRefusedBy(parent, request_id, code) if self._owes(parent, request_id):
                self._piece_refused(self._in_flight.pop(request_id), code, now)
            case ParentRefused(parent, code) if parent in self._parents:
                self._forget(parent)
                pause = self._retries.busy if code == "busy" else self._retries.failed
                pause(parent, now)
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
        waits = [at for parent in self._parents.values() for at in self._deadlines(parent)]
        if len(self._parents) < self._most_parents:
            closed = (node for node in self._assigned if node not in self._parents)
            waits += [at for node in closed if (at := self._retries.wait_until(node)) is not None]
        if self._paid_at is not None:
            waits.append(self._paid_at)
        elif self._has_room():
            waits += [at for parent in self._idle_parents() for at, _ in self._late(parent)]
            if (starves_at := self._hunger.starves_at) is not None:
                waits.append(starves_at)
        return min(waits, default=None)

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
        if not parent.stalled:
            return
        parent.stalled = False
        for request in parent.requests.values():
            if request.released and self._picker.reclaim(request.index):
                request.released = False

    def _deadlines(self, parent: Parent) -> Iterator[float]:
        if not parent.is_open:
            yield parent.progress_at + OPEN_TIMEOUT_S
        if parent.paused_until is not None:
            yield parent.paused_until
        if parent.requests or parent.stalled:
            yield parent.progress_at + self._silence_s(parent)
        if (overdue_at := self._overdue_at(parent)) is not None:
            yield overdue_at

    def _silence_s(self, parent: Parent) -> float:
        return self._config.piece_timeout_s if parent.stalled else self._config.stall_s

    def _overdue_at(self, parent: Parent) -> float | None:
        """When the oldest request is no longer left to this parent alone, bytes or no bytes."""
        oldest, rate = parent.oldest_kept, parent.meter.rate
        if oldest is None:
            return None
        usual_s = _OVERDUE_FACTOR * parent.window * oldest.size / rate if rate else 0.0
        return oldest.asked_at + max(self._config.piece_timeout_s, usual_s)

    def _watch(self, parent: Parent, now: float) -> list[Effect]:
        if not parent.is_open and now >= parent.progress_at + OPEN_TIMEOUT_S:
            return self._drop(parent, "it did not open the task in time", now)
        if not (parent.requests or parent.stalled):
            return []
        if now >= parent.progress_at + self._silence_s(parent):
            if parent.stalled:
                return self._drop(parent, "it stopped sending", now)
            parent.stalled = True
            for request in parent.requests.values():
                self._release(request)
        overdue_at, oldest = self._overdue_at(parent), parent.oldest_kept
        if overdue_at is None or oldest is None or now < overdue_at:
            return []
        if parent.meter.rate is None:
            # It may be slow, or trickle on purpose: others may have a try as well.
            self._release(oldest)
            return []
        self._picker.withdraw(parent.node, oldest.index)
        return [self._cancel(oldest)]

    def _drop(self, parent: Parent, fault: str | None, now: float) -> list[Effect]:
        self._forget(parent.node)
        if fault is not None:
            self._retries.failed(parent.node, now)
        return [DropParent(parent.node, fault)]

    def _forget(self, node: NodeId) -> None:
        """Frees all that `node` was asked for. Pieces of it being checked are checked on."""
        parent = self._parents.pop(node)
        for request in parent.requests.values():
            del self._in_flight[request.request_id]
            self._release(request)
        self._picker.remove(node)

    # Pieces

    def _received(self, request: Request, now: float) -> list[Effect]:
        parent = self._parents[request.parent]
        elapsed_s = parent.arrived(request, now, self._budget)
        self._progressed(parent, now)
        self._retries.worked(parent.node)
        self._checking[request.request_id] = request
        self._picker.reclaim(request.index)
        request.released = False
        others = [other for other in self._in_flight.values() if other.index == request.index]
        check = CheckPiece(parent.node, request.index, request.request_id, elapsed_s)
        return [check, *(self._cancel(other) for other in others)]

    def _checked(self, request: Request, valid: bool) -> list[Effect]:
        if valid:
            self._picker.found(1 << request.index)
            return []
        self._release(request)
        self._retries.ban(request.parent)
        if request.parent not in self._parents:
            return []
        self._forget(request.parent)
        return [DropParent(request.parent, f"piece {request.index} was not what it must be")]

    def _piece_refused(self, request: Request, code: str, now: float) -> None:
        parent = self._parents[request.parent]
        parent.settled(request)
        self._progressed(parent, now)
        self._release(request)
        if code == "busy":
            parent.paused_until = self._retries.busy(parent.node, now)
        else:
            self._picker.withdraw(parent.node, request.index)

    def _owes(self, node: NodeId, request_id: int) -> bool:
        request = self._in_flight.get(request_id)
        return request is not None and request.parent == node

    def _release(self, request: Request) -> None:
        request.released = True
        holders = (*self._in_flight.values(), *self._checking.values())
        if not any(other.index == request.index and not other.released for other in holders):
            self._picker.release(request.index)

    def _cancel(self, request: Request) -> CancelPiece:
        del self._in_flight[request.request_id]
        self._parents[request.parent].settled(request)
        self._release(request)
        return CancelPiece(request.parent, request.slot, request.request_id)

    # What to do next

    def _settle(self, now: float) -> list[Effect]:
        if self._finished:
            return []
        if self._ready and not self._picker.missing:
            self._finished = True
            return [Finished()]
        effects = self._replace_unassigned(now)
        effects += self._open_parents(now)
        self._paid_at = None
        if self._ready:
            effects += self._ask(now)
            effects += self._ask_beyond(now)
            effects += self._ask_again(now)
        return effects

    def _replace_unassigned(self, now: float) -> list[Effect]:
        """Parents no longer assigned work on, unless assigned ones wait for their places: then they
        give what they owe, if that comes soon."""
        surplus = len(self._parents) - self._most_parents
        surplus += sum(self._may_open(node, now) for node in self._assigned)
        effects: list[Effect] = []
        for parent in list(self._parents.values()):
            parent.draining = surplus > 0 and parent.node not in self._assigned
            surplus -= parent.draining
            if parent.draining and (not parent.requests or parent.drain_s() > LATE_S):
                effects += self._drop(parent, None, now)
        return effects

    @property
    def _most_parents(self) -> int:
        """How many may be open: the owner may assign more where a download has fallen behind."""
        return max(self._config.max_active_parents, len(self._assigned))

    def _may_open(self, node: NodeId, now: float) -> bool:
        return node not in self._parents and self._retries.may_open(node, now)

    def _open_parents(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        # Two connections make the most of a single parent. Where several give, each has other
        # children too, and a piece takes the longer the more connections share an uplink.
        few = self.missing <= self._config.pipeline_depth or len(self._assigned) > 1
        connections = 1 if few else self._config.connections_per_parent
        for node in self._assigned:
            if len(self._parents) >= self._most_parents:
                break
            if self._may_open(node, now):
                window = self._config.pipeline_depth * connections
                self._parents[node] = Parent(node, window, progress_at=now)
                effects.append(OpenParent(node, connections))
        return effects

    def _has_room(self) -> bool:
        busy = len(self._in_flight) + len(self._checking)
        return busy < self._budget and len(self._checking) <= _MAX_BACKLOG

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
        fair = max(1, self._budget // len(self._parents))
        if self._picker.is_partial(parent.node):
            fair = min(fair, _FIRST_PIECES)
        if parent.requests and self._picker.is_scarce(parent.node):
            return False
        return parent.can_ask(fair)

    def _ask(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        ready = [parent for parent in self._parents.values() if self._can_ask(parent)]
        while ready and self._picker.unrequested and self._may_ask(now):
            parent = min(ready, key=lambda parent: parent.in_flight / parent.window)
            index = self._picker.claim(parent.node, parent.pieces)
            if index is not None:
                effects.append(self._fetch(parent, index, now))
            if index is None or not self._can_ask(parent):
                ready.remove(parent)
        return effects

    def _fetch(self, parent: Parent, index: int, now: float) -> FetchPiece:
        self._last_request_id += 1
        slot, size = parent.least_busy_slot(), self._manifest.piece_length(index)
        request = Request(self._last_request_id, parent.node, slot, index, size, asked_at=now)
        self._in_flight[request.request_id] = request
        parent.asked(request, now)
        self._pace.take(size, now)
        return FetchPiece(parent.node, slot, index, request.request_id)

    def _ask_beyond(self, now: float) -> list[Effect]:
        """Asks those who offer for what they did not offer, where the download goes short."""
        parents = self._parents.values()
        self._hunger.look(parents, now, lacks=bool(self._picker.unrequested))
        effects: list[Effect] = []
        for parent in (parent for parent in parents if parent.offers):
            while self._hunger.may_ask(parent, parents) and self._can_ask(parent):
                if not self._may_ask(now):
                    return effects
                index = self._picker.claim_beyond(parent.node, parent.pieces)
                if index is None:
                    break
                effects.append(self._fetch(parent, index, now))
        return effects

    # The endgame: idle parents take over what slower ones still owe; two requests a piece.

    def _ask_again(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for parent in self._idle_parents():
            late_at, late = min(self._late(parent), key=itemgetter(0), default=(now, None))
            if late is not None and late_at <= now and self._may_ask(now):
                effects.append(self._fetch(parent, late.index, now))
        return effects

    def _idle_parents(self) -> Iterator[Parent]:
        if self._picker.unrequested or not self._ready:
            return
        for parent in self._parents.values():
            if self._can_ask(parent) and parent.in_flight < len(parent.slots):
                yield parent

    def _late(self, idle: Parent) -> Iterator[tuple[float, Request]]:
        in_flight = [
            request
            for request in self._in_flight.values()
            if self._picker.may_ask(idle.node, request.index)
        ]
        return late_requests(idle, in_flight, self._parents, self._picker)
