"""What of a long or crowded run is drawn: the nodes that matter, the messages that say most."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sim.chronicle import Chronicle, Message
from sim.faults import AnyFault
from sim.simpler import nodes_of

MAX_NODES = 40
MAX_MESSAGES = 6000
"""Some 150 bytes each on the page."""
_NODE = re.compile(r"\bn(\d+)\b")


@dataclass(frozen=True, slots=True)
class Selection:
    """What is drawn, and how much is not."""

    nodes: list[str]
    """In the order of their rows."""
    nodes_left_out: int
    messages: list[Message]
    left_out: dict[str, int]
    """Messages that are not drawn, by kind."""


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
    left_out = Counter(each.kind for each in chronicle.messages)
    left_out.subtract(each.kind for each in kept)
    return Selection(
        sorted(nodes, key=_number),
        len(everybody) - len(nodes),
        kept,
        {kind: count for kind, count in left_out.most_common() if count},
    )


def _number(name: str) -> tuple[int, str]:
    found = _NODE.fullmatch(name)
    return (int(found[1]) if found else -1, name)
