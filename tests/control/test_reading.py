"""Lines of batches, which are read in two ways that say the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

import pytest

from gossipcache.control.reading import export_of, exports_of, import_of, imports_of, json_fields
from gossipcache.errors import UsageError
from gossipcache.requests import ExportRequest, ImportRequest

R = TypeVar("R")

LINES = [
    b'{"path": "/a/b"}',
    b'{"path": "/a/b", "cid": "x"}',
    b'{"path": "/a/\\u00e4", "cid": ""}',
    b'{"path": "/a/b", "cid": "x", "replicas": 1}',
    b'{"path": "/a/b", "cid": "x", "replicas": 2, "pin": true}',
    b'{"path": "/a/b", "cid": "x", "replicas": 0}',
    b'{"path": "/a/b", "cid": "x", "replicas": true}',
    b'{"path": "/a/b", "cid": "x", "umask": "022"}',
    b'{"path": "/a/b", "cid": "x", "umask": ""}',
    b'{"path": "/a/b", "cid": "x", "umask": "9"}',
    b'{"path": "/a/b", "cid": "x", "umask": null, "overwrite": true}',
    b'{"path": "/a/b", "cid": "x", "tag": "t", "timeout_s": 3}',
    b'{"path": "a/b", "cid": "x"}',
    b'{"path": "/a\\u0000", "cid": "x"}',
    b'{"path": "/\\ud800", "cid": "x"}',
    b'{"path": 1, "cid": "x"}',
    b'{"cid": "x"}',
    b'{"path": "/a", "path": "/b", "cid": "x"}',
    b'{"path": "/a", "cid": "x", "nonsense": 1}',
    b"[]",
    b"",
    b"{",
]


def outcome(read: Callable[[], R]) -> R | str:
    try:
        return read()
    except UsageError as error:
        return error.message


@pytest.mark.parametrize("line", LINES)
def test_a_line_says_in_a_batch_what_it_says_alone(line: bytes) -> None:
    def alone_import() -> list[ImportRequest]:
        return [import_of(json_fields(line), from_stream=False)]

    def alone_export() -> list[ExportRequest]:
        fields = json_fields(line)
        return [export_of(fields.text("cid") or "", fields)]

    body = line + b"\n"
    assert outcome(lambda: imports_of(body)) == outcome(alone_import)
    assert outcome(lambda: exports_of(body)) == outcome(alone_export)


def test_a_batch_is_bounded() -> None:
    line = json.dumps({"path": "/a", "cid": "x"}).encode() + b"\n"
    assert len(imports_of(10_000 * line)) == 10_000
    with pytest.raises(UsageError):
        imports_of(10_001 * line)
