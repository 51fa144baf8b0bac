"""The queue of news that datagrams carry along."""

from __future__ import annotations

import heapq
import math

from gossipcache.identity import Signed
from gossipcache.ids import NodeId
from gossipcache.messages.gossip import Accusation

RECORD_OVERHEAD_BYTES = 1 + 3 + 34 + 66
"""What a signed record adds to its payload: array head, payload length, key, signature."""
ACCUSATION_BYTES = 1 + 17 + 9 + 8 + 17 + 66
_MAX_SKIPS = 8
_RETRANSMIT_FACTOR = 4
_SENT_PER_ECHO = 2
"""An echo counts for as many transmissions at least, so that no echoes can silence a node."""


def retransmit_limit(live_count: int) -> int:
    """How often a node repeats one item so that all of `live_count` hear it (SWIM, 4.1)."""
    return math.ceil(_RETRANSMIT_FACTOR * math.log10(live_count + 1))


def size_of(item: Signed | Accusation) -> int:
    """The most bytes that `item` takes in a datagram."""
    if isinstance(item, Signed):
        return len(item.payload) + RECORD_OVERHEAD_BYTES
    return ACCUSATION_BYTES


class _Entry:
    __slots__ = ("echoes", "item", "order", "replaced", "size", "slot", "subject", "transmits")

    def __init__(
        self, subject: NodeId, slot: bytes, item: Signed | Accusation, size: int, order: int
    ) -> None:
        self.subject = subject
        self.slot = slot
        self.item = item
        self.size = size
        self.order = order
        self.transmits = 0
        self.echoes = 0
        self.replaced = False


class BroadcastQueue:
    """News by subject: its newest record, and the accusations against that record.

    The least transmitted goes first, the newer of two; an item is dropped after
    `retransmit_limit` transmissions, or when newer news of its subject replaces it. When others
    send the same item, up to a third of its transmissions are left to them (feedback, as in
    Demers et al., 1987).
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, _Entry]] = []
        self._entries: dict[Signed | Accusation, _Entry] = {}
        self._by_subject: dict[NodeId, dict[bytes, _Entry]] = {}
        self.count = 0
        """How many items wait; `len` of the queue."""
        self._order = 0

    def __len__(self) -> int:
        return self.count

    def has_record_of(self, subject: NodeId) -> bool:
        """Whether the record of `subject` still waits for transmissions."""
        return b"" in self._by_subject.get(subject, {})

    def add_record(self, subject: NodeId, record: Signed) -> None:
        """Queues a new record; all that waited about its subject is void."""
        self.drop(subject)
        self._add(subject, b"", record)

    def add_accusation(self, accusation: Accusation) -> None:
        """Queues an accusation; it replaces a milder one by the same accuser."""
        self._add(NodeId(accusation.subject), accusation.accuser, accusation)

    def drop(self, subject: NodeId) -> None:
        """Removes all that waits about `subject`."""
        for entry in self._by_subject.pop(subject, {}).values():
            self._void(entry)

    def drop_suspicions(self, subject: NodeId) -> None:
        """Removes the mild accusations of `subject`, whose death is proven by others."""
        for entry in list(self._by_subject.get(subject, {}).values()):
            if isinstance(entry.item, Accusation) and entry.item.verdict != "dead":
                self._remove(entry)

    def hears(self, item: Signed | Accusation) -> bool:
        """Whether `item`, which somebody sent, waits here too, and so is no news."""
        entry = self._entries.get(item)
        if entry is None:
            return False
        if (entry.echoes + 1) * (_SENT_PER_ECHO + 1) <= entry.transmits + 1:
            entry.echoes += 1
            entry.transmits += 1
        return True

    def take(self, room_bytes: int, limit: int) -> tuple[list[Signed], list[Accusation]]:
        """What fits in `room_bytes`; each item taken counts as transmitted, at most `limit`
        times."""
        records: list[Signed] = []
        accusations: list[Accusation] = []
        taken: list[_Entry] = []
        skipped: list[_Entry] = []
        while self._heap and room_bytes >= ACCUSATION_BYTES and len(skipped) < _MAX_SKIPS:
            entry = heapq.heappop(self._heap)[2]
            if entry.replaced:
                continue
            if entry.size > room_bytes:
                skipped.append(entry)
                continue
            room_bytes -= entry.size
            taken.append(entry)
            if isinstance(entry.item, Signed):
                records.append(entry.item)
            else:
                accusations.append(entry.item)
        for entry in skipped:
            self._push(entry)
        for entry in taken:
            entry.transmits += 1
            if entry.transmits < limit:
                self._push(entry)
            else:
                self._remove(entry)
        return records, accusations

    def _add(self, subject: NodeId, slot: bytes, item: Signed | Accusation) -> None:
        slots = self._by_subject.setdefault(subject, {})
        if (old := slots.get(slot)) is not None:
            self._void(old)
        self._order += 1
        entry = _Entry(subject, slot, item, size_of(item), self._order)
        slots[slot] = self._entries[item] = entry
        self.count += 1
        self._push(entry)

    def _push(self, entry: _Entry) -> None:
        heapq.heappush(self._heap, (entry.transmits, -entry.order, entry))

    def _remove(self, entry: _Entry) -> None:
        slots = self._by_subject[entry.subject]
        del slots[entry.slot]
        if not slots:
            del self._by_subject[entry.subject]
        self._void(entry)

    def _void(self, entry: _Entry) -> None:
        entry.replaced = True
        del self._entries[entry.item]
        self.count -= 1
