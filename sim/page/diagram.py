"""The space-time diagram of a run as SVG: nodes are lines, time goes to the right.

One unit of its width is a virtual millisecond, so that zooming is a change of its `viewBox`; its
height is in pixels. Words stand beside it, in HTML, placed by their instant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import msgspec

from sim.chronicle import Chronicle, Message
from sim.faults import AnyFault, kind_of
from sim.page.selection import Selection
from sim.shrinking.simpler import nodes_of

LANE_PX = 18
TOP_PX = 22
_MIN_ROW_PX, _MAX_ROW_PX, _ROWS_PX = 16, 52, 720
_GOSSIP = {"ping", "ack", "nack", "gossip", "ping request", "link-ping", "link-pong"}
_PIECES = {"piece", "request_piece"}
_FAILURES = {"failure", "refusal", "piece_refused", "task_refused"}
_ENDS = {"kill", "power-loss", "leave"}


@dataclass(frozen=True, slots=True)
class Label:
    """A word beside the drawing."""

    at_s: float
    y_px: float
    text: str
    kind: str
    to_s: float
    """When what it stands for is over."""


class Diagram:
    """Draws what was selected of a chronicle, of a run of `ended_s` virtual seconds."""

    def __init__(
        self,
        chronicle: Chronicle,
        selection: Selection,
        faults: list[AnyFault],
        violations: list[tuple[float, str]],
        ended_s: float,
    ) -> None:
        self._chronicle = chronicle
        self._selection = selection
        self._faults = faults
        self._violations = violations
        self._ended_s = ended_s
        rows = max(1, len(selection.nodes))
        self.row_px = max(_MIN_ROW_PX, min(_MAX_ROW_PX, _ROWS_PX // rows))
        self._first_row_px = TOP_PX + LANE_PX * len(faults) + self.row_px / 2
        self._rows = {
            name: round(self._first_row_px + self.row_px * number, 1)
            for number, name in enumerate(selection.nodes)
        }
        self.height_px = round(self._first_row_px + self.row_px * (rows - 0.5))

    @property
    def rows(self) -> dict[str, float]:
        """Where each node's line is, pixels from the top."""
        return self._rows

    def shapes(self) -> Iterator[str]:
        """The drawing, what lies below first."""
        yield from self._fault_shapes()
        yield from self._lifelines()
        yield from (self._message(each) for each in self._selection.messages)
        yield from self._verb_shapes()
        yield from self._view_ticks()
        for at_s, text in self._violations:
            yield _path("wrong", f"M{_ms(at_s)},0V{self.height_px}", f"{at_s:.3f} s: {text}")

    def labels(self) -> Iterator[Label]:
        """The words: violations, faults, verbs."""
        for at_s, text in self._violations[:1]:
            yield Label(at_s, 2, text, "wrong", at_s)
        for lane, fault in enumerate(self._faults):
            lane_px = TOP_PX + LANE_PX * lane
            yield Label(fault.at_s, lane_px, told(fault), "fault", self._end_of(fault))
        for verb in self._chronicle.verbs:
            if verb.node in self._rows and self.row_px >= _MAX_ROW_PX // 2:
                y_px = self._rows[verb.node] + self.row_px * 0.2
                kind = "verb failed" if verb.failure else "verb"
                text = f"{verb.verb} {verb.cid}"
                yield Label(verb.started_s, y_px, text, kind, verb.ended_s)

    def _fault_shapes(self) -> Iterator[str]:
        for lane, fault in enumerate(self._faults):
            ends_s = self._end_of(fault)
            kind, title = _fault_class(fault), f"{fault.at_s:.3f} s: {told(fault)}"
            y_px = TOP_PX + LANE_PX * lane
            names = [f"n{number}" for number in nodes_of(fault)]
            places = [self._rows[name] for name in names if name in self._rows]
            if ends_s > fault.at_s:
                yield _rect(f"band {kind}", fault.at_s, ends_s, y_px + 2, LANE_PX - 4, title)
                for row in places:
                    top, height = row - self.row_px * 0.45, self.row_px * 0.9
                    yield _rect(f"shade {kind}", fault.at_s, ends_s, top, height, title)
            else:
                lowest = max(places, default=y_px + LANE_PX)
                yield _path(f"drop {kind}", f"M{_ms(fault.at_s)},{y_px}V{lowest}", title)
                for row in places:
                    ends = f"{row - self.row_px * 0.4:.1f}V{row + self.row_px * 0.4:.1f}"
                    yield _path(f"mark {kind}", f"M{_ms(fault.at_s)},{ends}", title)

    def _end_of(self, fault: AnyFault) -> float:
        for_s: float = getattr(fault, "for_s", 0.0)
        return min(self._ended_s, fault.at_s + for_s)

    def _lifelines(self) -> Iterator[str]:
        for name, row in self._rows.items():
            started_s: float | None = None
            lives = [(life.at_s, life.is_up) for life in self._chronicle.lives if life.node == name]
            for at_s, is_up in [*lives, (self._ended_s, False)]:
                if started_s is not None and not is_up:
                    yield _path("life", f"M{_ms(started_s)},{row}H{_ms(at_s)}")
                started_s = at_s if is_up else None

    def _message(self, each: Message) -> str:
        ends = (
            f"M{_ms(each.sent_s)},{self._rows[each.source]}"
            f"L{_ms(each.arrived_s)},{self._rows[each.target]}"
        )
        said = f": {each.detail}" if each.detail else ""
        way = f"{each.source} → {each.target}"
        title = f"{each.sent_s:.4f} s {way} {each.kind}, {each.size} B{said}"
        return _path(f"m {_family(each)}", ends, title)

    def _verb_shapes(self) -> Iterator[str]:
        for verb in self._chronicle.verbs:
            if verb.node in self._rows:
                came = verb.failure or "done"
                title = (
                    f"{verb.started_s:.3f}–{verb.ended_s:.3f} s {verb.verb} {verb.cid} "
                    f"on {verb.node}: {came}"
                )
                kind = "verb failed" if verb.failure else "verb"
                y_px, height = self._rows[verb.node] + self.row_px * 0.1, self.row_px * 0.1
                yield _rect(kind, verb.started_s, verb.ended_s, y_px, height, title)

    def _view_ticks(self) -> Iterator[str]:
        for view in self._selection.views:
            row = self._rows[view.viewer]
            ends = f"M{_ms(view.at_s)},{row - self.row_px * 0.3:.1f}V{row}"
            title = f"{view.at_s:.3f} s: {view.viewer} sees {view.member} {view.state}"
            yield _path(f"view {view.state}", ends, title)


def told(fault: AnyFault) -> str:
    """A fault in words: its kind and what sets it apart."""
    plain: dict[str, Any] = msgspec.to_builtins(fault)
    parts = [
        _parameter(name, value)
        for name, value in plain.items()
        if name not in ("kind", "at_s") and value is not False
    ]
    return f"{kind_of(fault)} {', '.join(parts)}".strip()


def _parameter(name: str, value: Any) -> str:
    if name in ("node", "island"):
        return value if isinstance(value, str) else "+".join(value)
    return name if value is True else f"{name}={value}"


def _family(message: Message) -> str:
    if message.kind in _GOSSIP:
        return "g q" if message.is_routine else "g"
    if message.kind in _PIECES:
        return "p"
    return "c bad" if message.kind in _FAILURES else "c"


def _fault_class(fault: AnyFault) -> str:
    kind = kind_of(fault)
    return "ends" if kind in _ENDS else "starts" if kind == "restart" else "other"


def _path(kind: str, ends: str, title: str = "") -> str:
    return f'<path class="{kind}" d="{ends}">{_title(title)}</path>'


def _rect(kind: str, from_s: float, to_s: float, y_px: float, height_px: float, title: str) -> str:
    size = f'width="{_ms(to_s - from_s)}" height="{height_px:.1f}"'
    place = f'x="{_ms(from_s)}" y="{y_px:.1f}"'
    return f'<rect class="{kind}" {place} {size}>{_title(title)}</rect>'


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f}".rstrip("0").rstrip(".")
