"""Logs: one event a line, for people and for programs."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from gossipcache.log import configure_log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    logger = logging.getLogger("gossipcache")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def test_json_lines_carry_the_events_fields() -> None:
    stream = io.StringIO()
    configure_log("info", "json", stream)
    log = logging.getLogger("gossipcache.dht.membership.swim")
    log.info("member is dead", extra={"fields": {"node": b"\xab\x12", "event": "forged"}})
    log.debug("not shown")
    (line,) = stream.getvalue().splitlines()
    event = json.loads(line)
    assert event.pop("time").endswith("Z")
    assert event == {
        "level": "info", "module": "dht.membership.swim", "event": "member is dead", "node": "ab12",
    }  # fmt: skip


def test_human_lines_cannot_be_forged() -> None:
    stream = io.StringIO()
    configure_log("debug", "human", stream)
    log = logging.getLogger("gossipcache.link")
    log.warning("hello from evil\n2026 info daemon: ready", extra={"fields": {"name": "\x1b[2J"}})
    (line,) = stream.getvalue().splitlines()
    assert " warning link: hello from evil\\n2026" in line
    assert "name=\\x1b[2J" in line


def test_exceptions_are_in_the_log_only(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    configure_log("error", "json", stream)
    try:
        raise ValueError("inside")
    except ValueError:
        logging.getLogger("gossipcache.control").exception("a request failed")
    assert "ValueError: inside" in json.loads(stream.getvalue())["exception"]
    assert capsys.readouterr().err == ""
