"""A report as a picture: one bar a contender, with the spread of its runs."""

from __future__ import annotations

from xml.sax.saxutils import escape

from bench.report import Report

_ROW, _LABEL, _BAR, _VALUE = 30, 230, 420, 150
_OURS, _THEIRS = "#2b6cb0", "#a0aec0"


def as_svg(report: Report) -> str:
    """Bars of MiB/s: medians, with a line from the slowest run to the fastest."""
    scale = _BAR / max(summary.highest for summary in report.summaries)
    width, height = _LABEL + _BAR + _VALUE, 50 + _ROW * len(report.summaries)
    title = f"{report.name}, {report.size_bytes >> 20} MiB, {report.runs} interleaved runs"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="10" y="22" font-size="15">{escape(title)}: MiB/s</text>',
    ]
    for row, summary in enumerate(report.summaries):
        top = 40 + _ROW * row
        middle = top + _ROW / 2 - 4
        colour = _OURS if summary.name.startswith("gossipcache") else _THEIRS
        left, right = (_LABEL + scale * rate for rate in (summary.lowest, summary.highest))
        lines += [
            f'<text x="{_LABEL - 8}" y="{middle + 4}" text-anchor="end">'
            f"{escape(summary.name)}</text>",
            f'<rect x="{_LABEL}" y="{top}" width="{scale * summary.mib_per_s:.1f}" '
            f'height="{_ROW - 8}" fill="{colour}"/>',
            f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{middle}" y2="{middle}" stroke="black"/>',
            f'<text x="{max(right, _LABEL) + 6:.1f}" y="{middle + 4}">'
            f"{summary.mib_per_s:g} ({summary.cpu_s:g} CPU s)</text>",
        ]
    return "\n".join([*lines, "</svg>", ""])
