"""What befalls disks."""

from __future__ import annotations

from sim.faults.fault import Fault


class DiskFull(Fault, frozen=True, kw_only=True, tag="disk-full"):
    """A node's disk has only so much room left."""

    node: str
    free_bytes: int = 0
    for_s: float


class ReadError(Fault, frozen=True, kw_only=True, tag="read-error"):
    """The next `count` reads of a node's disk fail (EIO)."""

    node: str
    count: int = 1
    for_s: float


class WriteError(Fault, frozen=True, kw_only=True, tag="write-error"):
    """The next `count` writes to a node's disk fail (EIO)."""

    node: str
    count: int = 1
    for_s: float


class SyncError(Fault, frozen=True, kw_only=True, tag="sync-error"):
    """The next `count` syncs fail (EIO), and what they should have made durable is never: a
    later sync does not write it again (Rebello et al., "Can Applications Recover from fsync
    Failures?", 2020)."""

    node: str
    count: int = 1
    for_s: float


class TornWrite(Fault, frozen=True, kw_only=True, tag="torn-write"):
    """A machine loses power in the midst of its next write of more than a sector: the sectors
    of its first half are there."""

    node: str
    for_s: float


class LostWrite(Fault, frozen=True, kw_only=True, tag="lost-write"):
    """The next write of at least `min_bytes` is acknowledged and never happens."""

    node: str
    min_bytes: int = 1
    for_s: float


class MisdirectedWrite(Fault, frozen=True, kw_only=True, tag="misdirected-write"):
    """The next write of at least `min_bytes` lands at another place of the disk: elsewhere in
    the same file, or in the file that was made before it."""

    node: str
    min_bytes: int = 1
    for_s: float


class BitRot(Fault, frozen=True, kw_only=True, tag="bit-rot"):
    """One byte of a node's copy of a file decays on the disk."""

    node: str
    path: str
    offset: int


class SlowSync(Fault, frozen=True, kw_only=True, tag="slow-sync"):
    """Each sync of a node's disk takes `seconds` longer."""

    node: str
    seconds: float
    for_s: float


class ReadOnlyDisk(Fault, frozen=True, kw_only=True, tag="read-only-disk"):
    """A node's disk was remounted read-only (EROFS)."""

    node: str
    for_s: float


class VanishedFile(Fault, frozen=True, kw_only=True, tag="vanished-file"):
    """A file is gone from a node's disk; who has it open still reads it."""

    node: str
    path: str


DiskFault = (
    DiskFull
    | ReadError
    | WriteError
    | SyncError
    | TornWrite
    | LostWrite
    | MisdirectedWrite
    | BitRot
    | SlowSync
    | ReadOnlyDisk
    | VanishedFile
)
