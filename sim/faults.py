"""The fault catalogue, as data: a schedule is a list of these, in JSON, and replays a run.

`at_s` is the virtual instant at which the fault strikes; nodes are named (`n0`, `n1`, …).
"""

from __future__ import annotations

import msgspec


class Fault(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """Base of all faults."""

    at_s: float = 0.0


class Kill(Fault, frozen=True, kw_only=True, tag="kill"):
    """SIGKILL of a node: nothing it holds in memory survives, its disk does."""

    node: str


class PowerLoss(Fault, frozen=True, kw_only=True, tag="power-loss"):
    """The machine goes off: no goodbye from its kernel, unsynced writes are lost in part."""

    node: str


class Restart(Fault, frozen=True, kw_only=True, tag="restart"):
    """A dead node starts again, on its disk or (`wiped`) on an empty one with the same key."""

    node: str
    wiped: bool = False


class Leave(Fault, frozen=True, kw_only=True, tag="leave"):
    """A node leaves in order and ends."""

    node: str


class Pause(Fault, frozen=True, kw_only=True, tag="pause"):
    """SIGSTOP for a while: its kernel answers, the node does not."""

    node: str
    for_s: float


class Partition(Fault, frozen=True, kw_only=True, tag="partition"):
    """Nothing passes between `island` and all others; `one_way` only cuts what leaves it."""

    island: tuple[str, ...]
    for_s: float
    one_way: bool = False


class Loss(Fault, frozen=True, kw_only=True, tag="loss"):
    """Every link loses this share of its packets."""

    probability: float
    for_s: float


class Delay(Fault, frozen=True, kw_only=True, tag="delay"):
    """Everything to and from a node takes longer."""

    node: str
    seconds: float
    for_s: float


class Duplication(Fault, frozen=True, kw_only=True, tag="duplication"):
    """Every link delivers this share of its datagrams twice."""

    probability: float
    for_s: float


class DiskFull(Fault, frozen=True, kw_only=True, tag="disk-full"):
    """A node's disk has only so much room left."""

    node: str
    free_bytes: int = 0
    for_s: float


class BitRot(Fault, frozen=True, kw_only=True, tag="bit-rot"):
    """One byte of a node's copy of a file decays on the disk."""

    node: str
    path: str
    offset: int


class LyingParent(Fault, frozen=True, kw_only=True, tag="lying-parent"):
    """A node serves wrong bytes: in every piece it sends, one byte is not the content's."""

    node: str
    for_s: float


class ForgedAnnouncements(Fault, frozen=True, kw_only=True, tag="forged-announcements"):
    """An admitted node tells the keepers of a task that the `victim` no longer holds it, and
    that it holds it itself, in statements that are forged, altered, replayed, expired or of
    another cluster."""

    node: str
    victim: str
    cid: str


AnyFault = (
    Kill
    | PowerLoss
    | Restart
    | Leave
    | Pause
    | Partition
    | Loss
    | Delay
    | Duplication
    | DiskFull
    | BitRot
    | LyingParent
    | ForgedAnnouncements
)


def kind_of(fault: AnyFault) -> str:
    """The fault's name in reports."""
    return str(fault.__struct_config__.tag)
