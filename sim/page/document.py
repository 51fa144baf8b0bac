"""The page around the diagram: what failed, how to play it again, faults, counts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

import msgspec

from sim.chronicle import Chronicle
from sim.faults import AnyFault
from sim.page.diagram import Diagram, told
from sim.page.selection import Selection, select
from sim.recording import again, smaller
from sim.registry import Report, find

_HERE = Path(__file__).parent
_INSTANT = re.compile(r"^(\d+\.\d+) s: (.*)$", re.DOTALL)
_SPANS = (("10 s", 10.0), ("3 s", 3.0), ("1 s", 1.0), ("0.3 s", 0.3), ("0.1 s", 0.1))
_LEAD_S, _LONGEST_LEAD_S, _USUAL_LEAD_S = 0.5, 40.0, 6.0
_KEYS = (
    ("g", "gossip", "gossip"),
    ("q", "gossip", "probes without news"),
    ("c", "control", "requests and answers"),
    ("p", "piece", "pieces"),
    ("view", "suspect", "changes of views"),
)


def page(report: Report, chronicle: Chronicle, file: Path) -> str:
    """The page of a run that was recorded in `file`."""
    faults = [fault for fault in _faults(report) if fault is not None]
    violations = [_placed(each, report.virtual_s) for each in report.violations]
    focus_s = violations[0][0] if violations else report.virtual_s
    drawn = select(chronicle, faults, report.violations, focus_s)
    diagram = Diagram(chronicle, drawn, faults, violations, report.virtual_s)
    title = f"{report.scenario}, seed {report.seed}, {report.nodes} nodes"
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        '<meta name="viewport" content="width=device-width">',
        f"<style>{(_HERE / 'page.css').read_text()}</style></head><body>",
        *_head(report, title, file),
        *_plot(diagram, report.virtual_s, focus_s, _start(faults, focus_s)),
        *_omissions(drawn),
        '<div class="tables">',
        *_fault_table(report, faults),
        *_message_table(chronicle, drawn),
        *_table("Metrics", ["metric", "value"], sorted(report.metrics.items())),
        "</div>",
        f"<script>{(_HERE / 'page.js').read_text()}</script></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _faults(report: Report) -> list[AnyFault | None]:
    return msgspec.convert(report.schedule, list[AnyFault | None])


def _placed(violation: str, ended_s: float) -> tuple[float, str]:
    found = _INSTANT.match(violation)
    return (float(found[1]), found[2]) if found else (ended_s, violation)


def _start(faults: list[AnyFault], focus_s: float) -> float:
    """Where the first look begins: before the first fault, if that is not long ago."""
    first = min((fault.at_s for fault in faults), default=focus_s)
    lead_s = focus_s - first + _LEAD_S
    return max(0.0, focus_s - (lead_s if lead_s < _LONGEST_LEAD_S else _USUAL_LEAD_S))


def _head(report: Report, title: str, file: Path) -> Iterator[str]:
    yield f"<h1>{escape(title)}</h1>"
    yield f'<p class="soft">{escape(find(report.scenario).summary)}</p>'
    for violation in report.violations:
        yield f'<p class="verdict">{escape(violation)}</p>'
    if not report.violations:
        yield '<p class="held">all invariants held</p>'
    yield f"<pre>{escape(again(file))}\n{escape(smaller(file))}</pre>"
    yield (
        f'<p class="soft">digest <code>{report.digest}</code> over {report.events} events in '
        f"{report.virtual_s:.3f} virtual seconds</p>"
    )


def _plot(diagram: Diagram, ended_s: float, focus_s: float, start_s: float) -> Iterator[str]:
    width_s = max(0.05, (focus_s - start_s) * 1.08)
    yield '<div class="bar">'
    yield '<button data-span="0">whole run</button><span class="soft">up to the end:</span>'
    yield from (f'<button data-span="{span}">{text}</button>' for text, span in _SPANS)
    yield '<button data-by="0.5">+</button><button data-by="2">−</button>'
    for kind, colour, text in _KEYS:
        key = f'<span class="key" style="background: var(--{colour})"></span>'
        yield f'<label><input type="checkbox" data-hides="{kind}" checked>{key}{text}</label>'
    yield "</div>"
    yield '<div class="diagram"><div class="names">'
    for name, row in diagram.rows.items():
        yield f'<span style="top: {row}px">{escape(name)}</span>'
    yield (
        f'</div><div class="plot" data-total="{ended_s:.4f}" data-focus="{focus_s:.4f}" '
        f'data-height="{diagram.height_px}" data-from="{start_s:.4f}" '
        f'data-width="{width_s:.4f}" style="--a: {start_s:.4f}; --w: {width_s:.4f}">'
    )
    yield (
        f'<svg style="height: {diagram.height_px}px" preserveAspectRatio="none" '
        f'viewBox="{start_s * 1000:.1f} 0 {width_s * 1000:.1f} {diagram.height_px}">'
    )
    yield from diagram.shapes()
    yield "</svg>"
    for label in diagram.labels():
        place = f"--t: {label.at_s:.4f}; --e: {label.to_s:.4f}; top: {label.y_px:.1f}px"
        yield f'<span class="{label.kind}" style="{place}">{escape(label.text)}</span>'
    yield '<div class="axis"></div></div></div>'
    yield '<p class="word"></p>'
    yield (
        '<p class="soft">Each line is a node, time goes to the right; a slanted line is a message, '
        "from the instant when it was sent to that when it arrived. Ticks above a node's line: it "
        "sees another alive (green), suspect (amber), dead (red). Bars below it: what a user asked "
        "of it. Point at anything to read it; drag to move, Ctrl or Shift and the wheel to zoom, "
        "double-click to look closer.</p>"
    )


def _omissions(drawn: Selection) -> Iterator[str]:
    messages = sum(drawn.left_out.values())
    if messages or drawn.views_left_out or drawn.nodes_left_out:
        yield (
            f'<p class="soft">Left out of the drawing: {drawn.nodes_left_out} nodes, '
            f"{drawn.views_left_out} changes of views, {messages} messages: those of nodes that "
            "are left out, that say nothing new, or far from the end (counted below).</p>"
        )


def _fault_table(report: Report, faults: list[AnyFault]) -> Iterator[str]:
    listed = [(f"{fault.at_s:.3f} s", told(fault)) for fault in faults]
    yield from _table("Faults", ["struck at", "fault"], listed)
    counts = [(kind, each["armed"], each["bit"]) for kind, each in report.faults.items()]
    yield from _table("Faults by kind", ["kind", "armed", "bit"], counts)


def _message_table(chronicle: Chronicle, drawn: Selection) -> Iterator[str]:
    counts = Counter(message.kind for message in chronicle.messages)
    sizes: Counter[str] = Counter()
    for message in chronicle.messages:
        sizes[message.kind] += message.size
    rows = [
        (kind, count, drawn.left_out.get(kind, 0), sizes[kind])
        for kind, count in counts.most_common()
    ]
    yield from _table("Messages", ["kind", "arrived", "not drawn", "bytes"], rows)


def _table(title: str, heads: list[str], rows: Iterable[tuple[str | float, ...]]) -> Iterator[str]:
    filled = list(rows)
    if not filled:
        return
    yield f"<div><h2>{title}</h2><table><tr>"
    for head, value in zip(heads, filled[0], strict=True):
        yield "<th>" if isinstance(value, str) else '<th class="number">'
        yield f"{head}</th>"
    yield "</tr>"
    for row in filled:
        yield f"<tr>{''.join(map(_cell, row))}</tr>"
    yield "</table></div>"


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    return f'<td class="number">{value:,.10g}</td>'
