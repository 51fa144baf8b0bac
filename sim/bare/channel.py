"""The child's end of the piece channels to one parent; see `transfer.download.connection`.

A dial takes the round trips of a link's and one for the task, the first also one for the digest
tree. The second channel is dialled once the first stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gossipcache.ids import NodeId
from gossipcache.messages.pieces import Cancel, GetPages, OpenTask, RequestPiece
from gossipcache.transfer.bitmap import have_messages, pieces_of
from gossipcache.transfer.download.events import (
    ParentHas,
    ParentLost,
    ParentOffers,
    ParentRefused,
    PieceDelayed,
    PieceRefusedBy,
    SlotOpened,
)
from sim.bare.dial import DIAL_ROUND_TRIPS
from sim.bare.serving import BareServer, Upload

if TYPE_CHECKING:
    from sim.bare.download import BareDownload


class Connection:
    """The child's end of all channels to one parent."""

    def __init__(self, download: BareDownload, node: NodeId) -> None:
        self.download = download
        self.node = node
        self.slots: dict[int, Slot] = {}
        self.is_closed = False
        self._seen_bytes = 0

    def open(self, connections: int) -> None:
        """Dials the first channel; the others follow once it stands."""
        self._dial(0, connections)

    def first_opened(self, connections: int) -> None:
        """The first channel stands."""
        for slot in range(1, connections):
            self._dial(slot, connections)

    def has_progressed(self) -> bool:
        """Whether bytes have come in since it was asked last."""
        received = sum(slot.received_bytes for slot in self.slots.values())
        if received == self._seen_bytes:
            return False
        self._seen_bytes = received
        return True

    def lost(self) -> None:
        """The parent cannot be reached, or broke off."""
        if not self.is_closed:
            self.download.handle(ParentLost(self.node))

    def close(self) -> None:
        """Ends all channels."""
        self.is_closed = True
        for slot in self.slots.values():
            slot.close()

    def _dial(self, number: int, connections: int) -> None:
        process, network = self.download.process, self.download.network
        timeline = self.download.server.timeline
        server = self.download.find(self.node)
        if server is None:
            timeline.push(timeline.now + 2 * network.latency_s, process.step, self.lost)
            return
        slot = self.slots[number] = Slot(self, server, number, connections)
        shaken_at = timeline.now + 2 * DIAL_ROUND_TRIPS * network.latency_s
        timeline.push(shaken_at, process.step, slot.ask)


class Slot:
    """The child's end of one channel."""

    def __init__(
        self, connection: Connection, server: BareServer, number: int, connections: int
    ) -> None:
        self.process = connection.download.process
        self.bulk = connection.download.bulk
        self._connection = connection
        self._download = connection.download
        self._server = server
        self._number = number
        self._connections = connections
        self._upload: Upload | None = None
        self._rtt_s = 2 * connection.download.network.latency_s

    @property
    def received_bytes(self) -> int:
        """What has come in over it."""
        return 0 if self._upload is None else self._upload.received_bytes

    # What the download says.

    def ask(self) -> None:
        """Asks for the task, as soon as the channel stands."""
        if self._connection.is_closed:
            return
        if self._server.process.is_dead:
            self._connection.lost()
            return
        signed = self._download.signed
        asked = OpenTask(
            task_id=signed.task_id, manifest_name=signed.name, follow=self._number == 0
        )
        self._say(asked, self._server.open, self, asked)

    def fetch(self, request_id: int, index: int) -> None:
        """Asks for a piece."""
        if self._upload is not None:
            message = RequestPiece(request_id=request_id, index=index)
            self._say(message, self._upload.request, request_id, index)

    def cancel(self, request_id: int) -> None:
        """Takes that back."""
        if self._upload is not None:
            self._say(Cancel(request_id=request_id), self._upload.cancel, request_id)

    def spare(self, pieces: int) -> None:
        """Says that these pieces need not be offered."""
        if self._upload is not None:
            count = self._download.signed.manifest.piece_count
            for message in have_messages(pieces, count):
                self._say(message, self._upload.spare, pieces_of(message, count))

    def close(self) -> None:
        """Ends the channel."""
        if self._upload is not None:
            self._download.network.reach(self._server.process, self._upload.close)

    # What the parent says.

    def opened(self, upload: Upload, pieces: int, offers: bool) -> None:
        """The parent serves the task."""
        self._upload = upload
        if self._connection.is_closed:
            self.close()
            return
        if not self._download.has_tree:
            self._say(GetPages(level=0, first=0, count=1), upload.page)
        else:
            self._serve()
        if offers and not self._connection.is_closed:
            self._download.handle(ParentOffers(self._connection.node))
        self.told(pieces)

    def refused(self, code: str) -> None:
        """The parent does not."""
        if not self._connection.is_closed:
            self._download.handle(ParentRefused(self._connection.node, code))

    def paged(self) -> None:
        """The digest tree came."""
        if not self._connection.is_closed:
            self._serve()
            self._download.tree_came()

    def told(self, pieces: int) -> None:
        """The parent has these pieces too."""
        if pieces and not self._connection.is_closed:
            self._download.handle(ParentHas(self._connection.node, pieces))

    def came(self, request_id: int, content: bytes) -> None:
        """A piece came in."""
        if not self._connection.is_closed:
            size = self._download.signed.manifest.piece_size
            self._download.received(request_id, content, size)

    def delayed(self, request_id: int, wait_s: float) -> None:
        """The piece waits in the parent's line."""
        if not self._connection.is_closed:
            self._download.handle(PieceDelayed(self._connection.node, request_id, wait_s))

    def piece_refused(self, request_id: int) -> None:
        """The parent has not got a piece."""
        if not self._connection.is_closed:
            node = self._connection.node
            self._download.handle(PieceRefusedBy(node, request_id, "not_found"))

    def broke(self) -> None:
        """The parent's process is gone."""
        self._connection.lost()

    def _serve(self) -> None:
        node = self._connection.node
        self._download.handle(SlotOpened(node, self._number, self._rtt_s))
        if self._number == 0 and not self._connection.is_closed:
            self._connection.first_opened(self._connections)

    def _say(self, *said: object) -> None:
        self._download.network.say(self.process, self._server.process, *said)  # type: ignore
