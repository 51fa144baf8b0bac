"""Bugs in what a task is: writing, reading and repairing its record."""

from __future__ import annotations

from sim.mutation.mutant import Mutant

_DHT = "gossipcache.dht.records"

RECORDS = (
    Mutant(
        name="written-on-one-keeper",
        breaks="an import is acknowledged that only one keeper knows of",
        module=f"{_DHT}.coordinator",
        old="task_id, me = candidate.task_id, self._core.me\n"
        "        keepers = self._core.keepers(task_id)\n"
        "        needed = min(self._config.write_quorum, len(keepers))",
        new="task_id, me = candidate.task_id, self._core.me\n"
        "        keepers = self._core.keepers(task_id)\n"
        "        needed = 1",
        scenarios=("import-cut-off",),
    ),
    Mutant(
        name="commit-without-sync",
        breaks="a record that was acknowledged is gone when its keepers lose power",
        module=f"{_DHT}.log",
        old="journal.write(batch.changes)",
        new="journal.write(batch.changes, sync=False)",
        scenarios=("keepers-power-loss",),
    ),
    Mutant(
        name="tombstone-loses",
        breaks="a deleted task stands again where a manifest of its generation comes by",
        module=f"{_DHT}.standing",
        old="    if buried:\n",
        new="    if len(buried) == 2:\n",
        scenarios=("delete-dead-holder",),
    ),
    Mutant(
        name="absent-while-recovering",
        breaks="tasks are not found for some seconds after keepers died",
        module=f"{_DHT}.keeper",
        old='"absent" if settled else "recovering"',
        new='"absent"',
        scenarios=("keepers-die",),
    ),
    Mutant(
        name="hints-dropped",
        breaks="a record lacks a copy for long after a keeper was away for a moment",
        module=f"{_DHT}.upkeep",
        old="        self._hints.setdefault(node, {})[task_id] = None\n",
        new="",
        scenarios=("keeper-away",),
    ),
    Mutant(
        name="newcomer-not-answered",
        breaks="a node that joins waits for seconds until it keeps records",
        module=f"{_DHT}.glances",
        old="            self._put_off[node] = message.nonce\n",
        new="",
        scenarios=("differing-views",),
    ),
    Mutant(
        name="recovers-too-long",
        breaks="a stat ends without an answer when all keepers of a name have died",
        module="gossipcache.config",
        old="recovery_s: float = 8.0",
        new="recovery_s: float = 12.0",
        scenarios=("asked-while-recovering",),
    ),
    Mutant(
        name="one-keeper-believed",
        breaks="one lying keeper puts other content in the place of a task's",
        module=f"{_DHT}.reading",
        old="if len(holders & self._settled) < self._needed:",
        new="if not holders & self._settled:",
        scenarios=("substituting-keeper",),
    ),
    Mutant(
        name="generation-not-raised",
        breaks="what was deleted once can never be imported again",
        module=f"{_DHT}.coordinator",
        old="generation=own.generation + 1, entry=own.entry",
        new="generation=own.generation, entry=own.entry",
        scenarios=("import-again",),
    ),
    Mutant(
        name="anti-entropy-skips-buckets",
        breaks="a keeper that lost its disk never gets some of the deletions back",
        module=f"{_DHT}.antientropy",
        old="        for bucket in range(BUCKET_COUNT)\n        if _digest_at",
        new="        for bucket in range(BUCKET_COUNT // 2)\n        if _digest_at",
        scenarios=("wiped-keeper",),
    ),
    Mutant(
        name="writers-not-in-turn",
        breaks="two nodes import different content under one name, and both are told it stands",
        module=f"{_DHT}.provisional",
        old="            other and other.expires_at > now and",
        new="            False and other and other.expires_at > now and",
        scenarios=("rival-imports",),
    ),
    Mutant(
        name="redirect-not-followed",
        breaks="a node that believes in dead keepers waits for their end instead of asking others",
        module=f"{_DHT}.reading",
        old="        self._redirects.update(dict.fromkeys(keepers))",
        new="        pass",
        scenarios=("phantom-keepers",),
    ),
    Mutant(
        name="introductions-ignored",
        breaks="a node is sent on to keepers that it cannot reach, as it never heard of them",
        module=f"{_DHT}.client",
        old="            self._around.meet(node, met)",
        new="            pass",
        scenarios=("old-view",),
    ),
    Mutant(
        name="recall-removed",
        breaks="a deleted task returns from a disk that keepers got back from a backup",
        module=f"{_DHT}.recall",
        old="        for standing in tombstones:\n            if standing.tombstone is None:",
        new="        for standing in tombstones[:0]:\n            if standing.tombstone is None:",
        scenarios=("bare-delete-storm",),
    ),
    Mutant(
        name="hearsay-vouches",
        breaks="a lying keeper replaces a task as soon as an empty keeper joins",
        module=f"{_DHT}.exchange",
        old="                    if not answer.hearsay:\n",
        new="                    if True:\n",
        scenarios=("liar-beside-empty-keeper",),
    ),
    Mutant(
        name="one-denial-believed",
        breaks="a task is not found because one keeper lies, or has lost it",
        module=f"{_DHT}.reading",
        old="return Absent() if len(self._absent) >= self._needed else None",
        new="return Absent() if self._absent else None",
        scenarios=("denying-keeper",),
    ),
)
