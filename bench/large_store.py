"""A store of 100,000 tasks: how long it takes to open, its memory, and what a look-up costs."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path, PurePath
from statistics import median

from bench.figures import Figure, Figures
from bench.report import Job
from gossipcache.cluster import LOOPBACK
from gossipcache.config import StoreConfig
from gossipcache.disk import OsDisk
from gossipcache.identity import Identity
from gossipcache.ids import task_id_of
from gossipcache.manifest import Manifest, sign_manifest
from gossipcache.transfer.digest_tree import DigestTree, piece_digest
from gossipcache.transfer.store.store import Store

TASKS = 100_000
FEW_TASKS = 1_000
BATCH = 1_000
PIECE_BYTES = 4 * 2**20
LOOKUPS = 200_000
OPENS_IN_S = 2.0
RSS_MIB = 200.0


def large_store(job: Job) -> Figures:
    """Opens it in a process of its own each time, without a node around it; the small store
    beside it tells whether a look-up depends on the number of tasks."""
    found: dict[str, list[float]] = {}
    for count in (FEW_TASKS, TASKS):
        root = job.folder / f"store-{count}"
        started = time.perf_counter()
        _fill(root, count)
        job.say(f"{count} tasks made in {time.perf_counter() - started:.1f} s")
        for _ in range(job.runs):
            command = [sys.executable, "-m", "bench.large_store", str(root)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            for name, value in json.loads(done.stdout).items():
                found.setdefault(f"{count} tasks: {name}", []).append(value)
            job.say(f"{count} tasks: {done.stdout.strip()}")
    goals = {
        f"{TASKS} tasks: open (CPU)": OPENS_IN_S,
        f"{TASKS} tasks: open": OPENS_IN_S,
        f"{TASKS} tasks: peak memory": RSS_MIB,
    }
    units = {"open": "s", "open (CPU)": "s", "peak memory": "MiB", "look-up": "µs"}
    figures = [
        Figure(name, median(values), units[name.partition(": ")[2]], goals.get(name))
        for name, values in found.items()
    ]
    return Figures("large-store", {"tasks": TASKS, "runs": job.runs}, figures)


def _open(root: Path) -> Store:
    return Store.open(
        OsDisk(), PurePath(root), time.time, StoreConfig(quota_bytes=2**50), mark="bench"
    )


def _fill(root: Path, count: int) -> None:
    store, identity = _open(root), Identity(bytes(32))
    for at in range(0, count, BATCH):
        packing = store.pack()
        for number in range(at, min(count, at + BATCH)):
            content, cid = os.urandom(64), f"task {number}"
            tree = DigestTree(piece_digest(content))
            manifest = Manifest(
                cluster_id=LOOPBACK.cluster_id,
                task_id=task_id_of(cid, ""),
                cid=cid,
                tag="",
                generation=1,
                kind="file",
                size=len(content),
                listing_size=0,
                piece_size=PIECE_BYTES,
                root=tree.root,
                digest=f"blake3:{tree.digests.hex()}",
                created_at=int(time.time()),
                expires_at=None,
                copies=1,
            )
            packing.add(sign_manifest(manifest, identity), tree, content)
        store.mark_all_published(packing.adopt())
        packing.discard()
    store.close()


def _measure(root: Path) -> dict[str, float]:
    started, cpu_started_s = time.perf_counter(), time.process_time()
    store = _open(root)
    opened_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started_s
    ids = [task.task_id for task in store.tasks()][:FEW_TASKS]
    started = time.process_time()
    for number in range(LOOKUPS):
        store.require(ids[number % len(ids)])
    lookup_s = (time.process_time() - started) / LOOKUPS
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    store.close()
    return {
        "open": round(opened_s, 3),
        "open (CPU)": round(cpu_s, 3),
        "peak memory": round(peak_mib, 1),
        "look-up": round(lookup_s * 1e6, 3),
    }


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]))))
