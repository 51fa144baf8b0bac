"""Bare nodes import, fetch and delete: the records are written, repaired and outlive disks."""

from __future__ import annotations

from typing import TypeVar

from gossipcache.dht.records.standing import Standing
from gossipcache.ids import task_id_of
from sim.bare.holders import Holders
from sim.bare.injection import BareInjector
from sim.bare.library import Library
from sim.bare.outcome import Outcome
from sim.bare.stage import BareStage
from sim.bare.world import BareWorld
from sim.faults import Kill, OldSnapshot, Partition, Restart

T = TypeVar("T")
NODES, CID = 8, "report"
TASK = task_id_of(CID, "")


class Cluster:
    """Eight schedulers, of which the first three seeds know each other."""

    def __init__(self) -> None:
        self.world = BareWorld(1)
        self.stage = BareStage(self.world, BareInjector(self.world), NODES)
        self.world.grow(NODES)
        machines = list(self.world.machines.values())
        machines[0].seeds = tuple(each.host.address for each in machines[1:3])
        self.library = Library(self.world)
        self.holders = Holders(self.world, self.library)
        self.library.settle()
        self.stage.run(0.5)

    def wait(self, outcome: Outcome[T]) -> T:
        self.stage.run_until("it is over", lambda: outcome.is_settled, 15)
        return outcome.result()

    def held(self) -> list[Standing | None]:
        """What the task's keepers hold, owner first."""
        cores = [self.library.of(name).core for name in self.library.keepers(TASK)]
        return [None if core is None else core.standing(TASK) for core in cores]

    def generation_on(self, name: str) -> int | None:
        """Of the manifest that a node finds."""
        record = self.wait(self.library.of(name).read(TASK, 14))
        return None if record is None or record.manifest is None else record.generation


def test_what_is_imported_is_found_and_what_is_deleted_is_not() -> None:
    cluster = Cluster()
    published = cluster.wait(cluster.holders.publish("n1", CID, 100))
    assert published.copies == 3
    assert [cluster.generation_on(name) for name in cluster.world.up()] == [1] * NODES
    deletion = cluster.wait(cluster.holders.of("n2").delete(TASK, 5))
    assert (deletion.generation, deletion.copies) == (1, 3)
    assert [cluster.generation_on(name) for name in cluster.world.up()] == [None] * NODES
    again = cluster.wait(cluster.holders.publish("n3", CID, 100))
    assert again.manifest.manifest.generation == 2


def test_a_keeper_without_its_disk_is_given_the_record_again() -> None:
    cluster = Cluster()
    cluster.wait(cluster.holders.publish("n1", CID, 100))
    lost = cluster.library.keepers(TASK)[0]
    cluster.stage.inject(Kill(node=lost))
    cluster.stage.inject(Restart(node=lost, wiped=True))
    cluster.stage.run_until("one view", cluster.world.views_agree, 20)
    cluster.stage.run_until("three copies", lambda: None not in cluster.held(), 10)


def test_a_record_is_rebuilt_by_its_holder_when_all_keepers_lost_it() -> None:
    cluster = Cluster()
    keepers = cluster.library.keepers(TASK)
    holder = next(name for name in cluster.world.up() if name not in keepers)
    cluster.wait(cluster.holders.publish(holder, CID, 100))
    for name in keepers:
        cluster.stage.inject(Kill(node=name))
        cluster.stage.inject(Restart(node=name, wiped=True))
    cluster.stage.run_until("one view", cluster.world.views_agree, 20)
    cluster.stage.run_until("three copies", lambda: None not in cluster.held(), 20)
    assert cluster.generation_on(keepers[0]) == 1


def test_a_holder_that_was_cut_off_or_set_back_drops_its_copy() -> None:
    cluster = Cluster()
    keepers = cluster.library.keepers(TASK)
    cut_off, set_back, other = [name for name in cluster.world.up() if name not in keepers][:3]
    cluster.wait(cluster.holders.publish(cut_off, CID, 100))
    assert cluster.wait(cluster.holders.of(set_back).fetch(TASK))
    cluster.stage.inject(OldSnapshot(node=set_back, after_s=4.0))
    cluster.stage.inject(Partition(island=(cut_off,), for_s=10.0))
    cluster.stage.run(1.0)
    cluster.wait(cluster.holders.of(other).delete(TASK, 5))
    assert TASK not in cluster.world.machines[set_back].disk.copies
    assert TASK in cluster.world.machines[cut_off].disk.copies
    cluster.stage.run_until(
        "nobody has a copy",
        lambda: not any(TASK in each.disk.copies for each in cluster.world.machines.values()),
        30,
    )
    cluster.stage.run(10)
    assert not any(TASK in each.disk.copies for each in cluster.world.machines.values())
