"""Into the store and out of it on one machine: `import` and a local `export` beside `cp`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.measure import Sample, interleave, make_file, ratios, run_command, summarise
from bench.nodes import Node, call, running_node
from bench.report import Job, Report

_EXPORT = "gossipcache export --local"
_EXPORT_IN_NODE = "gossipcache export --local, as timed by the node"
_EXPORT_SYNC = "gossipcache export --local --sync"
HASH_COPY = str(Path(__file__).resolve().parent / "rivals" / "hash_copy.py")


def import_file(job: Job) -> Report:
    """Takes one file into the store, by name and by content, beside copies of it."""
    file, copy = job.folder / "file", job.folder / "copy"
    make_file(file, job.size_bytes)
    with running_node(job.folder / "node") as node:

        def imported(*named: str) -> Sample:
            sample = _on_node(node, "import", *named, str(file))
            (task,) = _tasks(node)
            call(node.home, "delete", "-i", task)
            return sample

        contenders: dict[str, Callable[[], Sample]] = {
            "gossipcache import -i NAME": lambda: imported("-i", "bench"),
            "gossipcache import (sha256)": imported,
            **_copies(file, copy),
        }
        samples = interleave(
            contenders, job.runs, job.say, warm_bytes=job.size_bytes, cold=job.to_forget
        )
    labels = {
        "cp": "cp",
        "cp_sync": "cp + fsync",
        "copy_blake3": "read, BLAKE3, write, fsync",
        "copy_sha256": "read, SHA-256, write, fsync",
    }
    sha256_ratios = ratios(samples, "gossipcache import (sha256)", labels)
    return Report(
        name=job.titled("import"),
        size_bytes=job.size_bytes,
        runs=job.runs,
        summaries=[summarise(name, found, job.size_bytes) for name, found in samples.items()],
        ratios={
            **ratios(samples, "gossipcache import -i NAME", labels),
            **{f"sha256_{name}": value for name, value in sha256_ratios.items()},
        },
        at_least={"ratio_vs_copy_blake3": 0.8, "sha256_ratio_vs_copy_sha256": 0.8},
        ours={"": "import by a name", "sha256_": "import by sha256"},
        theirs=labels,
    )


def local_export(job: Job) -> Report:
    """Puts a task that stands complete in the store at a path, verified, beside `cp`."""
    file, copy, output = (job.folder / name for name in ("file", "copy", "output"))
    make_file(file, job.size_bytes)
    with running_node(job.folder / "node") as node:
        call(node.home, "import", "-i", "bench", str(file))

        def exported(*flags: str, without_command: bool = False) -> Sample:
            sample, result = _timed(
                node, "export", "-i", "bench", "-O", str(output), "--local", *flags
            )
            subprocess.run(["cmp", str(file), str(output)], check=True)
            output.unlink()
            return replace(sample, seconds=result["seconds"]) if without_command else sample

        contenders: dict[str, Callable[[], Sample]] = {
            _EXPORT: exported,
            _EXPORT_IN_NODE: lambda: exported(without_command=True),
            _EXPORT_SYNC: lambda: exported("--sync"),
            **_copies(file, copy),
        }
        samples = interleave(
            contenders, job.runs, job.say, warm_bytes=job.size_bytes, cold=job.to_forget
        )
    labels = {"cp": "cp"}
    synced_labels = {"cp_sync": "cp + fsync", "copy_blake3": "read, BLAKE3, write, fsync"}
    in_node = ratios(samples, _EXPORT_IN_NODE, labels)
    synced = ratios(samples, _EXPORT_SYNC, synced_labels)
    return Report(
        name=job.titled("local-export"),
        size_bytes=job.size_bytes,
        runs=job.runs,
        summaries=[summarise(name, found, job.size_bytes) for name, found in samples.items()],
        ratios={
            **ratios(samples, _EXPORT, labels),
            **{f"in_node_{name}": value for name, value in in_node.items()},
            **{f"sync_{name}": value for name, value in synced.items()},
        },
        at_least={"ratio_vs_cp": 0.9, "sync_ratio_vs_cp_sync": 0.9},
        ours={"": "`--local`", "in_node_": "the same as timed by the node", "sync_": "`--sync`"},
        theirs={**labels, **synced_labels},
    )


def _on_node(node: Node, *arguments: str) -> Sample:
    return _timed(node, *arguments)[0]


def _timed(node: Node, *arguments: str) -> tuple[Sample, dict[str, Any]]:
    """How long the whole command took, and what it answered."""
    cpu_before_s = node.process.cpu_s()
    node.process.reset_peak_rss()
    started = time.perf_counter()
    result = call(node.home, *arguments)
    seconds = time.perf_counter() - started
    cpu_s = node.process.cpu_s() - cpu_before_s
    return Sample(seconds, cpu_s, {"process": node.process.peak_rss_mib()}), result


def _tasks(node: Node) -> list[str]:
    listed = call(node.home, "ls")["tasks"]
    assert isinstance(listed, list)
    return [task["cid"] for task in listed]


def _copies(file: Path, copy: Path) -> dict[str, Callable[[], Sample]]:
    def run(*command: str) -> Sample:
        sample = run_command(list(command))
        copy.unlink()
        return sample

    paths = (str(file), str(copy))
    synced = ("dd", f"if={file}", f"of={copy}", "bs=4M", "conv=fsync", "status=none")
    return {
        "cp": lambda: run("cp", *paths),
        "cp + fsync": lambda: run(*synced),
        "read, BLAKE3, write, fsync": lambda: run(sys.executable, HASH_COPY, "blake3", *paths),
        "read, SHA-256, write, fsync": lambda: run(sys.executable, HASH_COPY, "sha256", *paths),
    }
