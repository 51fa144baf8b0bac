"""Running contenders side by side: processes with their CPU and memory, medians and spreads."""

from __future__ import annotations

import mmap
import os
import random
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

MIB = 2**20


@dataclass
class Usage:
    """What a process used: CPU seconds (user and system) and peak resident MiB."""

    cpu_s: float
    peak_rss_mib: float


class Process:
    """A child process whose resource usage is collected when it ends."""

    def __init__(self, command: Sequence[str], log: Path | None = None) -> None:
        """`log`: where its standard error goes; None: where ours goes."""
        with ExitStack() as stack:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stack.enter_context(log.open("w")) if log else None,
                text=True,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def read_line(self) -> str:
        """The next line of its output; raises if it ended instead."""
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._popen.args!r} ended early")
        return line.rstrip("\n")

    def write_line(self, line: str) -> None:
        """Sends one line to its standard input."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(line + "\n")
        self._popen.stdin.flush()

    def cpu_s(self) -> float:
        """CPU seconds used so far by the process (not its children)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_rss_mib(self) -> float:
        """Peak resident memory so far."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("no VmHWM in /proc")

    def reset_peak_rss(self) -> None:
        """Makes the present resident memory the new peak, so that one run is measured."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        os.kill(self.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Ends the process, in order if it can, and reaps it."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()


@dataclass
class Sample:
    """One timed run of one contender."""

    seconds: float
    cpu_s: float
    peak_rss_mib: dict[str, float] = field(default_factory=dict)


@dataclass
class Summary:
    """The runs of one contender: medians, and the spread of its rate."""

    name: str
    mib_per_s: float
    lowest: float
    highest: float
    cpu_s: float
    peak_rss_mib: dict[str, float]


def summarise(name: str, samples: list[Sample], size_bytes: int) -> Summary:
    """Medians of `samples`, each of which moved `size_bytes`."""
    rates = [size_bytes / MIB / sample.seconds for sample in samples]
    sides = samples[0].peak_rss_mib
    return Summary(
        name=name,
        mib_per_s=round(statistics.median(rates), 1),
        lowest=round(min(rates), 1),
        highest=round(max(rates), 1),
        cpu_s=round(statistics.median(sample.cpu_s for sample in samples), 2),
        peak_rss_mib={
            side: round(max(sample.peak_rss_mib[side] for sample in samples), 1) for side in sides
        },
    )


def interleave(
    contenders: Mapping[str, Callable[[], Sample]],
    runs: int,
    report: Callable[[str], None],
    *,
    warm_bytes: int = 0,
    cold: Path | None = None,
) -> dict[str, list[Sample]]:
    """Runs each contender in turn, `runs` times over, so that drift hits all alike.

    The order is another one each time, and what a run left unsynced is written out before the
    next. `warm_bytes`: how much free memory was just used when a
    run begins; in a virtual machine that returns its free memory to the host, the first use of a
    page costs several times what a copy into it does, and who ran just before would decide. With
    `cold` the page cache forgets what is in that folder before each run.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    order = random.Random(0)
    for run in range(runs):
        for name in order.sample(list(contenders), len(contenders)):
            if cold is not None:
                drop_page_cache(cold)
            os.sync()
            _warm_memory(warm_bytes)
            sample = contenders[name]()
            samples[name].append(sample)
            report(f"run {run + 1}/{runs}  {name:<28} {sample.seconds:7.3f} s")
    return samples


def _warm_memory(size_bytes: int) -> None:
    """Uses that much free memory, and frees it again."""
    if size_bytes:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        mmap.mmap(-1, size_bytes, flags).close()


def ratios(
    samples: Mapping[str, list[Sample]], ours: str, rivals: Mapping[str, str]
) -> dict[str, float]:
    """How many times faster `ours` was than each rival: the median over the paired runs."""
    return {
        f"ratio_vs_{label}": round(
            statistics.median(
                theirs.seconds / mine.seconds
                for mine, theirs in zip(samples[ours], samples[rival], strict=True)
            ),
            3,
        )
        for label, rival in rivals.items()
        if rival in samples
    }


def cpu_ratio(samples: Mapping[str, list[Sample]], ours: str, rival: str) -> float:
    """How many times the CPU of `rival` `ours` took: the median over the paired runs."""
    pairs = zip(samples[ours], samples[rival], strict=True)
    return round(
        statistics.median(mine.cpu_s / max(theirs.cpu_s, 0.01) for mine, theirs in pairs), 3
    )


def make_file(path: Path, size_bytes: int) -> None:
    """A file of random bytes, on disk."""
    with path.open("wb") as file:
        left = size_bytes
        while left:
            file.write(os.urandom(min(left, 4 * MIB)))
            left -= min(left, 4 * MIB)
        file.flush()
        os.fsync(file.fileno())


def drop_page_cache(folder: Path) -> None:
    """Makes the next reads of the files below `folder` come from the disk; needs no privilege.

    What was written is synced first. Pages that a running process maps stay.
    """
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            # A node may remove a file meanwhile; sockets cannot be opened.
            with suppress(FileNotFoundError), ExitStack() as stack:
                if path.is_symlink() or not path.is_file():
                    continue
                opened = os.open(path, os.O_RDONLY)
                stack.callback(os.close, opened)
                os.fsync(opened)
                os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)


def run_command(command: list[str]) -> Sample:
    """Runs a command to its end, and measures its time (the kernel counts our own memory as
    its peak, so that is left out). Raises `RuntimeError` if it fails."""
    return run_together([command])


def run_together(commands: Sequence[list[str]]) -> Sample:
    """Runs commands at the same time, to the end of the last; what they print on stdout is
    dropped. Raises `RuntimeError` if one fails."""
    quietly = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    started, cpu_s, failed = time.perf_counter(), 0.0, []
    running = {
        os.posix_spawnp(each[0], each, os.environ, file_actions=quietly): each for each in commands
    }
    for pid, command in running.items():
        _, status, usage = os.wait4(pid, 0)
        cpu_s += usage.ru_utime + usage.ru_stime
        if status:
            failed.append(f"{' '.join(command)}: exit {os.waitstatus_to_exitcode(status)}")
    if failed:
        raise RuntimeError("; ".join(failed))
    return Sample(time.perf_counter() - started, cpu_s)


def wait_until_listening(port: int) -> None:
    """Returns when somebody accepts connections on `port`; raises after 10 s."""
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@dataclass
class Latency:
    """How long one call of many took, in milliseconds."""

    calls: int
    p50_ms: float
    p99_ms: float
    slowest_ms: float


def percentiles(seconds: list[float]) -> Latency:
    """Of the durations of single calls."""
    ranked = sorted(1000 * value for value in seconds)

    def at(share: float) -> float:
        return round(ranked[min(len(ranked) - 1, int(share * len(ranked)))], 3)

    return Latency(len(ranked), at(0.5), at(0.99), round(ranked[-1], 3))
