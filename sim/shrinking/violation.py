"""What makes two violations the same one."""

from __future__ import annotations

import re

_INSTANT = re.compile(r"^\d+(\.\d+)? s: ")
_WAITING = re.compile(r"; waiting: .*", re.DOTALL)
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_BRACKETED = re.compile(r"\([^()]*\)|\[[^][]*\]|\{[^{}]*\}")
_HEX = re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b")
_NODE = re.compile(r"\bn\d+\b")
_NUMBER = re.compile(r"\d+(\.\d+)?")


def kind_of(violation: str) -> str:
    """The violation without its instant, names, lists and numbers: equal for two runs exactly
    if the same invariant broke in them.

    >>> kind_of("12.500 s: n3 shows 'report.csv' again, which it had dropped")
    'n shows … again, which it had dropped'
    """
    text = _WAITING.sub("", _INSTANT.sub("", violation))
    text = _QUOTED.sub("…", text)
    while (shorter := _BRACKETED.sub("…", text)) != text:
        text = shorter
    text = _NUMBER.sub("#", _NODE.sub("n", _HEX.sub("…", text)))
    return " ".join(text.split())
