"""One download on the heap of events.

The cores are `transfer.DownloadCore`, its ledger and `schedule.Conversation`; what their shells do
(`transfer.download.client`, `schedule.session`) is done here as callbacks. To verify and write a
piece takes `CHECK_S`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from gossipcache.config import ScheduleConfig, TransferConfig
from gossipcache.errors import GossipcacheError
from gossipcache.ids import NodeId
from gossipcache.manifest import SignedManifest
from gossipcache.messages.sessions import AssignParents
from gossipcache.schedule.announcement import Held
from gossipcache.schedule.conversation import Conversation
from gossipcache.swarm import Border
from gossipcache.transfer.download.client import REPORT_INTERVAL_S
from gossipcache.transfer.download.core import DownloadCore
from gossipcache.transfer.download.events import (
    CancelPiece,
    CheckPiece,
    DropParent,
    Effect,
    Event,
    FetchPiece,
    Finished,
    OpenParent,
    ParentLost,
    ParentProgressed,
    ParentRefused,
    ParentsAssigned,
    PieceChecked,
    PieceReceived,
    SpareParent,
    StoreReady,
)
from gossipcache.transfer.download.ledger import Ledger
from gossipcache.wire import Message
from sim.bare.alarm import Alarm
from sim.bare.channel import Connection
from sim.bare.outcome import begin
from sim.bare.scheduling import BareScheduling
from sim.bare.serving import BareServer

CHECK_S = 0.004
"""4 MiB at a gigabyte a second."""


class Find(Protocol):
    """Finds who serves."""

    def __call__(self, node: NodeId) -> BareServer | None:
        """The server of a node, if its process runs."""


class BareDownload:
    """One task that comes to one process."""

    def __init__(
        self,
        server: BareServer,
        scheduling: BareScheduling,
        find: Find,
        signed: SignedManifest,
        *,
        number: int,
        budget: int,
        transfer: TransferConfig,
        schedule: ScheduleConfig,
        is_alive: Callable[[NodeId], bool],
        rng: random.Random,
        finished: Callable[[], None],
    ) -> None:
        self.server = server
        self.process = server.process
        self.bulk = server.bulk
        self.network = server.network
        self.find = find
        self.signed = signed
        self.has_tree = False
        self.wasted_bytes = 0
        """Of pieces that came in when they were not wanted any more."""
        self.faults: list[str] = []
        """What parents were given up for."""
        self._scheduling = scheduling
        self._timeline = server.timeline
        self._number = number
        self._finished = finished
        self._core = DownloadCore(transfer, signed.manifest, budget, rng)
        self._conversation = Conversation(
            schedule,
            signed,
            (),
            number=number,
            keepers_of=scheduling.keepers_of,
            is_alive=is_alive,
            rng=rng,
        )
        self._ledger = Ledger(signed.manifest)
        self._parents: dict[NodeId, Connection] = {}
        self._asked: dict[int, int] = {}
        self._received: dict[int, bytes] = {}
        self._assigned: tuple[tuple[NodeId, ...], Border] | None = None
        self.is_over = False
        self._wakes = Alarm(self._timeline, self.process, self._core.next_timeout, self._mind)
        self._talks = Alarm(
            self._timeline, self.process, self._conversation.next_timeout, self._talk
        )
        self.process.on_end.append(self._end)

    def start(self) -> None:
        """Registers, and downloads until all is here."""
        self._scheduling.on_assign[self._number] = self._pushed
        self._scheduling.on_view_changed[self._number] = self._view_changed
        self._talk()
        self._report_later()

    # The session.

    def _view_changed(self) -> None:
        self._conversation.ring_changed()
        self._talks.set()

    def _pushed(self, message: AssignParents, sender: NodeId) -> None:
        self._conversation.assigned(message, sender)
        self._take_parents()

    def _talk(self) -> None:
        ask = None if self.is_over else self._conversation.next_ask(self._timeline.now)
        if ask is not None:
            begin(self._ask(ask.keeper, ask.message, ask.timeout_s))
        elif not self.is_over:
            self._talks.set()

    async def _ask(self, keeper: NodeId, message: Message, timeout_s: float) -> None:
        conversation = self._conversation
        try:
            reply = await self.process.request(keeper, message, timeout_s)
        except GossipcacheError:
            conversation.unanswered(self._timeline.now)
        else:
            conversation.answered(reply, self._timeline.now)
        self._take_parents()
        self._talk()

    def _take_parents(self) -> None:
        parents = self._conversation.parents
        border = self._conversation.border
        if parents is not None and (parents, border) != self._assigned:
            self._assigned = parents, border
            self.handle(ParentsAssigned(parents, border))

    def _report_later(self) -> None:
        at = self._timeline.now + REPORT_INTERVAL_S
        self._timeline.push(at, self.process.step, self._report_again)

    def _report_again(self) -> None:
        if not self.is_over:
            self._report()
            self._report_later()

    def _report(self) -> None:
        if reports := self._ledger.take_reports():
            have = [index for report in reports for index in report.pieces]
            self._conversation.report(have, reports)
            self._talks.set()

    # The core.

    def handle(self, event: Event) -> None:
        """Something happened to the download."""
        if self.is_over:
            return
        if isinstance(event, ParentLost | ParentRefused):
            self._parent_gone(event)
        self._act(self._core.handle(event, self._timeline.now))

    def tree_came(self) -> None:
        """The digest tree is known, so that pieces can be put away."""
        if not self.has_tree and not self.is_over:
            self.has_tree = True
            self.server.shelf(self.signed)
            self.handle(StoreReady(0))

    def received(self, request_id: int, content: bytes, size: int) -> None:
        """A piece came in."""
        if request_id in self._asked:
            self._received[request_id] = content
            self.handle(PieceReceived(request_id))
        else:
            self.wasted_bytes += size

    def _mind(self) -> None:
        now = self._timeline.now
        if self.is_over:
            return
        for connection in list(self._parents.values()):
            if connection.has_progressed():
                self.handle(ParentProgressed(connection.node))
        self._act(self._core.handle_timeout(now))

    def _act(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case OpenParent(parent, connections):
                    self._parents[parent] = connection = Connection(self, parent)
                    connection.open(connections)
                case FetchPiece(parent, slot, index, request_id):
                    self._asked[request_id] = index
                    self._parents[parent].slots[slot].fetch(request_id, index)
                case CheckPiece():
                    at = self._timeline.now + CHECK_S
                    self._timeline.push(at, self.process.step, self._check, effect)
                case CancelPiece(parent, slot, request_id):
                    del self._asked[request_id]
                    self._parents[parent].slots[slot].cancel(request_id)
                case SpareParent(parent, pieces):
                    self._parents[parent].slots[0].spare(pieces)
                case DropParent(parent, fault):
                    self._drop(parent, fault)
                case Finished():
                    self._finish()
                    return
        self._wakes.set()

    def _check(self, check: CheckPiece) -> None:
        content = self._received.pop(check.request_id)
        del self._asked[check.request_id]
        shelf = self.server.shelf(self.signed)
        is_valid = shelf.put(check.index, content)
        if is_valid:
            is_first = not self._ledger.done_bytes
            self._ledger.came(check.parent, check.index, check.elapsed_s)
            self.server.gained(shelf)
            if is_first:
                self._report()
        self.handle(PieceChecked(check.request_id, is_valid))

    def _parent_gone(self, event: ParentLost | ParentRefused) -> None:
        connection = self._parents.pop(event.parent, None)
        if connection is not None:
            connection.close()
            self._ledger.failed(event.parent)
            self._conversation.failed(event.parent, "the connection broke")
            self._talks.set()

    def _drop(self, parent: NodeId, fault: str | None) -> None:
        self._parents.pop(parent).close()
        if fault is not None:
            self.faults.append(fault)
            self._ledger.failed(parent)
            self._conversation.failed(parent, fault)
            self._talks.set()

    def _finish(self) -> None:
        self._report()
        farewell = self._conversation.leave()
        self._close()
        if farewell is not None:
            self.process.notify(*farewell)
        total = self.signed.manifest.piece_count
        self._scheduling.hold(Held(self.signed.task_id, self.signed.name, total, total))
        self._finished()

    def _end(self, silent: bool) -> None:
        """The process is over."""
        if not silent:
            self._close()
        self.is_over = True

    def _close(self) -> None:
        self.is_over = True
        for connection in self._parents.values():
            connection.close()
        self._parents.clear()
        self._scheduling.on_assign.pop(self._number, None)
        self._scheduling.on_view_changed.pop(self._number, None)
