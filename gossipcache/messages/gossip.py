"""Membership on the wire: datagrams of SWIM, and the push/pull over links.

A datagram is one message, sealed by the cluster secret, at most 1,400 bytes when sealed; its
field names are one letter, since every byte carries gossip. A record is signed by its subject,
an accusation by its accuser, so that who relays them does not matter.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from gossipcache.charter import SealedTicket
from gossipcache.identity import Signature, Signed
from gossipcache.manifest import ClusterIdBytes, Count, NodeIdBytes
from gossipcache.wire import CompactRecord, Message

MEMBER_DOMAIN = b"gossipcache/member/1"
ACCUSATION_DOMAIN = b"gossipcache/accusation/1"
MAX_PAGE_ENTRIES = 512
MAX_PAGE_BYTES = 48 * 1024
"""Room for records and accusations in one page, below the 64 KiB of a control message."""

Phase = Literal["joining", "active", "left"]
Verdict = Literal["suspect", "dead"]
State = Literal["alive", "suspect", "dead", "left"]
Sequence = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Cursor = Annotated[bytes, Meta(max_length=16)]
"""A place in the order of node ids; empty is the start, or as an end: past the last."""


class MemberRecord(CompactRecord, frozen=True):
    """What a node says of itself; the payload that it signs. `incarnation` is its version:
    the boot epoch in the upper 31 bits, a counter in the lower 32. `host` is a numeric address:
    nobody resolves a name on a member's word. `name` and `zone` are printable; the zone is
    where the node stands, empty for nowhere in particular. `ticket` is the operator's."""

    cluster_id: ClusterIdBytes
    incarnation: Count
    phase: Phase
    name: Annotated[str, Meta(max_length=64)]
    host: Annotated[str, Meta(max_length=45)]
    port: Annotated[int, Meta(ge=0, le=65535)]
    roles: Annotated[tuple[Literal["peer", "scheduler"], ...], Meta(max_length=2)]
    protocol_min: Annotated[int, Meta(ge=1, le=2**16)]
    protocol_max: Annotated[int, Meta(ge=1, le=2**16)]
    zone: Annotated[str, Meta(max_length=32)]
    ticket: SealedTicket


class Accusation(CompactRecord, frozen=True):
    """`accuser` holds `subject` for suspect or dead at exactly `incarnation`. The signature is
    over (cluster id, subject, incarnation, verdict); the key is that of the accuser's record."""

    subject: NodeIdBytes
    incarnation: Count
    verdict: Verdict
    accuser: NodeIdBytes
    signature: Signature


Records = Annotated[tuple[Signed, ...], Meta(max_length=MAX_PAGE_ENTRIES)]
Accusations = Annotated[tuple[Accusation, ...], Meta(max_length=MAX_PAGE_ENTRIES)]


class Gossip(Message, frozen=True, kw_only=True, tag="g"):
    """Every gossip interval while there is news, to a few random members; the other datagrams
    extend it, since all of them carry gossip."""

    cluster_id: ClusterIdBytes = field(name="c")
    sender: NodeIdBytes = field(name="s")
    records: Records = field(name="r", default=())
    accusations: Accusations = field(name="a", default=())


class Ping(Gossip, frozen=True, kw_only=True, tag="p"):
    """The prober to its target, or a helper on its behalf: are you there? Only the node named
    by `target` answers. `incarnation` is the sender's own, `view` the last 8 bytes of the digest
    of its view."""

    sequence: Sequence = field(name="q")
    target: NodeIdBytes = field(name="n")
    incarnation: Count = field(name="i")
    view: Annotated[bytes, Meta(min_length=8, max_length=8)] = field(name="v")


class PingRequest(Gossip, frozen=True, kw_only=True, tag="h"):
    """The prober to a helper, after the target did not answer it in time: ping it for me. The
    helper uses the address of its own signed record of `target`."""

    sequence: Sequence = field(name="q")
    target: NodeIdBytes = field(name="n")


class Ack(Gossip, frozen=True, kw_only=True, tag="k"):
    """The target to whoever pinged it, or a helper passing that on. `outdated` says that the
    answerer lacks the newest record of whoever asked, `differs` that its view is another one,
    which gossip will not even out, so that a push/pull is needed."""

    sequence: Sequence = field(name="q")
    outdated: bool = field(name="o", default=False)
    differs: bool = field(name="d", default=False)


class Nack(Gossip, frozen=True, kw_only=True, tag="x"):
    """A helper to the prober: the target did not answer me either (Lifeguard)."""

    sequence: Sequence = field(name="q")


Datagram = Gossip | Ping | PingRequest | Ack | Nack


class LinkPing(Message, frozen=True, kw_only=True, tag="link-ping"):
    """A prober over a link, when datagrams may be lost or blocked; answered by `LinkPong`."""


class LinkPong(Message, frozen=True, kw_only=True, tag="link-pong"):
    """Any node, in answer to `LinkPing`."""


class SyncOpen(Message, frozen=True, kw_only=True, tag="sync-open"):
    """Opens a push/pull, and is how a node joins: the digest of the sender's view of live
    members, its own record, and the number of its charter. Answered by `SyncOpened`."""

    cluster_id: ClusterIdBytes
    digest: Annotated[bytes, Meta(min_length=16, max_length=16)]
    record: Signed
    charter: Count = 0


class SyncOpened(Message, frozen=True, kw_only=True, tag="sync-opened"):
    """Whether the views are equal, in which case all is done; the answerer's own record, and
    the number of its charter."""

    equal: bool
    record: Signed
    charter: Count = 0


class SyncEntry(CompactRecord, frozen=True):
    """One member of the sender's view."""

    node_id: NodeIdBytes
    incarnation: Count
    state: State


class SyncRange(Message, frozen=True, kw_only=True, tag="sync-range"):
    """All that the sender knows of the ids from `start` to before `end`, at most 512 members.
    Answered by `SyncDiff`."""

    start: Cursor
    end: Cursor
    entries: Annotated[tuple[SyncEntry, ...], Meta(max_length=MAX_PAGE_ENTRIES)]


class SyncDiff(Message, frozen=True, kw_only=True, tag="sync-diff"):
    """What the asker of a range lacks (at most 48 KiB), and what the answerer lacks. It covers
    the ids before `until`, from where the asker goes on; empty: there are no more."""

    until: Cursor
    records: Records
    accusations: Accusations
    wanted: Annotated[tuple[NodeIdBytes, ...], Meta(max_length=MAX_PAGE_ENTRIES)]


class SyncPush(Message, frozen=True, kw_only=True, tag="sync-push"):
    """The asker's records that a `SyncDiff` wanted (at most 48 KiB); not answered."""

    records: Records
    accusations: Accusations


class AskCharter(Message, frozen=True, kw_only=True, tag="ask-charter"):
    """Anyone to any member: give me the operator's charter. Answered by `CharterHeld`."""


class CharterHeld(Message, frozen=True, kw_only=True, tag="charter-held"):
    """The newest charter that the sender knows; nothing if there is none."""

    charter: Signed | None


class CharterNews(Message, frozen=True, kw_only=True, tag="charter-news"):
    """To a few random members by who has just learned of it, and in a push/pull to whoever is
    behind; not answered."""

    charter: Signed
