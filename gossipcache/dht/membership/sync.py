"""Push/pull anti-entropy: the content of its messages.

Digests first; if they differ, the asker goes through its view page by page in the order of
ids, and each side gets only the records and accusations that it lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gossipcache.dht.membership.broadcast import ACCUSATION_BYTES, size_of
from gossipcache.dht.membership.member import Member
from gossipcache.dht.membership.view import View
from gossipcache.errors import NotReady
from gossipcache.identity import Signed
from gossipcache.ids import NodeId
from gossipcache.messages.gossip import (
    MAX_PAGE_BYTES,
    MAX_PAGE_ENTRIES,
    Accusation,
    State,
    SyncDiff,
    SyncEntry,
    SyncOpen,
    SyncOpened,
    SyncPush,
    SyncRange,
)

_PAST_ALL = b"\xff" * 17


def open_sync(view: View, cluster_id: bytes, charter: int = 0) -> SyncOpen:
    """The first message of a push/pull; `charter` is the number of this node's."""
    return SyncOpen(
        cluster_id=cluster_id, digest=view.table.digest(), record=view.me.record, charter=charter
    )


def answer_open(view: View, message: SyncOpen, charter: int = 0) -> SyncOpened:
    """The answer, once the asker's record has been taken in. Raises `NotReady` while this node
    waits to be taken back, since the answer carries its record."""
    _check_is_told(view)
    equal = message.digest == view.table.digest()
    return SyncOpened(equal=equal, record=view.me.record, charter=charter)


def range_from(view: View, start: bytes) -> SyncRange:
    """The page of this view that begins at the id `start`."""
    members = view.table.page(start, MAX_PAGE_ENTRIES + 1)
    return SyncRange(
        start=start,
        end=members[-1].node_id if len(members) > MAX_PAGE_ENTRIES else b"",
        entries=tuple(
            SyncEntry(member.node_id, member.incarnation, member.state)
            for member in members[:MAX_PAGE_ENTRIES]
        ),
    )


def diff(view: View, asked: SyncRange) -> SyncDiff:
    """What the asker of a range lacks of this view, and what this view lacks. Raises `NotReady`
    as `answer_open` does."""
    _check_is_told(view)
    theirs = {NodeId(entry.node_id): entry for entry in asked.entries}
    page = _Page(view)
    wanted: list[NodeId] = []
    until = asked.end
    for member in _members(view, asked.start, asked.end or _PAST_ALL):
        entry = theirs.get(member.node_id)
        if page.is_full:
            until = member.node_id
            break
        if entry is None:
            # The dead whom the asker never met or forgot stay forgotten.
            if member.is_live:
                page.add(member)
        elif _rank(member.incarnation, member.state) > _rank(entry.incarnation, entry.state):
            page.add(member)
        elif _rank(member.incarnation, member.state) < _rank(entry.incarnation, entry.state):
            wanted.append(member.node_id)
    wanted += [
        node
        for node, entry in theirs.items()
        if node < (until or _PAST_ALL)
        and entry.state in ("alive", "suspect")
        and view.table.get(node) is None
    ]
    return SyncDiff(
        until=until,
        records=tuple(page.records),
        accusations=tuple(page.accusations),
        wanted=tuple(wanted),
    )


def pushes(view: View, wanted: Iterable[bytes]) -> Iterator[SyncPush]:
    """The records that the other side wanted, in messages of limited size."""
    page = _Page(view)
    for node in wanted:
        member = view.table.get(NodeId(node))
        if member is None:
            continue
        page.add(member)
        if page.is_full:
            yield page.push()
            page = _Page(view)
    if page.records:
        yield page.push()


def _check_is_told(view: View) -> None:
    if view.refutation.is_waiting:
        raise NotReady("this node was called dead again and waits until its links are steady")


class _Page:
    """Records and their accusations up to the limit; one more always still fits a message."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._size_bytes = 0
        self.records: list[Signed] = []
        self.accusations: list[Accusation] = []

    @property
    def is_full(self) -> bool:
        return (
            self._size_bytes >= MAX_PAGE_BYTES
            or max(len(self.records), len(self.accusations)) > MAX_PAGE_ENTRIES - 8
        )

    def add(self, member: Member) -> None:
        proofs = () if member.state == "left" else self._view.proofs(member.node_id)
        self.records.append(member.record)
        self.accusations += proofs
        self._size_bytes += size_of(member.record) + ACCUSATION_BYTES * len(proofs)

    def push(self) -> SyncPush:
        return SyncPush(records=tuple(self.records), accusations=tuple(self.accusations))


def _members(view: View, start: bytes, end: bytes) -> Iterator[Member]:
    while True:
        members = view.table.page(start, 256)
        for member in members:
            if member.node_id >= end:
                return
            yield member
        if len(members) < 256:
            return
        start = members[-1].node_id + b"\0"


def _rank(incarnation: int, state: State) -> tuple[int, bool]:
    return incarnation, state in ("dead", "left")
