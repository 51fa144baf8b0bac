"""What admitted nodes do that lie. A liar is otherwise a correct node, and is one again after
`for_s` or a restart."""

from __future__ import annotations

from sim.faults.fault import Fault


class LyingParent(Fault, frozen=True, kw_only=True, tag="lying-parent"):
    """A node serves wrong bytes: in every piece it sends, one byte is not the content's."""

    node: str
    for_s: float


class TruncatedPiece(Fault, frozen=True, kw_only=True, tag="truncated-piece"):
    """A node sends the first half of each piece and hangs up."""

    node: str
    for_s: float


class WrongLength(Fault, frozen=True, kw_only=True, tag="wrong-length"):
    """A node sends each piece a byte too short, in a frame that says so."""

    node: str
    for_s: float


class LyingHave(Fault, frozen=True, kw_only=True, tag="lying-have"):
    """A node says that it has every piece of what it is asked for, and refuses every other one."""

    node: str
    for_s: float


class MutePeer(Fault, frozen=True, kw_only=True, tag="mute-peer"):
    """A node accepts piece channels and says nothing on them."""

    node: str
    for_s: float


class EndlessPromise(Fault, frozen=True, kw_only=True, tag="endless-promise"):
    """A node takes requests for pieces, and says again and again that others come first."""

    node: str
    for_s: float


class GarbageFrames(Fault, frozen=True, kw_only=True, tag="garbage-frames"):
    """A node sends bytes that are no websocket frames to `victim`, on a connection that it had
    opened in order."""

    node: str
    victim: str


class CborBomb(Fault, frozen=True, kw_only=True, tag="cbor-bomb"):
    """A node sends `victim` messages that unfold: deep nesting, huge promised lengths, tags,
    repeated keys."""

    node: str
    victim: str


class OversizedMessage(Fault, frozen=True, kw_only=True, tag="oversized-message"):
    """A node sends `victim` a message above the limit of its channel."""

    node: str
    victim: str


class BadSignature(Fault, frozen=True, kw_only=True, tag="bad-signature"):
    """A node gossips a record of `victim` with another address, under the old signature, and an
    accusation in the name of a third node."""

    node: str
    victim: str


class ForgedAnnouncements(Fault, frozen=True, kw_only=True, tag="forged-announcements"):
    """An admitted node tells the keepers of a task that the `victim` no longer holds it, and
    that it holds it itself, in statements that are forged, altered, replayed, expired or of
    another cluster."""

    node: str
    victim: str
    cid: str


class ReplayedAnnouncement(Fault, frozen=True, kw_only=True, tag="replayed-announcement"):
    """A node sends the keepers of a task a batch whose sequence number is an old one."""

    node: str
    cid: str


class ExpiredAnnouncement(Fault, frozen=True, kw_only=True, tag="expired-announcement"):
    """A node sends the keepers of a task a batch that expired long ago."""

    node: str
    cid: str


class ForgedSuspicion(Fault, frozen=True, kw_only=True, tag="forged-suspicion"):
    """A node tells everybody, under its own signature, that `victim` is dead; `times` times, a
    second apart."""

    node: str
    victim: str
    times: int = 5


class ForgedIncarnation(Fault, frozen=True, kw_only=True, tag="forged-incarnation"):
    """A node accuses `victim` at an incarnation that it never had, and takes itself one of the
    far future."""

    node: str
    victim: str


class LyingKeeper(Fault, frozen=True, kw_only=True, tag="lying-keeper"):
    """A record keeper says that it is settled and holds nothing, whatever it is asked for."""

    node: str
    for_s: float


class SubstitutingKeeper(Fault, frozen=True, kw_only=True, tag="substituting-keeper"):
    """A record keeper says that the task `cid` has other content, under its own signature."""

    node: str
    cid: str
    for_s: float


class UsurpingKeeper(Fault, frozen=True, kw_only=True, tag="usurping-keeper"):
    """A record keeper holds, and tells `victim`, a later generation of another's task `cid` that it
    made up."""

    node: str
    victim: str
    cid: str


class FalseWitnesses(Fault, frozen=True, kw_only=True, tag="false-witnesses"):
    """A node calls two others as witnesses that `victim` is dead: it signs for them itself, and
    then repeats what they truly said of an earlier incarnation."""

    node: str
    victim: str


class MintedKeys(Fault, frozen=True, kw_only=True, tag="minted-keys"):
    """A node makes `keys` new keys, brings their records to everybody, and has all of them swear
    that `victim` is dead. In a cluster where tickets are needed."""

    node: str
    victim: str
    keys: int = 5


class RivalManifest(Fault, frozen=True, kw_only=True, tag="rival-manifest"):
    """A node publishes other content under another's `cid`, in its generation and in the next
    one, as a writer and as if it were a keeper."""

    node: str
    cid: str


class ForgedDeletion(Fault, frozen=True, kw_only=True, tag="forged-deletion"):
    """A node deletes another's task, as it stands and as if it were its own, under the present
    charter, an old one and one that there is not. In a cluster where only publishers delete."""

    node: str
    cid: str


class ForgedCharter(Fault, frozen=True, kw_only=True, tag="forged-charter"):
    """A node gives everybody a charter that it signed itself. In a cluster with an operator."""

    node: str


LiarFault = (
    LyingParent
    | TruncatedPiece
    | WrongLength
    | LyingHave
    | MutePeer
    | EndlessPromise
    | GarbageFrames
    | CborBomb
    | OversizedMessage
    | BadSignature
    | ForgedAnnouncements
    | ReplayedAnnouncement
    | ExpiredAnnouncement
    | ForgedSuspicion
    | ForgedIncarnation
    | LyingKeeper
    | SubstitutingKeeper
    | UsurpingKeeper
    | FalseWitnesses
    | MintedKeys
    | RivalManifest
    | ForgedDeletion
    | ForgedCharter
)
