"""Two keepers compare what they share by datagrams, which need no connection.

Sealed like all datagrams; a statement is signed as well, over a number that the other has just
drawn, since a cluster's secret does not tell its members apart.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from gossipcache.identity import Signature
from gossipcache.manifest import ClusterIdBytes, Count, NodeIdBytes
from gossipcache.messages.records import Digest, Epoch
from gossipcache.wire import CompactRecord, Message

GLANCE_DOMAIN = b"gossipcache/glance/1"
NONCE_BYTES = 16

Nonce = Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]


class GlanceStatement(CompactRecord, frozen=True):
    """What a `Glance` signs; it is not sent, since the receiver knows it all."""

    cluster_id: ClusterIdBytes
    sender: NodeIdBytes
    receiver: NodeIdBytes
    echo: Nonce
    epoch: Epoch
    digest: Digest
    graves: Count
    recovering_ms: Count


class AskGlance(Message, frozen=True, kw_only=True, tag="y"):
    """Keeper to keeper: what do we share? Answered by a `Glance` that echoes `nonce`."""

    sender: NodeIdBytes = field(name="s")
    nonce: Nonce = field(name="n")


class Glance(Message, frozen=True, kw_only=True, tag="z"):
    """The answer: one digest over all that both keep on the sender's ring `epoch`, signed as a
    `GlanceStatement`; `graves` and `recovering_ms` as in `SharedCompared`. If its sender has to
    compare too, it asks the same by `nonce`; the asker answers that if it has the same, with a
    `Glance` that asks no more."""

    sender: NodeIdBytes = field(name="s")
    echo: Nonce = field(name="o")
    epoch: Epoch = field(name="e")
    digest: Digest = field(name="d")
    graves: Count = field(name="r")
    recovering_ms: Count = field(name="m")
    signature: Signature = field(name="g")
    nonce: Nonce | None = field(name="n", default=None)
