"""Sizes, rates and durations as people write them, and back to text."""

from __future__ import annotations

import re

from gossipcache.errors import UsageError

_SIZE_FACTORS = {
    "": 1,
    "b": 1,
    **{prefix: 1000**power for power, prefix in enumerate(("kb", "mb", "gb", "tb"), start=1)},
    **{prefix: 1024**power for power, prefix in enumerate(("kib", "mib", "gib", "tib"), start=1)},
    **{prefix: 1024**power for power, prefix in enumerate(("k", "m", "g", "t"), start=1)},
}
_DURATION_FACTORS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")
MIN_RATE = 16 * 1024
"""Who sends more slowly is taken for stalled by the others."""
_MAX_DURATION_S = 100 * 365 * 86400.0


def parse_size(text: str) -> int:
    """Bytes in `text`: `4096`, `64KiB` and `64K` (1024), `1.5GB` (1000). Raises `UsageError`."""
    value = _quantity(text, _SIZE_FACTORS)
    if value is None or value >= 2**63:
        raise UsageError(f"{text!r} is not a size", "write a number and a unit, such as 64KiB")
    return int(value)


def parse_rate(text: str) -> int:
    """Bytes a second in `text`, a size with or without `/s`: `100MiB/s`; 0 for `none`, that is
    for no limit. Raises `UsageError`."""
    if text.strip() == "none":
        return 0
    try:
        rate = parse_size(text.strip().removesuffix("/s"))
    except UsageError as error:
        hint = "write a number and a unit, such as 100MiB/s, or none"
        raise UsageError(f"{text!r} is not a rate", hint) from error
    return checked_rate(rate)


def checked_rate(rate: int) -> int:
    """`rate`, which is 0 or at least `MIN_RATE`. Raises `UsageError`."""
    if rate and not MIN_RATE <= rate < 2**63:
        raise UsageError(
            f"{rate} bytes a second is out of range",
            f"give at least {MIN_RATE // 1024}KiB/s, or none for no limit",
        )
    return rate


def parse_duration(text: str) -> float:
    """Seconds in `text`: `30s`, `10m`, `2h`, `7d`, `500ms`, or a bare number. At most 100 years.

    Raises `UsageError`.
    """
    value = _quantity(text, _DURATION_FACTORS)
    if value is None or value > _MAX_DURATION_S:
        raise UsageError(f"{text!r} is not a duration", "write a number and a unit, such as 30s")
    return value


def format_size(count: float) -> str:
    """`count` bytes as a person reads them: `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _quantity(text: str, factors: dict[str, int] | dict[str, float]) -> float | None:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        return None
    number, unit = match.groups()
    factor = factors.get(unit.lower())
    if factor is None:
        return None
    return int(number) * factor if number.isdigit() else float(number) * factor
