"""Figures with a bound that they are held to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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
