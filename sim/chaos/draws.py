"""One draw a kind: what a fault of it looks like when the seed makes it up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sim import faults
from sim.chaos.pick import NoTarget, Pick
from sim.faults import AnyFault, Fault, Loss

Draw = Callable[[Pick], AnyFault]


def draw(kind: type[Fault], others: Sequence[type[Fault]], pick: Pick) -> AnyFault:
    """A fault of `kind`; of one of `others` if there is nobody whom one could strike now; a
    little loss if there is nobody for any."""
    for each in (kind, *pick.shuffled(others)):
        try:
            return DRAWS[each](pick)
        except NoTarget:
            continue
    return Loss(probability=0.05, for_s=5.0)


def _values(fields: dict[str, Any], pick: Pick) -> dict[str, Any]:
    """The fields of a fault, those drawn that are to be."""
    return {name: value(pick) if callable(value) else value for name, value in fields.items()}


def _lasting(kind: Callable[..., Any], least: float, most: float, **fields: Any) -> Draw:
    """A fault that holds one node for some seconds; `fields` are values or draws."""

    def drawn(pick: Pick) -> AnyFault:
        for_s = pick.seconds(least, most)
        values = _values(fields, pick)
        fault: AnyFault = kind(node=pick.node(for_s), for_s=for_s, **values)
        return fault

    return drawn


def _everywhere(kind: Callable[..., Any], **fields: Any) -> Draw:
    """A fault of all links."""

    def drawn(pick: Pick) -> AnyFault:
        values = _values(fields, pick)
        fault: AnyFault = kind(for_s=pick.seconds(5, 20), **values)
        return fault

    return drawn


def _bad_disk(kind: Callable[..., Any], **fields: Any) -> Draw:
    """A fault of the one bad disk, that waits for an operation."""

    def drawn(pick: Pick) -> AnyFault:
        fault: AnyFault = kind(node=pick.bad(1.0), for_s=20.0, **fields)
        return fault

    return drawn


def _lying(kind: Callable[..., Any]) -> Draw:
    """A lie that the liar tells for a while."""

    def drawn(pick: Pick) -> AnyFault:
        for_s = pick.seconds(8, 15)
        fault: AnyFault = kind(node=pick.liar(for_s), for_s=for_s)
        return fault

    return drawn


def _against(kind: Callable[..., Any], **fields: Any) -> Draw:
    """A lie that is aimed at another node."""

    def drawn(pick: Pick) -> AnyFault:
        liar = pick.liar(5.0)
        values = _values(fields, pick)
        fault: AnyFault = kind(node=liar, victim=pick.other(liar), **values)
        return fault

    return drawn


def _rot(pick: Pick) -> AnyFault:
    name = pick.bad()
    return faults.BitRot(node=name, path=pick.data(name), offset=pick.offset())


def _vanish(pick: Pick) -> AnyFault:
    name = pick.bad()
    return faults.VanishedFile(node=name, path=pick.data(name))


def _cut_partly(pick: Pick) -> AnyFault:
    one = pick.node()
    return faults.PartialPartition(one=one, other=pick.other(one), for_s=pick.seconds(5, 30))


def _substitute(pick: Pick) -> AnyFault:
    for_s = pick.seconds(8, 15)
    liar = pick.liar(for_s)
    return faults.SubstitutingKeeper(node=liar, cid=pick.cid_kept_by(liar), for_s=for_s)


def _snapshot(pick: Pick) -> AnyFault:
    after_s = pick.seconds(5, 15)
    return faults.OldSnapshot(node=pick.bad(after_s + 1), after_s=after_s)


DRAWS: dict[type[Fault], Draw] = {
    # Nodes.
    faults.Kill: lambda pick: faults.Kill(node=pick.mortal()),
    faults.PowerLoss: lambda pick: faults.PowerLoss(
        node=pick.mortal(), lost="all" if pick.number(0, 1) else "some"
    ),
    faults.Restart: lambda pick: faults.Restart(node=pick.dead()),
    faults.OldSnapshot: _snapshot,
    faults.Leave: lambda pick: faults.Leave(node=pick.mortal()),
    faults.Pause: _lasting(faults.Pause, 1, 20),
    faults.Stall: _lasting(faults.Stall, 8, 20, stall_s=1.0, every_s=2.0),
    faults.SlowCpu: _lasting(faults.SlowCpu, 5, 15, step_s=lambda pick: pick.share(0.001, 0.02)),
    faults.RollingRestart: lambda pick: faults.RollingRestart(
        nodes=pick.everybody(), down_s=0.5, interval_s=pick.seconds(0.5, 3)
    ),
    faults.SchedulerDeath: lambda pick: faults.SchedulerDeath(down_s=pick.seconds(0.1, 5)),
    faults.CrashLoop: lambda pick: faults.CrashLoop(
        node=pick.mortal(12.0), times=pick.number(2, 4), up_s=pick.seconds(0.1, 2), down_s=0.5
    ),
    faults.FlashJoin: lambda pick: faults.FlashJoin(
        count=pick.number(1, 4), for_s=pick.seconds(2, 10)
    ),
    faults.ClonedKey: lambda pick: faults.ClonedKey(node=pick.node(12.0), for_s=10.0),
    # The network.
    faults.Partition: lambda pick: faults.Partition(
        island=pick.island(), for_s=pick.seconds(2, 30), one_way=bool(pick.number(0, 1))
    ),
    faults.PartialPartition: _cut_partly,
    faults.FlappingPartition: lambda pick: faults.FlappingPartition(
        island=pick.island(), every_s=pick.seconds(1, 6), for_s=20.0
    ),
    faults.Isolation: _lasting(faults.Isolation, 2, 30),
    faults.DatagramsBlocked: _lasting(faults.DatagramsBlocked, 5, 20),
    faults.StreamsBlocked: _lasting(faults.StreamsBlocked, 5, 20),
    faults.Loss: _everywhere(faults.Loss, probability=lambda pick: pick.share(0.02, 0.25)),
    faults.BurstyLoss: _everywhere(faults.BurstyLoss, enter=0.02, exit=0.2, loss=0.8),
    faults.Duplication: _everywhere(
        faults.Duplication, probability=lambda pick: pick.share(0.05, 0.5)
    ),
    faults.Reordering: _everywhere(faults.Reordering, probability=0.3, seconds=0.5),
    faults.Replay: _lasting(faults.Replay, 5, 15, probability=0.3, after_s=20.0),
    faults.Corruption: _everywhere(
        faults.Corruption, probability=lambda pick: pick.share(0.02, 0.2)
    ),
    faults.Delay: _lasting(faults.Delay, 3, 20, seconds=lambda pick: pick.share(0.05, 2.0)),
    faults.Jitter: _lasting(faults.Jitter, 3, 20, seconds=lambda pick: pick.share(0.05, 1.0)),
    faults.BandwidthCap: _lasting(faults.BandwidthCap, 5, 15, bytes_per_s=200_000.0),
    faults.Bufferbloat: _lasting(faults.Bufferbloat, 5, 15, bytes_per_s=500_000.0),
    faults.MtuBlackHole: _lasting(faults.MtuBlackHole, 5, 20, mtu_bytes=1_000),
    faults.HalfOpen: lambda pick: faults.HalfOpen(node=pick.node()),
    faults.Reset: lambda pick: faults.Reset(node=pick.node(), count=pick.number(1, 4)),
    faults.SlowLoris: _lasting(faults.SlowLoris, 15, 20, connections=40),
    faults.FullBacklog: _lasting(faults.FullBacklog, 10, 20),
    faults.AddressChange: lambda pick: faults.AddressChange(node=pick.mortal(1.0)),
    # Time.
    faults.ClockSkew: _lasting(faults.ClockSkew, 10, 20, by_s=lambda pick: pick.seconds(-200, 200)),
    faults.ClockDrift: _lasting(faults.ClockDrift, 10, 20, rate=lambda pick: pick.share(-0.5, 1)),
    faults.ClockStepBack: _lasting(
        faults.ClockStepBack, 10, 20, by_s=lambda pick: pick.seconds(1, 7200)
    ),
    faults.ClockStepForward: _lasting(
        faults.ClockStepForward, 10, 20, by_s=lambda pick: pick.seconds(3700, 7200)
    ),
    # Disks.
    faults.DiskFull: _lasting(faults.DiskFull, 10, 20),
    faults.ReadError: _lasting(faults.ReadError, 10, 20, count=lambda pick: pick.number(1, 3)),
    faults.WriteError: _lasting(faults.WriteError, 10, 20, count=lambda pick: pick.number(1, 3)),
    faults.SyncError: _bad_disk(faults.SyncError),
    faults.TornWrite: _bad_disk(faults.TornWrite),
    faults.LostWrite: _bad_disk(faults.LostWrite, min_bytes=512),
    faults.MisdirectedWrite: _bad_disk(faults.MisdirectedWrite, min_bytes=512),
    faults.BitRot: _rot,
    faults.SlowSync: _lasting(faults.SlowSync, 10, 20, seconds=lambda pick: pick.share(0.05, 1)),
    faults.ReadOnlyDisk: _lasting(faults.ReadOnlyDisk, 10, 20),
    faults.VanishedFile: _vanish,
    # Liars.
    faults.LyingParent: _lying(faults.LyingParent),
    faults.TruncatedPiece: _lying(faults.TruncatedPiece),
    faults.WrongLength: _lying(faults.WrongLength),
    faults.LyingHave: _lying(faults.LyingHave),
    faults.MutePeer: _lying(faults.MutePeer),
    faults.EndlessPromise: _lying(faults.EndlessPromise),
    faults.GarbageFrames: _against(faults.GarbageFrames),
    faults.CborBomb: _against(faults.CborBomb),
    faults.OversizedMessage: _against(faults.OversizedMessage),
    faults.BadSignature: _against(faults.BadSignature),
    faults.ForgedAnnouncements: _against(faults.ForgedAnnouncements, cid=lambda pick: pick.cid()),
    faults.ReplayedAnnouncement: lambda pick: faults.ReplayedAnnouncement(
        node=pick.liar(), cid=pick.cid()
    ),
    faults.ExpiredAnnouncement: lambda pick: faults.ExpiredAnnouncement(
        node=pick.liar(), cid=pick.cid()
    ),
    faults.ForgedSuspicion: _against(faults.ForgedSuspicion),
    faults.ForgedIncarnation: _against(faults.ForgedIncarnation),
    faults.LyingKeeper: _lying(faults.LyingKeeper),
    faults.SubstitutingKeeper: _substitute,
    faults.FalseWitnesses: _against(faults.FalseWitnesses),
}
