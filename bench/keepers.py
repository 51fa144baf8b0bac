"""What users notice when the keepers of records die: nothing failed, and how much was late."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from bench.figures import Figure, Figures
from bench.nodes import Node, call, running_node
from bench.report import Job
from gossipcache import Cache
from gossipcache.dht.ring import Ring
from gossipcache.errors import GossipcacheError
from gossipcache.ids import NodeId, task_id_of

NODES = 5
REPLICAS = 3
SMALL_BYTES = 4096
CALM_S = 8.0
AFTER_S = 6.0
"""For how long after the kill calls count: by then the ring has changed."""
LIMIT_S = 60.0


@dataclass(frozen=True)
class Call:
    """One call of a user."""

    verb: str
    started_s: float
    seconds: float
    error: str | None


def owner_killed(job: Job) -> Figures:
    """R3: users stat, import and export tasks of one owner while it is killed."""
    calls: list[Call] = []
    added: list[float] = []
    for run in range(job.runs):
        with _cluster(job.folder / f"run-{run}") as nodes:
            found, killed_s = _calls_over_a_kill(nodes, job.folder)
        calls += found
        added += _added_s(found, killed_s)
        job.say(f"run {run + 1}: {len(found)} calls, slowest {1000 * max(added):.0f} ms more")
    failed = [each for each in calls if each.error is not None]
    for each in failed:
        job.say(f"failed: {each.verb}: {each.error}")
    added.sort()
    return Figures(
        "owner-killed",
        {"nodes": NODES, "runs": job.runs, "calls after a kill": len(added)},
        [
            Figure("failed calls", len(failed), "", at_most=0),
            Figure("added, p95", 1000 * added[int(0.95 * len(added))], "ms", at_most=250),
            Figure("added, max", 1000 * added[-1], "ms"),
        ],
    )


def keepers_killed(job: Job) -> Figures:
    """R3: two of a record's three keepers are killed at once; when has it three again?"""
    took = []
    for run in range(job.runs):
        with _cluster(job.folder / f"run-{run}") as nodes:
            keepers = _ring(nodes).keepers(task_id_of("task", ""), REPLICAS)
            others = [node for node in nodes if _id_of(node) not in keepers]
            Cache(others[0].home, start=False).import_bytes(os.urandom(SMALL_BYTES), "task")
            victims = [node for node in nodes if _id_of(node) in keepers[:2]]
            for node in victims:
                node.process.kill()
            killed_s = time.monotonic()
            while _copies([node for node in nodes if node not in victims]) < REPLICAS:
                if time.monotonic() - killed_s > LIMIT_S:
                    raise RuntimeError(f"not {REPLICAS} copies within {LIMIT_S} s")
                time.sleep(0.05)
            took.append(time.monotonic() - killed_s)
        job.say(f"run {run + 1}: {REPLICAS} copies again after {took[-1]:.2f} s")
    return Figures(
        "keepers-killed",
        {"nodes": NODES, "runs": job.runs},
        [
            Figure("three copies again, p50", sorted(took)[len(took) // 2], "s"),
            Figure("three copies again, max", max(took), "s", at_most=10),
        ],
    )


@contextmanager
def _cluster(folder: Path) -> Iterator[list[Node]]:
    """Nodes that see each other and keep records."""
    folder.mkdir()
    with ExitStack() as stack:
        nodes = [stack.enter_context(running_node(folder / "n0"))]
        for number in range(1, NODES):
            home = folder / f"n{number}"
            nodes.append(stack.enter_context(running_node(home, join=nodes[0].address)))
        for node in nodes:
            call(node.home, "members", "--expect", str(NODES), "--timeout", "60s")
            until = time.monotonic() + LIMIT_S
            while _schedulers(node) < NODES and time.monotonic() < until:
                time.sleep(0.1)
        yield nodes


def _schedulers(node: Node) -> int:
    shares = call(node.home, "ring")["schedulers"]
    assert isinstance(shares, list)
    return len(shares)


def _copies(nodes: list[Node]) -> int:
    return sum(int(str(call(node.home, "node", "status")["records"])) for node in nodes)


def _ring(nodes: list[Node]) -> Ring:
    return Ring(_id_of(node) for node in nodes)


def _id_of(node: Node) -> NodeId:
    return NodeId(bytes.fromhex(node.node_id))


def _calls_over_a_kill(nodes: list[Node], folder: Path) -> tuple[list[Call], float]:
    owner, ring = nodes[0], _ring(nodes)
    owned = (
        cid
        for cid in map(str, count())
        if ring.keepers(task_id_of(cid, ""), REPLICAS)[0] == _id_of(owner)
    )
    caches = [Cache(node.home, start=False) for node in nodes if node is not owner]
    standing = [next(owned) for _ in range(20)]
    for cid in standing:
        caches[0].import_bytes(os.urandom(SMALL_BYTES), cid)
    names = [next(owned) for _ in range(2000)]
    turn = {verb: count() for verb in ("stat", "import", "export")}

    def stat() -> None:
        caches[1].stat(standing[next(turn["stat"]) % len(standing)])

    def import_one() -> None:
        caches[2].import_bytes(os.urandom(SMALL_BYTES), names[next(turn["import"])])

    def export() -> None:
        output = folder / "output"
        cid = standing[next(turn["export"]) % len(standing)]
        caches[3].export(cid, output, overwrite=True)
        caches[3].delete(cid, local=True)

    with _users({"stat": stat, "import": import_one, "export": export}) as calls:
        time.sleep(CALM_S)
        owner.process.kill()
        killed_s = time.monotonic()
        time.sleep(AFTER_S)
    return calls, killed_s


@contextmanager
def _users(work: dict[str, Callable[[], None]]) -> Iterator[list[Call]]:
    """A user for each verb, calling without pause until the block ends."""
    calls: list[Call] = []
    ending = threading.Event()

    def user(verb: str, once: Callable[[], None]) -> None:
        while not ending.is_set():
            started_s, error = time.monotonic(), None
            try:
                once()
            except GossipcacheError as raised:
                error = str(raised)
            calls.append(Call(verb, started_s, time.monotonic() - started_s, error))
            ending.wait(0.02)

    threads = [threading.Thread(target=user, args=item) for item in work.items()]
    for thread in threads:
        thread.start()
    try:
        yield calls
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def _added_s(calls: list[Call], killed_s: float) -> list[float]:
    """How much longer each call after the kill took than the verb's median before."""
    found = []
    for verb in sorted({each.verb for each in calls}):
        own = [each for each in calls if each.verb == verb]
        calm = sorted(each.seconds for each in own if each.started_s + each.seconds < killed_s)
        median_s = calm[len(calm) // 2]
        found += [
            each.seconds - median_s for each in own if each.started_s + each.seconds >= killed_s
        ]
    return found
