"""Where copies belong: zones first, then a hash."""

from __future__ import annotations

from gossipcache.ids import NodeId, TaskId
from gossipcache.node.placement import is_spare, next_places

TASK = TaskId(b"t" * 16)
NODES = [NodeId(bytes((number,)) * 16) for number in range(9)]


def test_without_zones_tasks_spread_over_all_nodes() -> None:
    able = dict.fromkeys(NODES, "")
    places = next_places(TASK, able, [""])
    assert sorted(places) == NODES
    first = {next_places(TaskId(bytes((number,)) * 16), able, [""])[0] for number in range(60)}
    assert first == set(NODES)


def test_zones_with_the_fewest_copies_come_first() -> None:
    able = {node: "abc"[number % 3] for number, node in enumerate(NODES)}
    zones = [able[node] for node in next_places(TASK, able, ["a", "a", "b"])]
    assert zones[0] == "c"
    assert sorted(zones[:3]) == ["b", "c", "c"], "now each has two"
    assert sorted(zones) == sorted(able.values())


def test_a_copy_is_spare_where_enough_are_left() -> None:
    assert is_spare("", ["", "", ""], copies=3)
    assert not is_spare("", ["", ""], copies=3)


def test_the_only_copy_in_a_zone_is_not_spare_while_others_crowd() -> None:
    assert not is_spare("a", ["b", "b", "b"], copies=3)
    assert is_spare("b", ["b", "b", "a"], copies=3)
    assert is_spare("a", ["b", "c", "d"], copies=3), "as many zones as copies without it"
