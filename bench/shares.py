"""Where the CPU of an export goes, as `perf` samples it: hash, copies, the rest of the kernel,
Python."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure import make_file
from bench.nodes import Node, call, two_nodes
from bench.report import Bar, Job

SAMPLES_PER_S = 997

Frame = tuple[str, str]
"""A symbol and the file that it is in."""

_KERNEL = "[kernel.kallsyms]"
_COPIES = re.compile(r"copy_(to|from|folio|mc|page|user)|_copy|rep_movs")
_PARTS_OF_KERNEL = {
    "kernel: memory": re.compile(r"page_fault|clear_page|munmap|madvise"),
    "kernel: disk": re.compile(
        r"ext4|xfs|btrfs|iomap|blk_|bio|virtblk|fdatasync|fsync|ksys_pwrite"
    ),
    "kernel: network": re.compile(
        r"tcp_|inet_|sock|skb|sendfile|splice|net_rx|__sys_recv|__sys_send"
    ),
    "kernel: threads and waits": re.compile(r"futex|schedule|epoll|wake_up|eventfd"),
}
_HASHES = re.compile(r"blake3|_hashlib|libcrypto|_sha")
PARTS = (
    "hash",
    "kernel: copies",
    *_PARTS_OF_KERNEL,
    "kernel: the rest",
    "Python and libraries",
)


def part_of(stack: Sequence[Frame]) -> str:
    """What a sample counts as, by its innermost frame and, in the kernel, by who called that."""
    symbol, place = stack[0]
    if place == _KERNEL:
        if _COPIES.search(symbol):
            return "kernel: copies"
        called = [each for each, where in stack if where == _KERNEL]
        for name, pattern in _PARTS_OF_KERNEL.items():
            if any(pattern.search(each) for each in called):
                return name
        return "kernel: the rest"
    return "hash" if _HASHES.search(place) else "Python and libraries"


def stacks(lines: Iterable[str]) -> Iterator[tuple[int, list[Frame]]]:
    """The samples in what `perf script -F pid,ip,sym,dso` prints: process and frames."""
    pid, frames = 0, list[Frame]()
    for line in lines:
        if not line.strip():
            if frames:
                yield pid, frames
            frames = []
        elif line[0].isspace() and line.rstrip().endswith(")"):
            symbol, _, place = line.strip().rpartition(" (")
            frames.append((symbol.partition(" ")[2], place[:-1]))
        else:
            pid = int(line.split("/")[0])
    if frames:
        yield pid, frames


@dataclass(frozen=True)
class Shares:
    """CPU seconds a GiB by side and part."""

    runs: int
    sides: Mapping[str, Mapping[str, float]]

    def as_json(self) -> dict[str, object]:
        """One object: the parts of each side."""
        sides = {
            side: {part: round(value, 3) for part, value in parts.items()}
            for side, parts in self.sides.items()
        }
        return {"benchmark": "profile", "runs": self.runs, **sides}

    def as_table(self) -> str:
        """A Markdown table."""
        everything = sum(sum(parts.values()) for parts in self.sides.values())
        lines = [
            f"| CPU s a GiB | {' | '.join(self.sides)} | share of both |",
            f"|---|{'---|' * len(self.sides)}---|",
        ]
        for part in (*PARTS, "all"):
            values = [
                sum(parts.values()) if part == "all" else parts.get(part, 0.0)
                for parts in self.sides.values()
            ]
            told = " | ".join(f"{value:.2f}" for value in values)
            lines.append(f"| {part} | {told} | {sum(values) / everything:.0%} |")
        return "\n".join(lines)

    def title(self) -> str:
        """What a plot of it is called, with the unit."""
        return f"where the CPU of export --link goes, {self.runs} runs: CPU s a GiB"

    def bars(self) -> list[Bar]:
        """The parts of each side."""
        return [
            Bar(f"{side}: {part}", value, value, value, f"{value:.2f}")
            for side, parts in self.sides.items()
            for part, value in ((part, parts.get(part, 0.0)) for part in PARTS)
        ]


def profile(job: Job) -> Shares:
    """Samples both nodes while one exports with `--link` what the other holds."""
    if not shutil.which("perf"):
        raise RuntimeError("perf is not installed (Debian: linux-perf)")
    file, data = job.folder / "file", job.folder / "perf.data"
    make_file(file, job.size_bytes)
    with two_nodes(job.folder / "nodes") as (giver, taker):
        call(giver.home, "import", "-i", "bench", str(file))
        _export(taker, job.folder / "output")
        sides = {"giver": giver.process, "taker": taker.process}
        before_s = {side: process.cpu_s() for side, process in sides.items()}
        pids = ",".join(str(process.pid) for process in sides.values())
        command = ["perf", "record", "-q", "-F", str(SAMPLES_PER_S), "-e", "cpu-clock", "-g"]
        recording = subprocess.Popen([*command, "-o", str(data), "-p", pids])
        time.sleep(0.5)  # it says nothing when it has begun
        for run in range(job.runs):
            took_s = _export(taker, job.folder / "output")
            job.say(f"run {run + 1}/{job.runs}  {took_s:.3f} s")
        recording.send_signal(signal.SIGINT)
        recording.wait()
        moved_gib = job.runs * job.size_bytes / 2**30
        cpu_s = {
            side: (process.cpu_s() - before_s[side]) / moved_gib for side, process in sides.items()
        }
        counted = _counted(data)
        return Shares(
            job.runs,
            {side: _scaled(counted[process.pid], cpu_s[side]) for side, process in sides.items()},
        )


def _export(node: Node, output: Path) -> float:
    started = time.perf_counter()
    call(node.home, "export", "-i", "bench", "-O", str(output), "--link")
    took_s = time.perf_counter() - started
    output.unlink()
    call(node.home, "delete", "-i", "bench", "--local")
    return took_s


def _counted(data: Path) -> dict[int, Counter[str]]:
    script = ["perf", "script", "-i", str(data), "-F", "pid,ip,sym,dso"]
    told = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    counted: dict[int, Counter[str]] = {}
    for pid, frames in stacks(told.splitlines()):
        counted.setdefault(pid, Counter())[part_of(frames)] += 1
    return counted


def _scaled(counts: Counter[str], cpu_s: float) -> dict[str, float]:
    """The samples as seconds of `cpu_s`, which the system counted."""
    return {part: cpu_s * count / counts.total() for part, count in counts.items()}
