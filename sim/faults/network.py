"""What befalls packets and connections."""

from __future__ import annotations

from sim.faults.fault import Fault
from sim.network.impairment import Carrier


class Partition(Fault, frozen=True, kw_only=True, tag="partition"):
    """Nothing passes between `island` and all others; `one_way` only cuts what leaves it."""

    island: tuple[str, ...]
    for_s: float
    one_way: bool = False


class PartialPartition(Fault, frozen=True, kw_only=True, tag="partial-partition"):
    """Nothing passes between `one` and `other`; everybody else sees both."""

    one: str
    other: str
    for_s: float


class FlappingPartition(Fault, frozen=True, kw_only=True, tag="flapping-partition"):
    """`island` is cut off for the first half of every `every_s`; `one_way` only cuts what leaves
    it."""

    island: tuple[str, ...]
    every_s: float
    for_s: float
    one_way: bool = False


class Isolation(Fault, frozen=True, kw_only=True, tag="isolation"):
    """One node is cut off from everybody."""

    node: str
    for_s: float


class DatagramsBlocked(Fault, frozen=True, kw_only=True, tag="datagrams-blocked"):
    """A firewall drops the datagrams to and from a node; streams pass."""

    node: str
    for_s: float


class StreamsBlocked(Fault, frozen=True, kw_only=True, tag="streams-blocked"):
    """A firewall drops the streams to and from a node; datagrams pass."""

    node: str
    for_s: float


class Loss(Fault, frozen=True, kw_only=True, tag="loss"):
    """Every link loses this share of its packets; if `nodes` are named, only their links do, if
    a `carrier` is, only its packets are lost."""

    probability: float
    for_s: float
    nodes: tuple[str, ...] = ()
    carrier: Carrier | None = None


class BurstyLoss(Fault, frozen=True, kw_only=True, tag="bursty-loss"):
    """Every link is good or bad (Gilbert 1960, Elliott 1963): packets are lost only while it is
    bad, `loss` of them. A packet makes a good link bad with `enter`, a bad one good with `exit`.
    """

    enter: float
    exit: float
    loss: float
    for_s: float


class Duplication(Fault, frozen=True, kw_only=True, tag="duplication"):
    """Every link delivers this share of its datagrams twice."""

    probability: float
    for_s: float


class Reordering(Fault, frozen=True, kw_only=True, tag="reordering"):
    """Every link holds this share of its datagrams back by up to `seconds`; later ones overtake."""

    probability: float
    seconds: float
    for_s: float


class Replay(Fault, frozen=True, kw_only=True, tag="replay"):
    """Somebody on the path catches datagrams of `node` and sends them again `after_s` later."""

    node: str
    probability: float
    after_s: float
    for_s: float


class Corruption(Fault, frozen=True, kw_only=True, tag="corruption"):
    """Every link flips a bit in this share of its datagrams."""

    probability: float
    for_s: float


class Delay(Fault, frozen=True, kw_only=True, tag="delay"):
    """A latency spike: everything to and from a node takes longer."""

    node: str
    seconds: float
    for_s: float


class Jitter(Fault, frozen=True, kw_only=True, tag="jitter"):
    """Everything to and from a node takes longer by a random time of up to `seconds`."""

    node: str
    seconds: float
    for_s: float


class BandwidthCap(Fault, frozen=True, kw_only=True, tag="bandwidth-cap"):
    """What a node sends is shaped to `bytes_per_s` with a short queue: datagrams that find it
    full are lost, streams slow down."""

    node: str
    bytes_per_s: float
    for_s: float


class Bufferbloat(Fault, frozen=True, kw_only=True, tag="bufferbloat"):
    """The same with a queue that never drops: bulk makes everything behind it late."""

    node: str
    bytes_per_s: float
    for_s: float


class MtuBlackHole(Fault, frozen=True, kw_only=True, tag="mtu-black-hole"):
    """Packets to and from a node that are larger than `mtu_bytes` vanish without a word:
    handshakes pass, full segments do not."""

    node: str
    mtu_bytes: int
    for_s: float


class HalfOpen(Fault, frozen=True, kw_only=True, tag="half-open"):
    """A firewall forgets the connections that a node has: they carry nothing any more and
    neither end is told. New ones work."""

    node: str


class Reset(Fault, frozen=True, kw_only=True, tag="reset"):
    """The next `count` connections on which a node sends a message are reset in the midst of
    it."""

    node: str
    count: int = 1
    for_s: float = 30.0


class SlowLoris(Fault, frozen=True, kw_only=True, tag="slow-loris"):
    """A stranger opens `connections` to a node, and sends a byte a second on each."""

    node: str
    connections: int
    for_s: float


class FullBacklog(Fault, frozen=True, kw_only=True, tag="full-backlog"):
    """A node's accept backlog is full: dials to it are not answered."""

    node: str
    for_s: float


class AddressChange(Fault, frozen=True, kw_only=True, tag="address-change"):
    """A node is killed and comes back at an address that nobody knows."""

    node: str


NetworkFault = (
    Partition
    | PartialPartition
    | FlappingPartition
    | Isolation
    | DatagramsBlocked
    | StreamsBlocked
    | Loss
    | BurstyLoss
    | Duplication
    | Reordering
    | Replay
    | Corruption
    | Delay
    | Jitter
    | BandwidthCap
    | Bufferbloat
    | MtuBlackHole
    | HalfOpen
    | Reset
    | SlowLoris
    | FullBacklog
    | AddressChange
)
