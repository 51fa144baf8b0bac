"""Structured logs of one node process: one event a line, for people or as JSON.

Modules log through `logging.getLogger("gossipcache.…")`; values go into
`extra={"fields": {...}}`. Keys, secrets and tokens are never passed to a logger.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import IO, Literal

LogFormat = Literal["human", "json"]


class HumanFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z info  dht.membership.swim: member is dead node=ab12… `."""

    def format(self, record: logging.LogRecord) -> str:
        """One event; an exception's traceback follows on lines of its own."""
        fields = "".join(f" {name}={_shown(value)}" for name, value in _fields(record).items())
        line = (
            f"{_timestamp(record)} {record.levelname.lower():7} {_module(record)}:"
            f" {_one_line(record.getMessage())}{fields}"
        )
        return line if not record.exc_info else f"{line}\n{self.formatException(record.exc_info)}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, module, event, and the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One event; the event's fields never replace the fixed ones."""
        fixed = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "module": _module(record),
            "event": record.getMessage(),
        }
        if record.exc_info:
            fixed["exception"] = self.formatException(record.exc_info)
        return json.dumps({**_fields(record), **fixed}, default=_shown)


def configure_log(level: str, log_format: LogFormat, stream: IO[str] | None = None) -> None:
    """Sends the package's log to `stream` (stderr by default) from `level` on."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else HumanFormatter())
    logger = logging.getLogger("gossipcache")
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, dict) else {}


def _timestamp(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


def _module(record: logging.LogRecord) -> str:
    return record.name.removeprefix("gossipcache.")


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else _one_line(str(value))


def _one_line(text: str) -> str:
    """What a remote sent cannot forge a log line of its own."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
