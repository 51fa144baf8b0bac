"""The names that others script against."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import command
from bench.figures import Figure, Figures
from bench.report import Job


def test_the_list_has_the_promised_names() -> None:
    told = CliRunner().invoke(command.main, ["list"]).output.split()
    promised = "one-to-one one-to-many many-to-one small-files stat import local-export"
    assert set(promised.split()) <= set(told)


def test_a_benchmark_ends_in_one_object_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def benchmark(job: Job) -> Figures:
        return Figures("stat", {"runs": job.runs}, [Figure("p50", 2.0, "ms")])

    monkeypatch.setitem(command.BENCHMARKS, "stat", benchmark)
    plot = tmp_path / "plot.svg"
    line = ["stat", "--runs", "2", "--json", "--plot", str(plot)]
    ended = CliRunner().invoke(command.main, line)
    assert ended.output == '{"benchmark": "stat", "runs": 2, "p50": 2.0, "missed": []}\n'
    assert plot.read_text().startswith("<svg")


def test_only_copies_of_files_can_be_cold() -> None:
    ended = CliRunner().invoke(command.main, ["stat", "--cold"])
    assert ended.exit_code == 2
    assert "--cold is for" in ended.output
