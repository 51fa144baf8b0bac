"""Contenders in turn, and what is made of their runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.measure import (
    MIB,
    Sample,
    drop_page_cache,
    interleave,
    make_file,
    percentiles,
    ratios,
    run_together,
    summarise,
)


def test_each_contender_runs_as_often_and_in_changing_order() -> None:
    order: list[str] = []

    def contender(name: str) -> Sample:
        order.append(name)
        return Sample(1.0, 0.5)

    names = ["a", "b", "c"]
    contenders = {name: lambda name=name: contender(name) for name in names}
    samples = interleave(contenders, 5, lambda _: None)
    assert {name: len(found) for name, found in samples.items()} == dict.fromkeys(names, 5)
    rounds = [order[at : at + 3] for at in range(0, 15, 3)]
    assert all(sorted(each) == names for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1


def test_a_ratio_is_the_median_over_the_pairs() -> None:
    samples = {
        "ours": [Sample(seconds, 0) for seconds in (1.0, 2.0, 4.0)],
        "theirs": [Sample(seconds, 0) for seconds in (2.0, 2.0, 12.0)],
    }
    found = ratios(samples, "ours", {"them": "theirs", "absent": "left out"})
    assert found == {"ratio_vs_them": 2.0}


def test_a_summary_has_medians_and_the_highest_memory() -> None:
    samples = [Sample(1.0, 3.0, {"up": 10.0}), Sample(2.0, 1.0, {"up": 30.0})]
    samples.append(Sample(4.0, 2.0, {"up": 20.0}))
    summary = summarise("it", samples, 8 * MIB)
    assert (summary.lowest, summary.mib_per_s, summary.highest) == (2.0, 4.0, 8.0)
    assert (summary.cpu_s, summary.peak_rss_mib) == (2.0, {"up": 30.0})


def test_percentiles_are_of_single_calls() -> None:
    found = percentiles([number / 1000 for number in range(1, 101)])
    assert (found.calls, found.p50_ms, found.p99_ms, found.slowest_ms) == (100, 51, 100, 100)


def test_commands_run_together_fail_together() -> None:
    assert run_together([["true"], ["true"]]).seconds > 0
    with pytest.raises(RuntimeError, match="false: exit 1"):
        run_together([["false"], ["true"]])


def test_files_stay_what_they_are_when_the_page_cache_forgets_them(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    make_file(tmp_path / "below" / "file", 3 * MIB)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    before = (tmp_path / "below" / "file").read_bytes()
    drop_page_cache(tmp_path)
    assert (tmp_path / "below" / "file").read_bytes() == before
