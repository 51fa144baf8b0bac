"""What a benchmark found as a picture: one bar a contender, with the spread of its runs."""

from __future__ import annotations

from xml.sax.saxutils import escape

from bench.report import Findings

_ROW, _BAR, _VALUE, _LETTER = 30, 420, 170, 7.2
_OURS, _THEIRS = "#2b6cb0", "#a0aec0"


def as_svg(found: Findings) -> str:
    """Bars from zero, each with a line over its spread and its value beside it."""
    bars = found.bars()
    scale = _BAR / max([bar.highest for bar in bars if bar.highest > 0], default=1.0)
    label = round(24 + _LETTER * max((len(bar.name) for bar in bars), default=0))
    width, height = label + _BAR + _VALUE, 50 + _ROW * len(bars)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="10" y="22" font-size="15">{escape(found.title())}</text>',
    ]
    for row, bar in enumerate(bars):
        top = 40 + _ROW * row
        middle = top + (_ROW - 8) / 2
        colour = _OURS if bar.name.startswith("gossipcache") else _THEIRS
        left, right = (label + scale * end for end in (bar.lowest, bar.highest))
        lines += [
            f'<text x="{label - 8}" y="{middle + 4}" text-anchor="end">{escape(bar.name)}</text>',
            f'<rect x="{label}" y="{top}" width="{scale * bar.value:.1f}" height="{_ROW - 8}" '
            f'fill="{colour}"/>',
            f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{middle}" y2="{middle}" stroke="black"/>',
            f'<text x="{right + 6:.1f}" y="{middle + 4}">{escape(bar.told)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
