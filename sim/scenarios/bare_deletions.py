"""Deleted tasks on bare nodes that are cut off, wiped, or set back to an old disk: the storm of
`deletions`, some fifty times cheaper, so that many thousands of seeds can be played."""

from __future__ import annotations

import hashlib
import heapq
from functools import partial

from gossipcache.config import RecordConfig
from gossipcache.dht.records.publishing import Published
from gossipcache.dht.records.reading import TaskRecord
from gossipcache.dht.records.standing import Standing
from gossipcache.errors import GossipcacheError
from gossipcache.ids import TaskId, task_id_of
from sim.bare.holders import Holders
from sim.bare.library import Library
from sim.bare.outcome import Outcome, begin
from sim.bare.scenario import bare_scenario
from sim.bare.stage import BareStage
from sim.faults import AnyFault, Kill, OldSnapshot, Partition, Pause, Restart

SIZE = 2000
QUORUM = RecordConfig().write_quorum
KINDS = ("spared", "cut off", "paused", "away", "wiped", "wiped", "set back")
LOSES = (None, None, None, None, "deletion", "import")
"""What is followed by the loss of its keepers, in storms that strike nobody else."""
STORM_S = 11.0
"""Within it all faults strike, and end."""
PROBE_INTERVAL_S = 0.3
PROBE_TIMEOUT_S = 0.5
DELETE_TIMEOUT_S = 5.0
STEP_S = 0.05
ONE_VIEW_S = 60.0
KNOWN_S = 8.0
"""After all nodes see each other, how long a deletion may take to reach a node that was away."""
AGREE_S = 30.0
"""How long the keepers of the task may take until all hold the same."""
DROPPED_S = 75.0
"""How long a node may take that was set back to drop a copy that is over: it asks its keepers again
after a minute at the most, and tells nobody of the copy until then."""
ANSWER_S = 10.0


@bare_scenario("bare-delete-storm", nodes=8)
def bare_delete_storm(stage: BareStage) -> None:
    """A task is deleted while bare nodes are cut off, wiped or set back: it never comes back."""
    storm = _Storm(stage)
    storm.begin()
    storm.rage()
    stage.run_until("all views agree", stage.world.views_agree, ONE_VIEW_S)
    stage.run(KNOWN_S)
    stage.run_until("the keepers hold the same", storm.keepers_agree, AGREE_S)
    storm.judge()
    stage.run_until("no node has a deleted copy", storm.copies_are_gone, DROPPED_S)


class _Storm:
    """What one seed drew, and what came of it."""

    def __init__(self, stage: BareStage) -> None:
        self.stage, self.world = stage, stage.world
        self.rng = rng = self.world.streams.named("scenario")
        schedulers = rng.randint(min(5, stage.nodes), stage.nodes)
        self.world.grow(stage.nodes, schedulers=schedulers)
        names = list(self.world.machines)
        first = self.world.machines[names[0]]
        first.seeds = tuple(self.world.machines[name].host.address for name in names[1:3])
        self.library = Library(self.world)
        self.holders = Holders(self.world, self.library)
        self.library.settle()
        content = hashlib.sha256(rng.randbytes(8)).hexdigest()
        self.cid = rng.choice(("report", f"sha256:{content}"))
        keepers = self.library.keepers(self.task_id)
        rng.shuffle(names)
        self.struck = list(rng.choice((keepers, names[3:])))
        self.steady = [name for name in names if name not in self.struck]
        """Nodes that no fault strikes. One of them deletes, and so remembers the deletion."""
        self.steady_schedulers = sum(
            "scheduler" in self.world.machines[name].roles for name in self.steady
        )
        self.dead_generation = 0
        """The highest generation whose deletion was acknowledged."""
        self.live_generation = 0
        """The highest generation whose import was acknowledged."""
        self.stands: bool | None = None
        """Whether the task exists; None: what was asked for last was not acknowledged."""
        self._due: list[tuple[float, int, AnyFault]] = []
        self._faults = 0
        self._is_used = False
        """Whether users still ask for something."""
        for name in self.world.up():
            self._watch(name)
        self.world.on_start.append(self._watch)

    @property
    def task_id(self) -> TaskId:
        return task_id_of(self.cid, "")

    # What happens.

    def begin(self) -> None:
        """The task is imported, and half of the nodes fetch it."""
        names = [*self.steady, *self.struck]
        self.stage.run(0.5)
        first = self.holders.publish(self.rng.choice(names), self.cid, SIZE)
        self.stage.run_until("the task is imported", lambda: first.is_settled, ANSWER_S)
        self._imported(first)
        fetches = [
            self.holders.of(name).fetch(self.task_id) for name in names if self.rng.random() < 0.5
        ]
        self.stage.run_until("it is fetched", lambda: all(x.is_settled for x in fetches), ANSWER_S)

    def rage(self) -> None:
        """Faults strike while the task is deleted, and imported anew."""
        befall = self.rng.choice(
            (self._each_by_itself, self._each_by_itself, self._lose_disks, self._lose_touch)
        )
        loses = self.rng.choice(LOSES)
        if loses is None:
            befall()
        begin(self._use(loses))
        ends_at, probed_at = self.stage.now + STORM_S, 0.0
        while self.stage.now < ends_at or self._due or self._is_used:
            self.stage.run(STEP_S)
            while self._due and self._due[0][0] <= self.stage.now:
                self.stage.inject(heapq.heappop(self._due)[2])
            if self.stage.now >= probed_at + PROBE_INTERVAL_S:
                probed_at = self.stage.now
                self._probe(self.rng.choice(self.steady))

    async def _use(self, loses: str | None) -> None:
        """Up to three deletions, with imports between them or after, by nodes that no fault
        strikes. The first time that one which `loses` names is acknowledged, keepers are wiped."""
        rng, self._is_used = self.rng, True
        await self._sleep(rng.uniform(0.0, 3.0))
        for _ in range(rng.choice((1, 1, 2, 3))):
            copies = await self._delete(rng.choice(self.steady))
            if loses == "deletion" and copies:
                self._wipe_keepers(copies - 1)
                loses = None
            await self._sleep(rng.uniform(0.0, 4.0))
            if rng.random() < 0.5:
                name = rng.choice(self.steady)
                copies = await self._import_anew(name)
                if loses == "import" and copies:
                    # All of them, but for the importer: holders give the record back.
                    self._wipe_keepers(copies, spared=name)
                    loses = None
        self._is_used = False

    async def _delete(self, name: str) -> int:
        self.stands, before = None, self.stands
        try:
            deletion = await self.holders.of(name).delete(self.task_id, DELETE_TIMEOUT_S)
        except GossipcacheError:
            if before is False:
                self.stands = False  # There was nothing to delete.
            return 0
        self.dead_generation = max(self.dead_generation, deletion.generation)
        self.stands = False
        self._count_copies("a deletion", deletion.copies)
        return deletion.copies

    async def _import_anew(self, name: str) -> int:
        self.stands, before = None, self.stands
        outcome = self.holders.publish(name, self.cid, SIZE)
        try:
            published = await outcome
        except GossipcacheError:
            return 0
        is_new = self._imported(outcome)
        if before is None and not is_new:
            self.stands = None  # A deletion that was not acknowledged may yet come to stand.
        return published.copies

    def _imported(self, outcome: Outcome[Published]) -> bool:
        generation = outcome.result().manifest.manifest.generation
        is_new = generation > self.live_generation
        self.live_generation = max(self.live_generation, generation)
        self.stands = True
        self._count_copies("an import", outcome.result().copies)
        if generation <= self.dead_generation:
            self.stage.report(
                f"generation {generation} was acknowledged, deleted: {self.dead_generation}"
            )
        return is_new

    def _count_copies(self, what: str, copies: int) -> None:
        # With a single scheduler left, its copy is all that can be had, and what is told.
        if copies < min(QUORUM, self.steady_schedulers):
            self.stage.report(f"{what} was acknowledged with {copies} copy of its record")

    def _sleep(self, seconds: float) -> Outcome[None]:
        over: Outcome[None] = Outcome()
        self.world.timeline.push(self.stage.now + seconds, over.set, None)
        return over

    # Faults.

    def _at(self, after_s: float, fault: AnyFault) -> None:
        self._faults += 1
        heapq.heappush(self._due, (self.stage.now + after_s, self._faults, fault))

    def _each_by_itself(self) -> None:
        for name in self.struck:
            self._strike(name)

    def _lose_disks(self) -> None:
        """The disks of all that are struck are lost at one instant: they come back wiped, or set
        back to what they were at the start."""
        falls_s = self.rng.uniform(1.0, 6.0)
        for name in self.struck:
            if self.rng.random() < 0.4:
                self._at(0.0, OldSnapshot(node=name, after_s=falls_s))
            else:
                self._wipe(name, falls_s, self.rng.choice((0.1, 0.5, 3.0)))

    def _lose_touch(self) -> None:
        """Some are cut off, or stop, together: what they know stays as it was."""
        some = self.struck[: self.rng.randint(2, len(self.struck))]
        lasts_s = self.rng.uniform(0.5, 9.0)
        if self.rng.random() < 0.5:
            self._at(0.0, Partition(island=tuple(some), for_s=lasts_s))
        else:
            for name in some:
                self._at(0.0, Pause(node=name, for_s=lasts_s))

    def _wipe_keepers(self, count: int, spared: str = "") -> None:
        """At one instant. Whoever is left is struck by nothing else."""
        keepers = [name for name in self.library.keepers(self.task_id) if name != spared]
        lost = self.rng.sample(keepers, min(count, len(keepers)))
        for name in lost:
            self._wipe(name, 0.0, self.rng.choice((0.1, 0.5, 3.0)))
        self.struck = lost
        self.steady = [name for name in self.world.machines if name not in lost]

    def _wipe(self, name: str, falls_s: float, lasts_s: float) -> None:
        self._at(falls_s, Kill(node=name))
        self._at(falls_s + lasts_s, Restart(node=name, wiped=True))

    def _strike(self, name: str) -> None:
        """One fault, or a kill and a return, of one node."""
        kind = self.rng.choice(KINDS)
        starts_s, lasts_s = self.rng.uniform(0.0, 4.0), self.rng.uniform(1.0, 8.0)
        match kind:
            case "cut off":
                self._at(starts_s, Partition(island=(name,), for_s=lasts_s))
            case "paused":
                self._at(starts_s, Pause(node=name, for_s=lasts_s))
            case "set back":
                self._at(starts_s, OldSnapshot(node=name, after_s=lasts_s))
            case "wiped":
                self._wipe(name, starts_s, lasts_s)
            case "away":
                self._at(starts_s, Kill(node=name))
                self._at(starts_s + lasts_s, Restart(node=name))

    # What must hold.

    def _watch(self, name: str) -> None:
        """While a process has a record, its generation never goes back."""
        highest = 0

        def note(_task_id: TaskId, standing: Standing | None) -> None:
            nonlocal highest
            generation = 0 if standing is None else standing.generation
            if standing is not None and generation < highest:
                self.stage.report(f"on {name} the generation went back from {highest}")
            highest = generation

        self.library.of(name).on_entry = note

    def _probe(self, name: str) -> None:
        """Nodes that nothing struck never find what was deleted."""
        dead = self.dead_generation

        def found(record: TaskRecord | None) -> None:
            is_manifest = record is not None and record.manifest is not None
            if record and is_manifest and name in self.steady and record.generation <= dead:
                said = f"{name} finds generation {record.generation}"
                self.stage.report(f"{said}, deleted: {dead}")

        read = self.library.of(name).read(self.task_id, PROBE_TIMEOUT_S)
        read.then(found, lambda _error: None)

    def keepers_agree(self) -> bool:
        """Whether all keepers of the task hold the same of it."""
        held = []
        for name in self.library.keepers(self.task_id):
            core = self.library.of(name).core
            standing = None if core is None else core.standing(self.task_id)
            held.append(None if standing is None else standing.version)
        return len(set(held)) == 1

    def copies_are_gone(self) -> bool:
        """Whether no node has a copy of a generation that was deleted."""
        copies = [each.disk.copies.get(self.task_id) for each in self.world.machines.values()]
        dead = self.dead_generation
        return all(each is None or each.manifest.generation > dead for each in copies)

    def judge(self) -> None:
        """When all is well again: no node has anything of deleted generations, and all find what
        was imported and not deleted."""
        names = self.world.up()
        if len(names) < len(self.world.machines):
            self.stage.report("not all nodes run at the end")
        reads = {name: self.library.of(name).read(self.task_id, ANSWER_S) for name in names}
        over = partial(_are_settled, list(reads.values()))
        self.stage.run_until("all nodes were asked", over, ANSWER_S + 1)
        for name, read in reads.items():
            try:
                self._judge(name, read.result())
            except GossipcacheError as error:
                self.stage.report(f"{name} cannot tell: {error}")
        self.stage.metrics["dead generation"] = self.dead_generation
        self.stage.metrics["live generation"] = self.live_generation
        self.stage.metrics["steady nodes"] = len(self.steady)

    def _judge(self, name: str, record: TaskRecord | None) -> None:
        found = None if record is None or record.manifest is None else record.generation
        if found is not None and found <= self.dead_generation:
            self.stage.report(f"{name} finds generation {found} after all")
        elif found is not None and self.stands is False:
            self.stage.report(f"{name} finds the deleted task after all")
        elif self.stands and found != self.live_generation:
            said = f"an import of generation {self.live_generation} was acknowledged"
            self.stage.report(f"{said}, {name} finds {found or 'nothing'}")


def _are_settled(outcomes: list[Outcome[TaskRecord | None]]) -> bool:
    return all(each.is_settled for each in outcomes)
