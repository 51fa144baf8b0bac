"""What goes into the core of a download, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass

from gossipcache.ids import NodeId
from gossipcache.swarm import NO_BORDER, Border


@dataclass(frozen=True, slots=True)
class StoreReady:
    """The digest tree is known, and the store can take pieces; it has `present` (bitmap, bit
    i = piece i) already. Parents are opened before this, pieces asked for after it."""

    present: int


@dataclass(frozen=True, slots=True)
class ParentsAssigned:
    """The schedulers name these parents, best first; replaces the assignment before."""

    parents: tuple[NodeId, ...]
    border: Border = NO_BORDER
    """Which of them are in other zones, and what they are for."""


@dataclass(frozen=True, slots=True)
class SlotOpened:
    """Connection `slot` (from 0) to a parent stands, and its task was opened."""

    parent: NodeId
    slot: int
    rtt_s: float


@dataclass(frozen=True, slots=True)
class ParentHas:
    """A parent has `pieces` (bitmap) besides those it had before."""

    parent: NodeId
    pieces: int


@dataclass(frozen=True, slots=True)
class ParentOffers:
    """A parent has everything, and tells by `ParentHas` what to ask it for first."""

    parent: NodeId


@dataclass(frozen=True, slots=True)
class ParentProgressed:
    """Some bytes have come in from a parent: it may be slow, but has not stalled."""

    parent: NodeId


@dataclass(frozen=True, slots=True)
class PieceDelayed:
    """Others come first: a piece, and those asked for after it on the same connection, will not
    begin to come before about `wait_s`; 0: its turn has come."""

    parent: NodeId
    request_id: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class PieceReceived:
    """The piece of a request has come in whole; not checked yet."""

    request_id: int


@dataclass(frozen=True, slots=True)
class PieceChecked:
    """A received piece has been verified and written, or found to be wrong."""

    request_id: int
    valid: bool


@dataclass(frozen=True, slots=True)
class PieceRefusedBy:
    """A parent answered a request with a refusal."""

    parent: NodeId
    request_id: int
    code: str


@dataclass(frozen=True, slots=True)
class ParentRefused:
    """A parent does not serve the task (`not_found`) or not now (`busy`); its channels close."""

    parent: NodeId
    code: str
    retry_after_s: float = 0.0
    """When it may be asked again, if it says so."""


@dataclass(frozen=True, slots=True)
class ParentLost:
    """A parent could not be reached, broke off, or sent something outside the protocol."""

    parent: NodeId
    in_order: bool = False
    """It closed the channel as it may, such as after long idleness; no fault of its."""
    hostile: bool = False
    """It broke the protocol, or sent a page that is not in the digest tree: never again."""


@dataclass(frozen=True, slots=True)
class BudgetChanged:
    """At most `pieces` may be in flight or being checked from now on."""

    pieces: int


@dataclass(frozen=True, slots=True)
class PaceChanged:
    """Pieces may be asked for sooner, or only later, than it was."""


Event = (
    StoreReady
    | ParentsAssigned
    | SlotOpened
    | ParentHas
    | ParentOffers
    | ParentProgressed
    | PieceDelayed
    | PieceReceived
    | PieceChecked
    | PieceRefusedBy
    | ParentRefused
    | ParentLost
    | BudgetChanged
    | PaceChanged
)


@dataclass(frozen=True, slots=True)
class OpenParent:
    """Dial `connections` channels to a parent and open the task on each."""

    parent: NodeId
    connections: int


@dataclass(frozen=True, slots=True)
class FetchPiece:
    """Ask a parent for a piece on its connection `slot`."""

    parent: NodeId
    slot: int
    index: int
    request_id: int


@dataclass(frozen=True, slots=True)
class CheckPiece:
    """Verify and write a received piece, which took the parent `elapsed_s`."""

    parent: NodeId
    index: int
    request_id: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class CancelPiece:
    """Tell a parent that a request has become needless; its answer is ignored."""

    parent: NodeId
    slot: int
    request_id: int


@dataclass(frozen=True, slots=True)
class DropParent:
    """Close a parent's connections; all its requests are void. `fault` is None if it did well."""

    parent: NodeId
    fault: str | None


@dataclass(frozen=True, slots=True)
class SpareParent:
    """Tell a parent that offers its pieces which of them (bitmap) it need not offer."""

    parent: NodeId
    pieces: int


@dataclass(frozen=True, slots=True)
class Finished:
    """Every piece is present."""


Effect = OpenParent | FetchPiece | CheckPiece | CancelPiece | DropParent | SpareParent | Finished
