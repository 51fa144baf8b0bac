"""What of a long or crowded run is drawn: the nodes that matter, the messages that say most."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sim.chronicle import Chronicle, Message, View
from sim.faults import AnyFault
from sim.shrinking.simpler import nodes_of

MAX_NODES = 40
MAX_MESSAGES = 6000
"""Some 150 bytes each on the page."""
MAX_VIEWS = 3000
_NODE = re.compile(r"\bn(\d+)\b")


@dataclass(frozen=True, slots=True)
class Selection:
    """What is drawn, and how much is not."""

    nodes: list[str]
    """In the order of their rows."""
    nodes_left_out: int
    messages: list[Message]
    views: list[View]
    left_out: dict[str, int]
    """Messages that are not drawn, by kind."""
    views_left_out: int


def select(
    chronicle: Chronicle, faults: Iterable[AnyFault], violations: list[str], focus_s: float
) -> Selection:
    """Of many nodes those that faults, violations and verbs name, then the others by number. Of
    many messages those that say something new, then the routine, the nearest to `focus_s`
    first."""
    everybody = sorted({life.node for life in chronicle.lives}, key=_number)
    named = {f"n{number}" for fault in faults for number in nodes_of(fault)}
    named |= {f"n{number}" for each in violations for number in _NODE.findall(each)}
    named |= {verb.node for verb in chronicle.verbs}
    nodes = sorted(everybody, key=lambda name: (name not in named, _number(name)))[:MAX_NODES]
    shown = set(nodes)
    between = [each for each in chronicle.messages if {each.source, each.target} <= shown]
    ranked = sorted(between, key=lambda each: (each.is_routine, abs(each.arrived_s - focus_s)))
    kept = sorted(ranked[:MAX_MESSAGES])
    views = sorted(
        (each for each in chronicle.views if each.viewer in shown),
        key=lambda each: (each.member not in shown, abs(each.at_s - focus_s)),
    )[:MAX_VIEWS]
    left_out = Counter(each.kind for each in chronicle.messages)
    left_out.subtract(each.kind for each in kept)
    return Selection(
        sorted(nodes, key=_number),
        len(everybody) - len(nodes),
        kept,
        sorted(views),
        {kind: count for kind, count in left_out.most_common() if count},
        len(chronicle.views) - len(views),
    )


def _number(name: str) -> tuple[int, str]:
    found = _NODE.fullmatch(name)
    return (int(found[1]) if found else -1, name)
