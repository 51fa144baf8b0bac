"""What a benchmark is given, and what it found: as a table and as JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import Protocol

from bench.measure import Latency, Summary

_RATIO = re.compile("(.*)(ratio|cpu)_vs_(.*)")


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
    cold: bool = False
    """Whether the givers' files come from the disk, not from the page cache."""

    @property
    def to_forget(self) -> Path | None:
        """The folder whose files leave the page cache before each run; None: no need."""
        return self.folder if self.cold else None

    def titled(self, name: str) -> str:
        """The benchmark's name, with what was asked of it."""
        return f"{name}, cold" if self.cold else name


@dataclass(frozen=True)
class Bar:
    """One bar of a plot: a value, and a line between the two ends of its spread."""

    name: str
    value: float
    lowest: float
    highest: float
    told: str


class Findings(Protocol):
    """Any report."""

    def as_json(self) -> dict[str, object]:
        """One flat object: the ratios stand at the top."""

    def as_table(self) -> str:
        """A Markdown table."""

    def title(self) -> str:
        """What a plot of it is called, with the unit."""

    def bars(self) -> list[Bar]:
        """What a plot of it shows."""


@dataclass
class Report:
    """Medians and spreads of every contender, and the ratios of ours to theirs."""

    name: str
    size_bytes: int
    runs: int
    summaries: list[Summary]
    ratios: dict[str, float]
    at_least: Mapping[str, float] = field(default_factory=dict)
    """The goals of those ratios that have one."""
    at_most: Mapping[str, float] = field(default_factory=dict)
    ours: Mapping[str, str] = field(default_factory=dict)
    """What a table calls ours, by the first part of a ratio's name."""
    theirs: Mapping[str, str] = field(default_factory=dict)
    """What it calls a rival, by the last part."""

    def as_json(self) -> dict[str, object]:
        """One flat object: the ratios stand at the top."""
        return {
            "benchmark": self.name,
            "size_bytes": self.size_bytes,
            "runs": self.runs,
            "contenders": [asdict(summary) for summary in self.summaries],
            **self.ratios,
            "missed": [
                name for name, value in self.ratios.items() if not self._is_reached(name, value)
            ],
        }

    def as_table(self) -> str:
        """Markdown tables; a goal that is missed is bold."""
        sides = self.summaries[0].peak_rss_mib
        lines = [
            f"| contender | MiB/s (lowest to highest) | CPU s | peak MiB, {' / '.join(sides)} |",
            "|---|---|---|---|",
        ]
        for summary in self.summaries:
            peaks = " / ".join(str(summary.peak_rss_mib.get(side, "")) for side in sides)
            rates = f"{summary.mib_per_s} ({summary.lowest} to {summary.highest})"
            lines.append(f"| {summary.name} | {rates} | {summary.cpu_s} | {peaks} |")
        with_goals = [name for name in self.ratios if self._goal(name)]
        if with_goals:
            lines += ["", "| ratio, median of pairs | goal | measured |", "|---|---|---|"]
        for name in with_goals:
            value = self.ratios[name]
            measured = value if self._is_reached(name, value) else f"**{value}**"
            lines.append(f"| {self._words(name)} | {self._goal(name)} | {measured} |")
        others = [name for name in self.ratios if name not in with_goals]
        if others:
            told = "; ".join(f"{self._words(name)}: {self.ratios[name]}" for name in others)
            lines += ["", *wrap(f"Without a goal: {told}.", 100)]
        return "\n".join(lines)

    def _words(self, name: str) -> str:
        found = _RATIO.fullmatch(name)
        if found is None:
            return name.replace("_", " ")
        ours, what, theirs = found.groups()
        cpu = "CPU of " if what == "cpu" else ""
        return f"{cpu}{self.ours.get(ours, 'ours')} to {self.theirs.get(theirs, theirs)}"

    def _goal(self, name: str) -> str:
        if name in self.at_least:
            return f">= {self.at_least[name]:g}"
        return f"<= {self.at_most[name]:g}" if name in self.at_most else ""

    def _is_reached(self, name: str, value: float) -> bool:
        return self.at_least.get(name, value) <= value <= self.at_most.get(name, value)

    def title(self) -> str:
        """What a plot of it is called, with the unit."""
        return f"{self.name}, {self.size_bytes >> 20} MiB, {self.runs} interleaved runs: MiB/s"

    def bars(self) -> list[Bar]:
        """The rates, from the slowest run to the fastest."""
        return [
            Bar(
                summary.name,
                summary.mib_per_s,
                summary.lowest,
                summary.highest,
                f"{summary.mib_per_s:g} ({summary.cpu_s:g} CPU s)",
            )
            for summary in self.summaries
        ]


@dataclass
class LatencyReport:
    """How long single calls took."""

    name: str
    latencies: dict[str, Latency]
    goals: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """One object, by the name of the call."""
        calls = {name: asdict(latency) for name, latency in self.latencies.items()}
        return {"benchmark": self.name, "latencies": calls}

    def as_table(self) -> str:
        """A Markdown table."""
        lines = [
            "| call | times | goal | p50 ms | p99 ms | slowest ms |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {name} | {found.calls} | {self.goals.get(name, '')} "
            f"| {found.p50_ms} | {found.p99_ms} | {found.slowest_ms} |"
            for name, found in self.latencies.items()
        ]
        return "\n".join(lines)

    def title(self) -> str:
        """What a plot of it is called, with the unit."""
        return f"{self.name}, from the median to the 99th percentile: ms"

    def bars(self) -> list[Bar]:
        """The medians, with a line to the 99th percentile."""
        return [
            Bar(name, found.p50_ms, found.p50_ms, found.p99_ms, f"{found.p50_ms:.3g}")
            for name, found in self.latencies.items()
        ]
