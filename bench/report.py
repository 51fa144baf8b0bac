"""What a benchmark found, as a table and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from bench.measure import Summary


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
        lines = [
            "| contender | MiB/s (lowest to highest) | CPU s, both | peak RSS MiB, up / down |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {summary.name} | {summary.mib_per_s} ({summary.lowest} to {summary.highest}) "
            f"| {summary.cpu_s} | {' / '.join(str(v) for v in summary.peak_rss_mib.values())} |"
            for summary in self.summaries
        ]
        lines += ["", *(f"- `{name}`: {value}" for name, value in self.ratios.items())]
        return "\n".join(lines)
