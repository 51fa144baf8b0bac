"""Record keepers die: nobody who uses the cache should notice, and copies are made anew."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count

import trio

from gossipcache.errors import GossipcacheError, TaskNotFound, TimedOut
from gossipcache.ids import task_id_of
from sim.faults import AnyFault, Kill, Pause
from sim.whole.scenario import Stage, scenario
from sim.whole.world import World

SIZE = 2000
COPIES = 3
LOAD_S = 6.0
KILL_AFTER_S = 2.5
INTERVAL_S = 0.4
ADDED_BOUND_S = 0.25
HANGING_BOUND_S = 1.0
COPIES_BOUND_S = 10.0
REBUILT_BOUND_S = 20.0
TASKS = 24


@dataclass
class _Load:
    """Calls of all users while a keeper is struck, and how long each took."""

    world: World
    names: list[str]
    fresh: list[str]
    """cids that nobody imported yet; the victim owns them all."""
    imported: dict[str, list[str]] = field(default_factory=dict)
    """cid → the nodes that have it."""
    took_s: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """kind of call → (start, duration) of each."""
    failed: int = 0

    async def use(self, name: str) -> None:
        """One user at a node: import, stat and export in turn, until the time is over."""
        rng = self.world.streams.named(f"user/{name}")
        ends_at = self.world.clock.now + LOAD_S
        for turn in count():
            await trio.sleep(rng.uniform(0.5, 1.5) * INTERVAL_S)
            if self.world.clock.now >= ends_at:
                return
            kind = ("import", "stat", "export")[turn % 3]
            elsewhere = sorted(cid for cid, held in self.imported.items() if name not in held)
            if kind == "import":
                await self.measure(kind, name, self.fresh.pop())
            elif elsewhere:
                await self.measure(kind, name, rng.choice(elsewhere))

    async def measure(self, kind: str, name: str, cid: str) -> None:
        """Makes one call."""
        call: dict[str, Callable[[], Awaitable[object]]] = {
            "import": lambda: self.world.import_content(name, cid, SIZE),
            "stat": lambda: self.world.stat(name, cid),
            "export": lambda: self.world.export(name, cid),
        }
        started = self.world.clock.now
        try:
            await call[kind]()
        except GossipcacheError as error:
            self.failed += 1
            self.world.report(f"{kind} of {cid} on {name} failed: {error}")
            return
        self.took_s.setdefault(kind, []).append((started, self.world.clock.now - started))
        if kind != "stat":
            self.imported.setdefault(cid, []).append(name)

    def compare(self, struck_at: float, bound_s: float) -> None:
        """How much longer calls took from the fault on than the usual call before it."""
        world = self.world
        added: list[float] = []
        for kind, calls in sorted(self.took_s.items()):
            before = [took for started, took in calls if started + took < struck_at]
            after = [took for started, took in calls if started + took >= struck_at]
            usual = statistics.median(before)
            added += [took - usual for took in after]
            world.metrics[f"{kind} usual s"] = round(usual, 4)
            world.metrics[f"{kind} slowest s"] = round(max(after), 4)
        world.metrics["calls"] = sum(len(calls) for calls in self.took_s.values())
        world.metrics["failed"] = self.failed
        ranked = sorted(added)
        for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0)):
            value = ranked[min(len(ranked) - 1, int(share * len(ranked)))]
            world.metrics[f"{name} added s"] = round(value, 4)
        if world.metrics["p95 added s"] > bound_s:
            world.report(f"p95 of the added time is {world.metrics['p95 added s']} s")


@scenario("owner-killed-under-load", nodes=6)
async def owner_killed_under_load(stage: Stage) -> None:
    """The owner of all tasks in use is killed: no stat, import or export fails or takes long."""
    await _under_load(stage, lambda victim: Kill(node=victim), ADDED_BOUND_S)


@scenario("owner-hangs-under-load", nodes=6)
async def owner_hangs_under_load(stage: Stage) -> None:
    """The owner of all tasks in use stops answering, but its host does not refuse: others step in
    within a second."""
    await _under_load(stage, lambda victim: Pause(node=victim, for_s=LOAD_S), HANGING_BOUND_S)


async def _under_load(stage: Stage, strike: Callable[[str], AnyFault], bound_s: float) -> None:
    world = stage.world
    await world.start_cluster(stage.nodes)
    names = sorted(world.machines)
    victim = world.streams.named("scenario").choice(names)
    load = _Load(world, names, await _owned_by(world, victim, 20 * stage.nodes))
    names.remove(victim)
    for name in names:
        await load.measure("import", name, load.fresh.pop())
    load.took_s.clear()
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(load.use, name)
        await trio.sleep(KILL_AFTER_S)
        struck_at = await stage.faults.inject(strike(victim))
    load.compare(struck_at, bound_s)


@scenario("two-keepers-killed", nodes=6)
async def two_keepers_killed(stage: Stage) -> None:
    """Any two keepers are killed at once: every record has three copies within ten seconds."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    names = sorted(world.machines)
    world.streams.named("scenario").shuffle(names)
    killed, others = names[:2], names[2:]
    cids = [f"task-{number}" for number in range(TASKS)]
    for number, cid in enumerate(cids):
        await world.import_content(others[number % len(others)], cid, SIZE)
    await _three_copies_again(stage, killed, cids, COPIES_BOUND_S)
    await world.export(others[0], cids[-1])


@scenario("all-keepers-killed", nodes=7)
async def all_keepers_killed(stage: Stage) -> None:
    """All keepers of a task are killed at once: its holder gives the record back; until then
    nobody says that there is no such task."""
    world = stage.world
    await world.start_cluster(stage.nodes)
    owner, replicas = await world.owner_of("n0", "report")
    others = [name for name in sorted(world.machines) if name not in (owner, *replicas)]
    await world.import_content(others[0], "report", SIZE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_never_absent, world, others[1])
        await _three_copies_again(stage, [owner, *replicas], ["report"], REBUILT_BOUND_S)
        await world.export(others[2], "report")
        nursery.cancel_scope.cancel()


async def _never_absent(world: World, name: str) -> None:
    while True:
        try:
            await world.stat(name, "report", timeout_s=2.0)
        except TimedOut:
            world.metrics["told to retry"] = world.metrics.get("told to retry", 0) + 1
        except TaskNotFound as error:
            world.report(f"{name} was told that there is no such task: {error}")
        await trio.sleep(0.2)


async def _three_copies_again(
    stage: Stage, killed: list[str], cids: list[str], within_s: float
) -> None:
    world = stage.world
    for name in killed:
        await stage.faults.inject(Kill(node=name))

    def copies(cid: str) -> int:
        records = [
            world.node(name).services.records.local(task_id_of(cid, "")) for name in world.up()
        ]
        return sum(record is not None and record.manifest is not None for record in records)

    fewest = min(copies(cid) for cid in cids)
    world.metrics["fewest copies after the kill"] = fewest
    await world.wait_until(
        "all have three copies",
        lambda: all(copies(cid) >= COPIES for cid in cids),
        within_s,
    )


async def _owned_by(world: World, victim: str, wanted: int) -> list[str]:
    """cids whose owner is the victim."""
    found: list[str] = []
    for number in count():
        cid = f"task-{number}"
        if (await world.owner_of(victim, cid))[0] == victim:
            found.append(cid)
        if len(found) == wanted:
            return found
    raise AssertionError("unreachable")
