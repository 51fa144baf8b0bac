"""The page of a run shows what happened in it, by itself."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner

from sim.__main__ import main
from sim.chronicle import Chronicle, Life, Message, Verb
from sim.faults import AnyFault, Kill, Partition
from sim.page import selection
from sim.page.document import page
from sim.page.selection import select
from sim.recording import Recording, write
from sim.registry import Report


def chronicle() -> Chronicle:
    found = Chronicle()
    for number in range(3):
        found.lived(0.0, f"n{number}", is_up=True)
    found.carried(Message(1.0, 1.25, "n0", "n1", "gossip", 120, "n2 suspect, says <n0>"))
    found.carried(Message(2.0, 2.5, "n1", "n2", "ping", 80, "", True))
    found.viewed(1.5, "n1", "n2", "suspect")
    found.worked(Verb("n1", "export", "a&b", 1.0, 3.0, "NotFound: nothing"))
    found.lived(1.2, "n2", is_up=False)
    return found


def report() -> Report:
    faults = [
        {"kind": "kill", "at_s": 1.2, "node": "n2"},
        None,
        {"kind": "partition", "at_s": 2.0, "island": ["n0"], "for_s": 9.0},
    ]
    return Report(
        "owner-death",
        7,
        3,
        digest="d1ge57",
        virtual_s=4.0,
        violations=["3.000 s: it broke <badly>"],
        faults={"kill": {"armed": 1, "bit": 1}},
        metrics={"stat s": 0.5},
        schedule=faults,
    )


@pytest.fixture(scope="module")
def html() -> str:
    return page(report(), chronicle(), Path("run.json"))


@pytest.fixture(scope="module")
def drawing(html: str) -> dict[str, list[ET.Element]]:
    """The shapes by the first word of their class."""
    svg = ET.fromstring(html[html.index("<svg") : html.index("</svg>") + len("</svg>")])
    found: dict[str, list[ET.Element]] = {}
    for shape in svg:
        found.setdefault(shape.attrib["class"].split()[0], []).append(shape)
    return found


def title(shape: ET.Element) -> str | None:
    return shape.findtext("title")


def test_a_message_goes_from_its_sender_when_sent_to_its_receiver_when_it_arrived(
    drawing: dict[str, list[ET.Element]],
) -> None:
    gossip, ping = drawing["m"]
    assert title(gossip) == "1.0000 s n0 → n1 gossip, 120 B: n2 suspect, says <n0>"
    start_x, start_y, end_x, end_y = map(float, re.findall(r"[\d.]+", gossip.attrib["d"]))
    assert (start_x, end_x) == (1000, 1250)
    assert start_y < end_y
    assert gossip.attrib["class"] == "m g"
    assert ping.attrib["class"] == "m g q"


def test_lives_faults_views_verbs_and_the_violation_are_drawn(
    drawing: dict[str, list[ET.Element]],
) -> None:
    assert [re.findall(r"H(\d+)", life.attrib["d"]) for life in drawing["life"]] == [
        ["4000"], ["4000"], ["1200"],
    ]  # fmt: skip
    assert [title(mark) for mark in drawing["mark"]] == ["1.200 s: kill n2"]
    (band,) = drawing["band"]
    assert (band.attrib["x"], band.attrib["width"]) == ("2000", "2000")  # to the end of the run
    assert title(band) == "2.000 s: partition n0, for_s=9.0"
    assert [title(view) for view in drawing["view"]] == ["1.500 s: n1 sees n2 suspect"]
    assert [title(verb) for verb in drawing["verb"]] == [
        "1.000–3.000 s export a&b on n1: NotFound: nothing"
    ]
    assert [title(wrong) for wrong in drawing["wrong"]] == ["3.000 s: it broke <badly>"]


def test_the_page_says_how_to_play_the_run_again(html: str) -> None:
    for text in (
        "python -m sim replay run.json",
        "python -m sim shrink run.json",
        "it broke &lt;badly&gt;",
        "d1ge57",
        "<td>stat s</td>",
    ):
        assert text in html


def test_the_page_needs_nothing_else(html: str) -> None:
    assert not re.findall(r"https?://|@import|url\(|<link|src=", html)


def test_of_many_messages_those_with_news_and_near_the_violation_are_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(selection, "MAX_MESSAGES", 3)
    crowded = Chronicle(lives=[Life(0.0, name, True) for name in ("n0", "n1")])
    for second in range(10):
        for kind, is_routine in (("gossip", False), ("ping", True)):
            sent = Message(second, second + 0.1, "n0", "n1", kind, 9, "", is_routine)
            crowded.carried(sent)
    drawn = select(crowded, [], [], focus_s=6.0)
    assert [(each.sent_s, each.kind) for each in drawn.messages] == [
        (5, "gossip"), (6, "gossip"), (7, "gossip"),
    ]  # fmt: skip
    assert drawn.left_out == {"ping": 10, "gossip": 7}


def test_of_many_nodes_those_that_are_named_are_drawn() -> None:
    crowd = Chronicle(lives=[Life(0.0, f"n{number}", True) for number in range(100)])
    faults: list[AnyFault] = [Kill(node="n70"), Partition(island=("n80",), for_s=1.0)]
    drawn = select(crowd, faults, ["1.0 s: n90 is wrong"], focus_s=1.0)
    assert len(drawn.nodes) == selection.MAX_NODES
    assert drawn.nodes[-3:] == ["n70", "n80", "n90"]
    assert drawn.nodes_left_out == 60


def test_the_command_draws_a_recorded_run(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    write(Recording(scenario="owner-death", seed=3, nodes=3, faults=[Kill(node="n0")]), file)
    result = CliRunner().invoke(main, ["report", str(file)])
    assert result.exit_code == 0
    html = (tmp_path / "run.html").read_text()
    assert "kill n0" in html
    assert "n1 sees n0 suspect" in html
    assert len(html) < 2_000_000
    assert CliRunner().invoke(main, ["report", str(tmp_path / "none.json")]).exit_code == 2
