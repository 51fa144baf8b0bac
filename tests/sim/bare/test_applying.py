"""Each kind of fault that bare nodes know takes effect, and the cluster outlives it."""

from __future__ import annotations

import pytest

from gossipcache.errors import UsageError
from sim import faults
from sim.bare.injection import BareInjector
from sim.bare.stage import BareStage
from sim.bare.world import BareWorld
from sim.faults import AnyFault, kind_of

KINDS: list[AnyFault] = [
    faults.Loss(probability=0.2, for_s=5),
    faults.BurstyLoss(enter=0.1, exit=0.3, loss=0.8, for_s=5),
    faults.Duplication(probability=1.0, for_s=5),
    faults.Corruption(probability=0.2, for_s=5),
    faults.Reordering(probability=0.2, seconds=0.1, for_s=5),
    faults.Replay(node="n3", probability=0.5, after_s=1, for_s=5),
    faults.Partition(island=("n1", "n2"), for_s=5),
    faults.Partition(island=("n1", "n2"), for_s=5, one_way=True),
    faults.PartialPartition(one="n1", other="n2", for_s=20),
    faults.Isolation(node="n3", for_s=5),
    faults.FlappingPartition(island=("n3",), every_s=2, for_s=6),
    faults.DatagramsBlocked(node="n3", for_s=10),
    faults.Delay(node="n3", seconds=0.1, for_s=5),
    faults.Jitter(node="n3", seconds=0.1, for_s=5),
    faults.BandwidthCap(node="n3", bytes_per_s=1000, for_s=5),
    faults.Bufferbloat(node="n3", bytes_per_s=1000, for_s=5),
    faults.MtuBlackHole(node="n3", mtu_bytes=100, for_s=5),
    faults.Kill(node="n3"),
    faults.PowerLoss(node="n3"),
    faults.Leave(node="n3"),
    faults.AddressChange(node="n3"),
    faults.Pause(node="n3", for_s=5),
    faults.Stall(node="n3", stall_s=0.5, every_s=1, for_s=5),
    faults.SlowCpu(node="n3", step_s=0.2, for_s=5),
    faults.RollingRestart(nodes=("n1", "n2", "n3"), down_s=1, interval_s=2),
    faults.SchedulerDeath(down_s=2),
    faults.CrashLoop(node="n3", times=3, up_s=1, down_s=1),
    faults.FlashJoin(count=5, for_s=5),
    faults.ClonedKey(node="n3", for_s=5),
    faults.ClockSkew(node="n3", by_s=600, for_s=5),
]


def stage() -> BareStage:
    world = BareWorld(1)
    made = BareStage(world, BareInjector(world), 8)
    world.grow(8)
    made.run(3)
    return made


@pytest.mark.parametrize("fault", KINDS, ids=kind_of)
def test_the_fault_bites_and_all_see_all_again(fault: AnyFault) -> None:
    made = stage()
    made.inject(fault)
    made.run(20)
    made.run_until("one view", made.world.views_agree, 60)
    assert made.world.wrong == []
    assert made.faults.counts()[kind_of(fault)].bit == 1


@pytest.mark.parametrize("fault", KINDS, ids=kind_of)
def test_a_fault_of_what_is_not_there_does_nothing(fault: AnyFault) -> None:
    world = BareWorld(1)
    made = BareStage(world, BareInjector(world), 0)
    made.inject(fault)
    made.run(10)


def test_who_cannot_connect_cannot_join() -> None:
    made = stage()
    made.inject(faults.StreamsBlocked(node="n3", for_s=20))
    made.inject(faults.RollingRestart(nodes=("n3",), down_s=1, interval_s=1))
    made.run(19)
    assert not made.world.machines["n3"].membership.is_joined
    made.run_until("one view", made.world.views_agree, 60)
    assert made.faults.counts()["streams-blocked"].bit == 1


def test_what_bare_nodes_have_not_cannot_fail() -> None:
    made = stage()
    with pytest.raises(UsageError, match="disk-full"):
        made.inject(faults.DiskFull(node="n3", for_s=1))
