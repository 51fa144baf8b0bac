"""Bare nodes: what they see of each other, and what is done to them."""

from __future__ import annotations

import pytest

from gossipcache.dht.membership.member import Member
from gossipcache.ids import Address
from sim.bare.injection import BareInjector
from sim.bare.stage import BareStage, StageTimeout
from sim.bare.world import PORT, BareWorld
from sim.faults import Kill, Leave, Loss, Partition, Pause, PowerLoss


def stage(nodes: int = 8, seed: int = 1) -> BareStage:
    """A cluster that has long been there."""
    world = BareWorld(seed)
    made = BareStage(world, BareInjector(world), nodes)
    world.grow(nodes)
    made.run(5)
    return made


def test_nodes_join_through_the_first() -> None:
    world = BareWorld(1)
    made = BareStage(world, BareInjector(world), 10)
    assert made.start_cluster(10) < 3
    assert world.alive_on("n9") == set(world.machines)
    assert len(world.machines["n9"].membership.ring.members) == 10
    assert world.wrong == []


def test_the_kernel_of_a_killed_node_tells_at_once() -> None:
    made = stage()
    made.inject(Kill(node="n3"))
    took = made.run_until("all miss n3", lambda: len(made.world.missed_by("n3")) == 7, 10)
    assert took < 4
    assert made.faults.counts()["kill"].bit == 1


def test_a_host_without_power_tells_nothing() -> None:
    made = stage()
    made.inject(PowerLoss(node="n3"))
    took = made.run_until("all miss n3", lambda: len(made.world.missed_by("n3")) == 7, 30)
    assert took > 3


def test_a_node_restarts_at_another_address() -> None:
    made = stage()
    made.inject(Kill(node="n3"))
    made.run(10)
    made.world.start("n3", address=Address("10.9.9.9", PORT))
    made.run_until("one view", made.world.views_agree, 20)
    member = made.world.member("n0", "n3")
    assert member is not None
    assert member.address.host == "10.9.9.9"


def test_a_node_that_leaves_is_not_suspected() -> None:
    made = stage()
    seen: list[str] = []

    def listen(_viewer: str, member: str, as_seen: Member) -> None:
        if member == "n3":
            seen.append(as_seen.state)

    made.world.on_change.append(listen)
    made.inject(Leave(node="n3"))
    made.run_until("all saw it leave", lambda: len(made.world.missed_by("n3")) == 7, 5)
    assert set(seen) == {"left"}
    made.run(1)
    assert not made.world.machines["n3"].is_up


def test_a_paused_node_is_missed_and_comes_back() -> None:
    made = stage()
    struck = made.inject(Pause(node="n3", for_s=30))
    made.run_until("all miss n3", lambda: len(made.world.missed_by("n3")) == 7, 29)
    made.run(struck + 30 - made.now)
    made.run_until("one view", made.world.views_agree, 20)
    assert made.faults.counts()["pause"].bit == 1


def test_a_slow_node_does_one_step_after_another() -> None:
    made = stage()
    process = made.world.machines["n3"].process
    assert process is not None
    process.slow_down(0.3)
    made.run(20)
    assert process.held_steps > 20
    process.slow_down(0)
    made.run_until("one view", made.world.views_agree, 60)
    made.run(5)  # what had piled up is done
    held = process.held_steps
    made.run(5)
    assert process.held_steps == held


def test_a_healed_partition_becomes_one_view() -> None:
    made = stage()
    made.inject(Partition(island=("n1", "n2"), for_s=60))
    made.run_until("split", lambda: made.world.alive_on("n1") == {"n1", "n2"}, 55)
    made.run(60 - made.now + 5)
    made.run_until("one view", made.world.views_agree, 30)
    assert made.world.wrong == []


def test_a_condition_that_does_not_come_true_ends_the_wait() -> None:
    made = stage(3)
    with pytest.raises(StageTimeout, match="the impossible"):
        made.run_until("the impossible", lambda: False, 1)


def test_datagrams_have_their_true_length_and_the_real_wire_agrees() -> None:
    sizes = []
    for real in (False, True):
        world = BareWorld(1, real_wire=real)
        world.grow(5)
        world.timeline.run_to(10)
        assert world.views_agree()
        hosts = [machine.host for machine in world.machines.values()]
        sizes.append(sum(host.datagram_bytes_sent for host in hosts) / 50)
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_a_lossy_network_loses() -> None:
    made = stage()
    made.inject(Loss(probability=0.2, for_s=20))
    made.run(20)
    assert made.faults.counts()["loss"].bit == 1
    assert made.world.wrong == []


def test_a_cluster_that_has_long_been_there_is_one_whose_nodes_met_one_by_one() -> None:
    grown, joined = BareWorld(1), BareWorld(1)
    grown.grow(9)
    BareStage(joined, BareInjector(joined), 9).start_cluster(9)
    assert grown.views_agree()
    for name in grown.machines:
        assert grown.alive_on(name) == joined.alive_on(name)
        assert grown.machines[name].membership.owners == joined.machines[name].membership.owners
        assert grown.machines[name].membership.ring.epoch == (
            joined.machines[name].membership.ring.epoch
        )
    grown.witness.at_the_end()
    assert grown.wrong == []
