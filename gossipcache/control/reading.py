"""What control requests say: JSON bodies and query strings as the verbs' typed requests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, Literal, TypeVar

import msgspec

from gossipcache.errors import UsageError
from gossipcache.requests import (
    DeleteRequest,
    ExportRequest,
    ImportRequest,
    LimitsChange,
    TaskLimitsChange,
    TaskQuery,
)
from gossipcache.units import checked_rate, parse_rate

P = TypeVar("P")

_MISSING = object()
MAX_BATCH_ENTRIES = 10_000
MAX_BATCH_BYTES = 32 * 2**20
MAX_TIMEOUT_S = 366 * 86400.0


class Fields:
    """Named values of one request; every one must be asked for by `done`, so that a misspelt
    name is an error. Values are JSON, or text where they come from a query string."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._left = dict(values)

    def text(self, name: str) -> str | None:
        """A text value, None if it is not there."""
        value = self._left.pop(name, None)
        if value is None or isinstance(value, str):
            return value
        raise _unfit(name, "text")

    def bytes_of(self, name: str) -> bytes:
        """A value in hex, which must be there."""
        try:
            return bytes.fromhex(self.text(name) or "")
        except ValueError as error:
            raise _unfit(name, "hex digits") from error

    def flag(self, name: str) -> bool:
        """A truth value, false if it is not there."""
        value = self._left.pop(name, False)
        if isinstance(value, str):
            value = {"true": True, "1": True, "false": False, "0": False}.get(value)
        if not isinstance(value, bool):
            raise _unfit(name, "true or false")
        return value

    def seconds(self, name: str, default: float | None = None) -> float | None:
        """A duration in seconds; 0 means none, that is no limit."""
        value = self._number(name, _MISSING)
        if value is _MISSING:
            return default
        if not 0 <= value <= MAX_TIMEOUT_S:
            raise _unfit(name, "a number of seconds")
        return float(value) or None

    def count(self, name: str, default: int) -> int:
        """A number of 1 or more."""
        value = self._number(name, default)
        if not 1 <= value < 2**31 or value != int(value):
            raise _unfit(name, "a whole number from 1")
        return int(value)

    def rate(self, name: str) -> int | None:
        """Bytes a second, as a number or as text (`100MiB/s`); 0 for no limit, None if it is not
        there."""
        value = self._left.pop(name, None)
        if isinstance(value, str):
            return parse_rate(value)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise _unfit(name, "a whole number of bytes a second")
        return checked_rate(value)

    def optional_count(self, name: str) -> int | None:
        """A number of 1 or more, None if it is not there."""
        return self.count(name, 1) if name in self._left else None

    def _number(self, name: str, default: Any) -> Any:
        value = self._left.pop(name, None)
        if value is None:
            return default
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError as error:
                raise _unfit(name, "a number") from error
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _unfit(name, "a number")
        return value

    def done(self) -> None:
        """Raises `UsageError` if there were values that nothing asked for."""
        for name in self._left:
            raise UsageError(f"the request names {name!r}, which is unknown here")


def json_fields(body: bytes) -> Fields:
    """The object in a request's body; an empty body is an empty object."""
    try:
        values = json.loads(body) if body else {}
    except (ValueError, RecursionError) as error:
        raise UsageError("the request's body is not valid JSON") from error
    if not isinstance(values, dict):
        raise UsageError("the request's body is not a JSON object")
    return Fields(values)


def limits_of(fields: Fields) -> LimitsChange:
    """New limits of the node."""
    wanted = LimitsChange(
        upload_rate=fields.rate("upload_rate"),
        download_rate=fields.rate("download_rate"),
        task_upload_rate=fields.rate("task_upload_rate"),
        task_download_rate=fields.rate("task_download_rate"),
        max_uploads=fields.optional_count("max_uploads"),
    )
    fields.done()
    return wanted


def task_limits_of(fields: Fields) -> TaskLimitsChange:
    """New limits of one task."""
    wanted = TaskLimitsChange(
        upload_rate=fields.rate("upload_rate"), download_rate=fields.rate("download_rate")
    )
    fields.done()
    return wanted


def _batch_lines(body: bytes) -> list[bytes]:
    lines = body.splitlines()
    if len(lines) > MAX_BATCH_ENTRIES:
        raise UsageError(f"the request has {len(lines)} lines", f"send {MAX_BATCH_ENTRIES} at most")
    return lines


class _PlainImport(msgspec.Struct, forbid_unknown_fields=True):
    """What most lines of a batch say, which is read in a fraction of the time of `Fields`."""

    path: str
    cid: str | None = None
    replicas: Literal[1] = 1


class _PlainExport(msgspec.Struct, forbid_unknown_fields=True):
    """The same of exports."""

    path: str
    cid: str
    umask: str | None = None


_plain_import = msgspec.json.Decoder(_PlainImport).decode
_plain_export = msgspec.json.Decoder(_PlainExport).decode


def _plain(decode: Callable[[bytes], P], line: bytes) -> P | None:
    try:
        return decode(line)
    except (msgspec.MsgspecError, ValueError):
        return None  # it says more, or is not valid, which `Fields` tells


def imports_of(body: bytes) -> list[ImportRequest]:
    """The imports that the lines of a request's body ask for."""
    wanted = []
    for line in _batch_lines(body):
        if (plain := _plain(_plain_import, line)) is not None:
            wanted.append(ImportRequest(_absolute(plain.path), plain.cid))
        else:
            wanted.append(import_of(json_fields(line), from_stream=False))
    return wanted


def exports_of(body: bytes) -> list[ExportRequest]:
    """The exports that the lines of a request's body ask for."""
    wanted = []
    for line in _batch_lines(body):
        if (plain := _plain(_plain_export, line)) is not None:
            query, umask = TaskQuery(plain.cid), _octal(plain.umask)
            wanted.append(ExportRequest(query, _absolute(plain.path), umask=umask))
        else:
            fields = json_fields(line)
            wanted.append(export_of(fields.text("cid") or "", fields))
    return wanted


def task_of(cid: str, fields: Fields) -> TaskQuery:
    """The task named by `cid` and the fields `tag`, `digest`, `publisher`."""
    return TaskQuery(cid, fields.text("tag") or "", fields.text("digest"), fields.text("publisher"))


def optional_task(fields: Fields) -> TaskQuery | None:
    """The task named by the field `cid`, if there is one."""
    cid = fields.text("cid")
    if cid is not None:
        return task_of(cid, fields)
    if fields.text("tag"):
        raise UsageError("a tag without a cid", "name the task with -i CID")
    return None


def import_of(fields: Fields, *, from_stream: bool) -> ImportRequest:
    """The import that `fields` ask for."""
    path = None if from_stream else _absolute(fields.text("path"))
    request = ImportRequest(
        path=path,
        cid=fields.text("cid"),
        tag=fields.text("tag") or "",
        ttl_s=fields.seconds("ttl_s"),
        replicas=fields.count("replicas", 1),
        pin=fields.flag("pin"),
        link=fields.flag("link"),
        timeout_s=fields.seconds("timeout_s"),
    )
    fields.done()
    return request


def export_of(cid: str, fields: Fields) -> ExportRequest:
    """The export of `cid` that `fields` ask for."""
    request = ExportRequest(
        task=task_of(cid, fields),
        path=_absolute(fields.text("path")),
        local=fields.flag("local"),
        overwrite=fields.flag("overwrite"),
        link=fields.flag("link"),
        umask=_umask(fields),
        timeout_s=fields.seconds("timeout_s"),
        sync=fields.flag("sync"),
    )
    fields.done()
    return request


def delete_of(cid: str, fields: Fields) -> DeleteRequest:
    """The deletion of `cid` that `fields` ask for."""
    request = DeleteRequest(
        task=task_of(cid, fields),
        local=fields.flag("local"),
        force=fields.flag("force"),
        timeout_s=fields.seconds("timeout_s", 10.0) or MAX_TIMEOUT_S,
    )
    fields.done()
    return request


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The single range (start, stop) that `header` asks of `size` bytes (RFC 9110, 14.1.2).

    None: no range, or one of a form that may be ignored. An empty range (start == stop) means
    that nothing of it can be had.
    """
    unit, _, spec = (header or "").partition("=")
    first, dash, last = spec.strip().partition("-")
    if unit.strip().lower() != "bytes" or not dash or not (first + last).isdigit():
        return None
    if not first:
        return max(0, size - int(last)), size
    start = int(first)
    stop = min(size, int(last) + 1) if last else size
    if last and int(last) < start:
        return None
    return (start, stop) if start < stop else (size, size)


def _umask(fields: Fields) -> int:
    return _octal(fields.text("umask"))


def _octal(text: str | None) -> int:
    try:
        umask = int(text or "077", 8)
    except ValueError as error:
        raise _unfit("umask", "octal digits") from error
    return umask & 0o777


def _absolute(path: str | None) -> PurePath:
    if not path or not path.startswith("/") or "\0" in path:
        raise UsageError("the request names no absolute path", "give the path from /")
    return PurePath(path)


def _unfit(name: str, wanted: str) -> UsageError:
    return UsageError(f"{name} in the request is not {wanted}")
