"""How fast real nodes on real sockets find each other, and notice who is gone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.figures import Figure, Figures
from bench.namespaces import Bridge, NoNamespaces
from bench.report import Job
from bench.watching import Host, Views

CROWD = 100
CROWD_HOSTS = 4
"""Processes over which the nodes that stay are spread: two cores bear no hundred interpreters."""
REST_S = 5.0
"""Before each kill, so that it meets a cluster at rest: after a death the keepers compare."""
SETTLE_S = 20.0
"""After all see each other: the keepers of a new ring compare what they have."""
STORM = 30
ISLANDERS = 6
PARTITION_S = 600.0


def crash_noticed(job: Job) -> Figures:
    """M1: of 100 nodes at rest one is killed; when has the last of them noticed? Once a run."""
    views, took = Views(), []
    with ExitStack() as stack:
        victims = job.runs
        hosts = _crowd(job.folder, views, CROWD - victims, stack)
        seed = views.addresses["n0"]
        alone = [
            _host(stack, views, job.folder, range(number, number + 1), [seed])
            for number in range(CROWD - victims, CROWD)
        ]
        names = [name for host in (*hosts, *alone) for name in host.names]
        views.await_agreement(names)
        job.say(f"{len(names)} nodes see each other")
        time.sleep(SETTLE_S)
        for victim in alone:
            time.sleep(REST_S)
            names = [name for name in names if name not in victim.names]
            killed_s = victim.kill()
            views.await_agreement(names)
            took.append(views.last_change_s(names, victim.names) - killed_s)
            job.say(f"{victim.names[0]} killed: known by all after {took[-1]:.2f} s")
    return Figures(
        "crash-noticed",
        {"nodes": CROWD, "kills": len(took)},
        [
            Figure("known by all, p50", statistics.median(took), "s", at_most=2.5),
            Figure("known by all, max", max(took), "s", at_most=4.0),
        ],
    )


def join_storm(job: Job) -> Figures:
    """M3: 30 processes start at once and join through one seed."""
    took, since_start = [], []
    for run in range(job.runs):
        folder = job.folder / f"run-{run}"
        views = Views()
        with ExitStack() as stack:
            folder.mkdir()
            _host(stack, views, folder, range(1))
            views.await_serving(["n0"])
            seed = views.addresses["n0"]
            for number in range(1, STORM):
                _host(stack, views, folder, range(number, number + 1), [seed])
            names = [f"n{number}" for number in range(STORM)]
            views.await_serving(names)
            views.await_agreement(names)
            last_s = views.last_change_s(names, names)
            took.append(max(0.0, last_s - max(views.up_s.values())))
            since_start.append(last_s - min(views.up_s.values()))
            job.say(f"all see all {took[-1]:.2f} s after the last of them was up")
    return Figures(
        "join-storm",
        {"processes": STORM, "runs": job.runs},
        [
            Figure("after the last was up, p50", statistics.median(took), "s"),
            Figure("after the last was up, max", max(took), "s", at_most=3.0),
            Figure("after the first was up, p50", statistics.median(since_start), "s"),
        ],
    )


def long_partition(job: Job) -> Figures:
    """M7: half of the machines are cut off for ten minutes, then the cable is back."""
    views = Views()
    with ExitStack() as stack:
        try:
            bridge = stack.enter_context(Bridge.made(ISLANDERS))
        except NoNamespaces as reason:
            return Figures("long-partition", {"skipped": str(reason)}, [])
        hosts = []
        for number in range(ISLANDERS):
            machine = bridge.machines[number]
            hosts.append(
                _host(
                    stack, views, job.folder, range(number, number + 1),
                    [views.addresses["n0"]] if number else [],
                    ip=machine.ip, prefix=machine.command(),
                )
            )  # fmt: skip
            views.await_serving(hosts[-1].names)
        names = [f"n{number}" for number in range(ISLANDERS)]
        views.await_agreement(names)
        island, mainland = names[: ISLANDERS // 2], names[ISLANDERS // 2 :]
        cut_s = bridge.cut(range(ISLANDERS // 2))
        views.await_agreement(island, mainland)
        split_s = views.last_change_s(names, names) - cut_s
        job.say(f"the split is seen after {split_s:.1f} s")
        bridge.wait(cut_s + PARTITION_S)
        healed_s = bridge.heal()
        views.await_agreement(names)
        one_view_s = views.last_change_s(names, names) - healed_s
    return Figures(
        "long-partition",
        {"machines": ISLANDERS, "partition_s": PARTITION_S},
        [
            Figure("split seen by all", split_s, "s"),
            Figure("one view after healing", one_view_s, "s", at_most=15.0),
        ],
    )


def _crowd(folder: Path, views: Views, count: int, stack: ExitStack) -> list[Host]:
    share = -(-count // CROWD_HOSTS)
    hosts: list[Host] = []
    for start in range(0, count, share):
        join = [views.addresses["n0"]] if hosts else []
        numbers = range(start, min(start + share, count))
        # The first node is the seed of the others in its own process too, once it serves.
        if not hosts:
            hosts.append(_host(stack, views, folder, range(1)))
            views.await_serving(["n0"])
            join, numbers = [views.addresses["n0"]], range(1, numbers.stop)
        hosts.append(_host(stack, views, folder, numbers, join))
    return hosts


def _host(
    stack: ExitStack,
    views: Views,
    folder: Path,
    numbers: range,
    join: list[str] | None = None,
    *,
    ip: str = "127.0.0.1",
    prefix: list[str] | None = None,
) -> Host:
    return stack.enter_context(
        _running(Host(views, folder, numbers, ip=ip, join=join or [], prefix=prefix or []))
    )


@contextmanager
def _running(host: Host) -> Iterator[Host]:
    try:
        yield host
    finally:
        host.stop()
