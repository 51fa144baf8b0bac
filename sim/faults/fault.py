"""What all faults have in common."""

from __future__ import annotations

import msgspec


class Fault(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """Base of all faults. `at_s` is the virtual instant at which it strikes; `for_s`, where a
    fault has it, is how long it lasts. Nodes are named (`n0`, `n1`, …)."""

    at_s: float = 0.0


def kind_of(fault: Fault) -> str:
    """The fault's name in reports."""
    return str(fault.__struct_config__.tag)
