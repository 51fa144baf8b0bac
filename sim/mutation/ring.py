"""Bugs in who keeps a task's record."""

from __future__ import annotations

from sim.mutation.mutant import Mutant

RING = (
    Mutant(
        name="ring-by-order-of-joining",
        breaks="nodes that see the same members ask different ones for a task",
        module="gossipcache.dht.ring",
        old="for point, node, slot in sorted(additions):",
        new="for point, node, slot in additions:",
        scenarios=("scheduler-join",),
    ),
    Mutant(
        name="suspects-off-the-ring",
        breaks="records move to and fro each time a member is slow",
        module="gossipcache.dht.membership.member",
        old='return self.is_live and self.phase == "active"',
        new='return self.state == "alive" and self.phase == "active"',
        scenarios=("suspect-keeps-its-keys",),
    ),
    Mutant(
        name="keepers-not-distinct",
        breaks="the three copies of a record stand on two nodes",
        module="gossipcache.dht.ring",
        old="            if owners[index] not in found:\n",
        new="            if True:\n",
        scenarios=("owner-and-replica-death",),
    ),
)
