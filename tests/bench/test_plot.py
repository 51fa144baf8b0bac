"""Every kind of finding as a table, as JSON and as a picture."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from bench.figures import Figure, Figures
from bench.measure import MIB, Latency, Sample, summarise
from bench.plot import as_svg
from bench.report import Findings, LatencyReport, Report

SVG = "{http://www.w3.org/2000/svg}"

RATES = Report(
    "copies",
    MIB,
    2,
    [
        summarise("gossipcache", [Sample(0.5, 0.1, {"up": 1}), Sample(0.25, 0.1, {"up": 2})], MIB),
        summarise("a rival <x>", [Sample(1.0, 0.1, {}), Sample(1.0, 0.1, {})], MIB),
    ],
    {"ratio_vs_x": 3.0, "ratio_vs_y": 0.5, "cpu_vs_x": 1.0},
    at_least={"ratio_vs_y": 0.9},
    at_most={"cpu_vs_x": 1.3},
    theirs={"x": "a rival <x>"},
)
LATENCIES = LatencyReport("stat", {"stat": Latency(9, 2.0, 4.0, 5.0)})
FIGURES = Figures("store", {"tasks": 5}, [Figure("open", 1.5, "s", 2.0), Figure("rss", 9, "MiB")])


@pytest.mark.parametrize(("found", "bars"), [(RATES, 2), (LATENCIES, 1), (FIGURES, 1)])
def test_a_picture_has_a_bar_for_each(found: Findings, bars: int) -> None:
    picture = ElementTree.fromstring(as_svg(found))
    background, *drawn = picture.findall(f"{SVG}rect")
    assert len(drawn) == bars
    right = float(background.attrib["width"])
    assert all(float(each.attrib["x"]) + float(each.attrib["width"]) < right for each in drawn)
    names = [text.text for text in picture.findall(f"{SVG}text")]
    assert found.title() in names


def test_the_longest_spread_fills_the_width() -> None:
    picture = ElementTree.fromstring(as_svg(RATES))
    ours, theirs = (float(each.attrib["x2"]) for each in picture.findall(f"{SVG}line"))
    start = float(picture.findall(f"{SVG}rect")[1].attrib["x"])
    assert ours - start == pytest.approx(420)
    assert theirs - start == pytest.approx(105)


def test_ratios_stand_at_the_top_of_the_json() -> None:
    assert RATES.as_json()["ratio_vs_x"] == 3.0
    assert "| a rival <x> | 1.0 (1.0 to 1.0) | 0.1 |  |" in RATES.as_table()


def test_a_ratio_that_misses_its_goal_is_named() -> None:
    assert RATES.as_json()["missed"] == ["ratio_vs_y"]
    assert RATES.as_table().splitlines()[-4:] == [
        "| ours to y | >= 0.9 | **0.5** |",
        "| CPU of ours to a rival <x> | <= 1.3 | 1.0 |",
        "",
        "Without a goal: ours to a rival <x>: 3.0.",
    ]


def test_a_figure_over_its_bound_is_missed() -> None:
    late = Figures("store", {}, [Figure("open", 2.5, "s", 2.0)])
    assert (FIGURES.as_json()["missed"], late.as_json()["missed"]) == ([], ["open"])
