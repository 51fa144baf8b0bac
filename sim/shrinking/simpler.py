"""Simpler variants of a fault, whatever its kind: its fields are looked at by type and unit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from sim.faults import AnyFault

_NODE = re.compile(r"n(\d+)")
_SIZES = ("_s", "seconds", "_bytes", "offset", "count", "times")
"""How the fields are called of which less is simpler; other numbers are only rounded."""
_LEAST = 0.05


def simpler(fault: AnyFault) -> Iterator[AnyFault]:
    """Variants of `fault` with one field simpler, the most daring of each field first. Taking
    one again and again comes to an end."""
    plain: dict[str, Any] = msgspec.to_builtins(fault)
    for name, value in plain.items():
        for less in _less(name, value):
            try:
                yield msgspec.convert({**plain, name: less}, AnyFault)
            except msgspec.ValidationError:
                continue  # this kind of fault does not take such a value


def nodes_of(fault: AnyFault) -> list[int]:
    """The numbers of the nodes that a fault names."""
    plain: dict[str, Any] = msgspec.to_builtins(fault)
    texts = [text for value in plain.values() for text in _texts(value)]
    return sorted({int(found[1]) for text in texts if (found := _NODE.fullmatch(text))})


def renumbered(fault: AnyFault, numbers: Mapping[int, int]) -> AnyFault:
    """The fault with other nodes."""
    plain: dict[str, Any] = msgspec.to_builtins(fault)
    changed: AnyFault = msgspec.convert(
        {name: _renumbered(value, numbers) for name, value in plain.items()},
        AnyFault,
    )
    return changed


def _less(name: str, value: Any) -> Iterator[Any]:
    match value:
        case bool():
            yield from [False] if value else []
        case int() | float():
            yield from _less_of_number(name, value)
        case list() | tuple() if len(value) > 1:
            parts = list(value)
            middle = len(parts) // 2
            yield from (parts[:middle], parts[middle:])
            if len(parts) > 2:
                yield from (parts[:at] + parts[at + 1 :] for at in range(len(parts)))


def _less_of_number(name: str, value: float) -> Iterator[float]:
    if name in ("at_s", "free_bytes", "offset") and value > 0:
        yield 0 * value
    rounded = _rounded(value)
    if name.endswith(_SIZES) and name != "at_s" and value > _LEAST:
        half = _rounded(value // 2 if isinstance(value, int) else value / 2)
        if 0 < half < value:
            yield half
    if rounded != value:
        yield rounded


def _rounded(value: float) -> float:
    """To one digit that counts."""
    return type(value)(f"{value:.1g}") if isinstance(value, float) else int(float(f"{value:.1g}"))


def _texts(value: Any) -> list[str]:
    if isinstance(value, list | tuple):
        return [text for text in value if isinstance(text, str)]
    return [value] if isinstance(value, str) else []


def _renumbered(value: Any, numbers: Mapping[int, int]) -> Any:
    if isinstance(value, list | tuple):
        return [_renumbered(each, numbers) for each in value]
    if isinstance(value, str) and (found := _NODE.fullmatch(value)):
        return f"n{numbers.get(int(found[1]), int(found[1]))}"
    return value
