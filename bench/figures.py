"""Figures with a bound that they are held to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from bench.report import Bar


@dataclass(frozen=True)
class Figure:
    """One measured value, and the most that it should be (None: it is only told)."""

    name: str
    value: float
    unit: str
    at_most: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the bound holds."""
        return None if self.at_most is None else self.value <= self.at_most


@dataclass(frozen=True)
class Figures:
    """What a benchmark measured; `setting` says of what."""

    name: str
    setting: Mapping[str, object]
    figures: list[Figure]

    def as_json(self) -> dict[str, object]:
        """One flat object: the values by their name."""
        values = {figure.name: round(figure.value, 3) for figure in self.figures}
        missed = [figure.name for figure in self.figures if figure.reached is False]
        return {"benchmark": self.name, **self.setting, **values, "missed": missed}

    def as_table(self) -> str:
        """A Markdown table."""
        setting = ", ".join(f"{name} {value}" for name, value in self.setting.items())
        lines = [setting, "", "| figure | goal | measured |", "|---|---|---|"]
        for figure in self.figures:
            goal = "" if figure.at_most is None else f"<= {figure.at_most:g} {figure.unit}"
            lines.append(f"| {figure.name} | {goal} | {figure.value:.3g} {figure.unit} |")
        return "\n".join(lines)

    def title(self) -> str:
        """What a plot of it is called, with the unit."""
        return f"{self.name}: {self._unit()}"

    def bars(self) -> list[Bar]:
        """The figures of the unit that most of them have."""
        unit = self._unit()
        return [
            Bar(each.name, each.value, each.value, each.value, f"{each.value:.3g}")
            for each in self.figures
            if each.unit == unit
        ]

    def _unit(self) -> str:
        return Counter(figure.unit for figure in self.figures).most_common(1)[0][0]
