"""The counters of one node; read by `node status` and `/metrics`."""

from __future__ import annotations


class Metrics:
    """Named integers. Names are `lower_snake_case` and end in their unit where they have one."""

    def __init__(self) -> None:
        self._values: dict[str, int] = {}

    def count(self, name: str, amount: int = 1) -> None:
        """Adds `amount` to the counter `name`."""
        self._values[name] = self._values.get(name, 0) + amount

    def value(self, name: str) -> int:
        """The present value of `name`, 0 if it never was touched."""
        return self._values.get(name, 0)

    def snapshot(self) -> dict[str, int]:
        """All values, sorted by name."""
        return dict(sorted(self._values.items()))
