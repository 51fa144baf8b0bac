"""A chronicle says what happened in a run, and changes nothing in it."""

from __future__ import annotations

import pytest

from sim.chronicle import Chronicle, Life, View
from sim.registry import Report, find, run


@pytest.fixture(scope="module")
def told() -> tuple[Report, Chronicle]:
    chronicle = Chronicle()
    return run(find("owner-death"), seed=3, chronicle=chronicle), chronicle


def test_a_run_that_is_told_of_is_the_run(told: tuple[Report, Chronicle]) -> None:
    assert told[0].digest == run(find("owner-death"), seed=3).digest


def test_each_message_is_read(told: tuple[Report, Chronicle]) -> None:
    kinds = {message.kind for message in told[1].messages}
    assert {"ping", "gossip", "hello", "read_record", "piece", "announce"} <= kinds
    assert not [kind for kind in kinds if "unreadable" in kind]
    for message in told[1].messages:
        assert message.sent_s < message.arrived_s
        assert message.source != message.target
        assert {message.source, message.target} <= {"n0", "n1", "n2", "n3", "n4"}


def test_gossip_is_told_in_words(told: tuple[Report, Chronicle]) -> None:
    killed = told[0].schedule[0]["node"]
    said = [message.detail for message in told[1].messages if not message.is_routine]
    assert any(f"{killed} suspect, says" in detail for detail in said)


def test_lives_views_and_verbs_are_told(told: tuple[Report, Chronicle]) -> None:
    report, chronicle = told
    kill = report.schedule[0]
    assert Life(kill["at_s"], kill["node"], False) in chronicle.lives
    assert {verb.verb for verb in chronicle.verbs} == {"import", "stat", "export"}
    assert all(verb.failure == "" for verb in chronicle.verbs)
    seen = {view.state for view in chronicle.views if view.member == kill["node"]}
    assert {"alive", "suspect"} <= seen


def test_a_view_is_kept_where_it_changes() -> None:
    chronicle = Chronicle()
    for at_s, state in enumerate(["alive", "alive", "dead", "dead", "alive"]):
        chronicle.viewed(at_s, "n0", "n1", state)
    assert chronicle.views == [
        View(0, "n0", "n1", "alive"),
        View(2, "n0", "n1", "dead"),
        View(4, "n0", "n1", "alive"),
    ]
    chronicle.lived(5.0, "n0", is_up=True)  # a new process has seen nobody
    chronicle.viewed(6, "n0", "n1", "alive")
    assert len(chronicle.views) == 4


def test_bare_nodes_are_told_of_too() -> None:
    chronicle = Chronicle()
    report = run(find("thousand-churn"), seed=3, nodes=30, chronicle=chronicle)
    assert report.digest == run(find("thousand-churn"), seed=3, nodes=30).digest
    kill = next(fault for fault in report.schedule if fault["kind"] == "kill")
    assert Life(kill["at_s"], kill["node"], False) in chronicle.lives
    seen = {view.state for view in chronicle.views if view.member == kill["node"]}
    assert {"alive", "suspect", "dead"} <= seen
    assert any(f"{kill['node']} suspect, says" in each.detail for each in chronicle.messages)
