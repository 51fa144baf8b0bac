"""What a benchmark is given, and what it found: as a table and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from bench.measure import Latency, Summary


@dataclass(frozen=True)
class Job:
    """How to run a benchmark."""

    folder: Path
    """An empty folder to work in."""
    size_bytes: int
    runs: int
    rivals_python: Callable[[], str]
    """The interpreter of the rivals' environment, which is made on first use."""
    say: Callable[[str], None]


class Findings(Protocol):
    """Any report."""

    def as_json(self) -> dict[str, object]:
        """One flat object: the ratios stand at the top."""

    def as_table(self) -> str:
        """A Markdown table."""


@dataclass
class Report:
    """Medians and spreads of every contender, and the ratios of ours to theirs."""

    name: str
    size_bytes: int
    runs: int
    summaries: list[Summary]
    ratios: dict[str, float]

    def as_json(self) -> dict[str, object]:
        """One flat object: the ratios stand at the top."""
        return {
            "benchmark": self.name,
            "size_bytes": self.size_bytes,
            "runs": self.runs,
            "contenders": [asdict(summary) for summary in self.summaries],
            **self.ratios,
        }

    def as_table(self) -> str:
        """A Markdown table."""
        sides = self.summaries[0].peak_rss_mib
        lines = [
            f"| contender | MiB/s (lowest to highest) | CPU s | peak MiB, {' / '.join(sides)} |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {summary.name} | {summary.mib_per_s} ({summary.lowest} to {summary.highest}) "
            f"| {summary.cpu_s} | {' / '.join(str(v) for v in summary.peak_rss_mib.values())} |"
            for summary in self.summaries
        ]
        lines += ["", *(f"- `{name}`: {value}" for name, value in self.ratios.items())]
        return "\n".join(lines)


@dataclass
class LatencyReport:
    """How long single calls took."""

    name: str
    latencies: dict[str, Latency]

    def as_json(self) -> dict[str, object]:
        """One object, by the name of the call."""
        calls = {name: asdict(latency) for name, latency in self.latencies.items()}
        return {"benchmark": self.name, "latencies": calls}

    def as_table(self) -> str:
        """A Markdown table."""
        lines = ["| call | times | p50 ms | p99 ms | slowest ms |", "|---|---|---|---|---|"]
        lines += [
            f"| {name} | {found.calls} | {found.p50_ms} | {found.p99_ms} | {found.slowest_ms} |"
            for name, found in self.latencies.items()
        ]
        return "\n".join(lines)
