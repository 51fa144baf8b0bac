"""Bugs that others had in the field: remedies taken out that scenarios named after them show."""

from __future__ import annotations

from sim.mutation.mutant import Mutant

_MEMBERSHIP = "gossipcache.dht.membership"

FIELD = (
    Mutant(
        name="news-never-ends",
        breaks="goodbyes go round and round, and processors are busy with gossip",
        module=f"{_MEMBERSHIP}.broadcast",
        old="            if entry.transmits < limit:",
        new="            if True:",
        scenarios=("consul-5928-gossip-storm",),
    ),
    Mutant(
        name="refutes-without-limit",
        breaks="one who accuses another again and again makes it flood the cluster",
        module=f"{_MEMBERSHIP}.refutation",
        old="        if now >= self._refutable_at:",
        new="        if True:",
        scenarios=("foca-25-tireless-accuser",),
    ),
    Mutant(
        name="address-of-the-first",
        breaks="who comes to an address that another left is taken for that other",
        module=f"{_MEMBERSHIP}.table",
        old="            self._by_address[member.address] = node",
        new="            self._by_address.setdefault(member.address, node)",
        scenarios=("cortex-2130-same-name-new-address",),
    ),
    Mutant(
        name="called-seed-never-serves",
        breaks="a seed that others called before it found another keeps no records, for good",
        module=f"{_MEMBERSHIP}.anti_entropy",
        old="        if joining:",
        new="        if False:",
        scenarios=("olric-243-split-at-start",),
    ),
    Mutant(
        name="first-seed-only",
        breaks="a newcomer whose first seed is gone stays alone",
        module=f"{_MEMBERSHIP}.anti_entropy",
        old="        for seed in missing:",
        new="        for seed in missing[:1]:",
        scenarios=("temporal-9987-zombie-seeds",),
    ),
    Mutant(
        name="deaf-not-noticed",
        breaks="a node that is cut off from everybody shows the others as alive for many minutes",
        module=f"{_MEMBERSHIP}.swim",
        old="        if now - self._heard_at >",
        new="        if False and now - self._heard_at >",
        scenarios=("serf-627-isolated-node",),
    ),
    Mutant(
        name="dead-in-the-digest",
        breaks="nodes that remember other dead send each other their whole views for ever",
        module=f"{_MEMBERSHIP}.table",
        old="        elif old.is_live:\n            self._digest -= old.mark",
        new="        elif old.is_live and member.is_live:\n            self._digest -= old.mark",
        scenarios=("ringpop-143-perpetual-full-sync",),
    ),
    Mutant(
        name="equal-points-by-order-of-joining",
        breaks="nodes with one view name different owners where points of the ring coincide",
        module="gossipcache.dht.ring",
        old="            and self.slots[self.owners[index]] < node\n",
        new="",
        scenarios=("ringpop-go-196-hash-collision",),
    ),
    Mutant(
        name="slow-keeper-waited-for",
        breaks="one keeper that hangs stalls every import that it is to coordinate",
        module="gossipcache.dht.records.quorum",
        old="            is_late = not in_time",
        new="            is_late = False",
        scenarios=("olric-258-hung-member", "temporal-11108-alive-but-unable-to-serve"),
    ),
    Mutant(
        name="second-secret-not-tried",
        breaks="amid a rotation of the secret nodes before and after a step do not hear each other",
        module="gossipcache.cluster",
        old="        for secret in self.secrets:",
        new="        for secret in self.secrets[:1]:",
        scenarios=("serf-579-key-rotation",),
    ),
)
