"""Bugs in who is held for alive, and what of."""

from __future__ import annotations

from sim.mutation.mutant import Mutant

_DHT = "gossipcache.dht.membership"

MEMBERSHIP = (
    Mutant(
        name="refuted-without-raising",
        breaks="a node that was called dead by mistake never comes back",
        module=f"{_DHT}.refutation",
        old="        incarnation = me.incarnation + 1\n        if self._claimed",
        new="        incarnation = me.incarnation\n        if self._claimed",
        scenarios=("suspect-keeps-its-keys", "pause"),
    ),
    Mutant(
        name="dead-not-retried",
        breaks="two halves of a cluster never meet again once the seeds are gone",
        module=f"{_DHT}.anti_entropy",
        old="        dead = self._table.random_dead()",
        new="        dead = None",
        scenarios=("partition-without-seeds",),
    ),
    Mutant(
        name="suspicion-never-expires",
        breaks="a silent member stays suspect for ever",
        module=f"{_DHT}.swim",
        old="                self.view.conclude(NodeId(node), now)",
        new="                pass",
        scenarios=("suspect-keeps-its-keys",),
    ),
    Mutant(
        name="old-accusation-counts",
        breaks="a member that has refuted is killed by rumours about its earlier incarnation",
        module=f"{_DHT}.view",
        old="held.incarnation != accusation.incarnation or",
        new="held.incarnation < accusation.incarnation or",
        scenarios=("false-accuser",),
    ),
    Mutant(
        name="single-accuser-kills",
        breaks="one lying member declares any other dead",
        module=f"{_DHT}.suspicion",
        old="DEATH_QUORUM = 2",
        new="DEATH_QUORUM = 1",
        scenarios=("false-accuser",),
    ),
    Mutant(
        name="dead-forgotten-at-once",
        breaks="a member that died is not tried again, and its old record brings it back",
        module=f"{_DHT}.view",
        old='in_state("dead"))\n        self._timers.set(("forget", node), now + ',
        new='in_state("dead"))\n        self._timers.set(("forget", node), now + 0 * ',
        scenarios=("partition-without-seeds",),
    ),
    Mutant(
        name="older-record-replaces-newer",
        breaks="late rumours set a member back to what it was before",
        module=f"{_DHT}.view",
        old="elif member.incarnation > held.incarnation:",
        new="elif member.incarnation != held.incarnation:",
        scenarios=("pause",),
    ),
    Mutant(
        name="record-not-verified",
        breaks="any member re-addresses any other by a record that it made up",
        module=f"{_DHT}.member",
        old="        self.verify(signed, MEMBER_DOMAIN)\n",
        new="",
        scenarios=("forged-records",),
    ),
    Mutant(
        name="accusation-not-verified",
        breaks="one member accuses in the names of others, and so kills whom it likes",
        module=f"{_DHT}.member",
        old="            self.verify(Signed(payload, accuser_key, accusation.signature), "
        "ACCUSATION_DOMAIN)\n",
        new="",
        scenarios=("false-accuser",),
    ),
    Mutant(
        name="first-address-kept",
        breaks="a node that moved to another address is not reached any more",
        module=f"{_DHT}.view",
        old="        self._put(member)\n        if spread:\n"
        "            self.queue.add_record(node, member.record)",
        new="        from dataclasses import replace\n"
        "        self._put(replace(member, address=held.address))\n        if spread:\n"
        "            self.queue.add_record(node, member.record)",
        scenarios=("moved-node",),
    ),
    Mutant(
        name="goodbye-not-heard",
        breaks="a node that left in order is missed as if it had crashed",
        module=f"{_DHT}.member",
        old='state="left" if payload.phase == "left" else "alive"',
        new='state="alive"',
        scenarios=("leave",),
    ),
    Mutant(
        name="earlier-life-not-outbid",
        breaks="a node whose clock went back is not believed any more after a restart",
        module=f"{_DHT}.refutation",
        old="            self._claimed = max(self._claimed, incarnation)\n"
        "            self._refute_soon(now)\n",
        new="            pass\n",
        scenarios=("clock-behind",),
    ),
)
