"""The thin client of a running node: HTTP over its Unix socket, standard library only.

A call has a connection to itself while it runs; closing it (also by Ctrl-C) cancels the work in
the node. Once its answer is read it serves the next call. Errors of the node are raised as the
classes of `gossipcache.errors`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from gossipcache.errors import (
    GossipcacheError,
    NodeUnreachable,
    NotPermitted,
    TimedOut,
    UsageError,
    from_code,
)
from gossipcache.home import Home
from gossipcache.ids import checked_name
from gossipcache.unix_http import Answer, Connection, Connections, NoHttp

Fields = Mapping[str, object]
R = TypeVar("R")
OnProgress = Callable[[dict[str, Any]], None]

JSON_TYPE = "application/json"
NDJSON_TYPE = "application/x-ndjson"
OCTETS_TYPE = "application/octet-stream"
FRAMED_TYPE = "application/vnd.gossipcache.framed"
SLACK_S = 5.0
"""How much longer than the node's own time limit the client waits for its answer."""
COPY_BYTES = 1024 * 1024


class ControlClient:
    """Calls the node that runs on `home`. Safe to use from several threads."""

    def __init__(self, home: Home, connections: Connections | None = None) -> None:
        """`connections`: those that are shared with other clients of this home."""
        self.home = home
        self._connections = connections if connections is not None else Connections(home)
        self._busy: list[Connection] = []
        self._aborted = False

    def abort(self) -> None:
        """Breaks off the calls that other threads are in; they raise `NodeUnreachable`, as does
        every later call."""
        self._aborted = True
        for connection in list(self._busy):
            connection.shut_down()

    def is_listening(self) -> bool:
        """Whether a node listens on the home's socket; the next call uses the same connection."""
        if self.is_connected():
            return True
        connection = Connection(self.home)
        try:
            connection.connect(SLACK_S)
        except OSError:
            connection.close()
            return False
        self._connections.keep(connection)
        return True

    def is_connected(self) -> bool:
        """Whether a connection from an earlier call is still good. Never blocks."""
        connection = self._connections.take()
        if connection is None:
            return False
        self._connections.keep(connection)
        return True

    def close(self) -> None:
        """Closes the connections that no call uses."""
        self._connections.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Fields | None = None,
        body: Fields | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """One request and its JSON answer. `timeout_s`: the node's own limit, None for none."""
        with closing(self._ask(method, path, query, body, timeout_s)) as reply:
            answer: dict[str, Any] = _json(reply.read())
            return answer

    def run(
        self,
        path: str,
        *,
        body: Fields,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """A long verb: `on_progress` is called with each progress line; returns the result."""
        with closing(self._ask("POST", path, None, body, None)) as reply:
            return _last_line(reply, on_progress)

    def run_batch(self, path: str, entries: Iterable[Fields]) -> Iterator[dict[str, Any]]:
        """Runs a verb for many entries; the lines of those that have ended, as they do so."""
        data = b"".join(json.dumps(_given(entry)).encode() + b"\n" for entry in entries)
        headers = {"Content-Type": NDJSON_TYPE}
        with closing(self._send("POST", path, None, data, headers, None)) as reply:
            while "entry" in (line := _line(reply)):
                yield line
            _result(line)
            reply.finish()

    def upload(
        self,
        path: str,
        *,
        query: Fields,
        parts: Iterable[bytes],
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """The same with `parts` as the content, sent as they come."""
        headers = {"Content-Type": OCTETS_TYPE}
        with closing(self._send("POST", path, query, parts, headers, None)) as reply:
            return _last_line(reply, on_progress)

    def content(
        self, path: str, *, query: Fields, on_progress: OnProgress | None = None
    ) -> Iterator[bytes]:
        """A task's content in order, each part verified by the node; an error ends it."""
        headers = {"Accept": FRAMED_TYPE}
        with closing(self._send("GET", path, query, None, headers, None)) as reply:
            done = 0
            while True:
                line = _line(reply)
                if "bytes" not in line:
                    _result(line)
                    reply.finish()
                    return
                for part in _parts(reply, int(line["bytes"])):
                    done += len(part)
                    yield part
                if on_progress is not None:
                    total = line["total"]
                    on_progress({"phase": "export", "done_bytes": done, "total_bytes": total})

    def read_range(self, path: str, *, query: Fields, start: int, stop: int) -> bytes:
        """The bytes from `start` to before `stop` of a file; fewer at its end."""
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        try:
            with closing(self._send("GET", path, query, None, headers, None)) as reply:
                return reply.read()
        except _PastTheEnd:
            return b""

    def _ask(
        self,
        method: str,
        path: str,
        query: Fields | None,
        body: Fields | None,
        timeout_s: float | None,
    ) -> _Reply:
        data = None if body is None else json.dumps(_given(body)).encode()
        headers = {} if body is None else {"Content-Type": JSON_TYPE}
        return self._send(method, path, query, data, headers, timeout_s)

    def _send(
        self,
        method: str,
        path: str,
        query: Fields | None,
        data: bytes | Iterable[bytes] | None,
        headers: Mapping[str, str],
        timeout_s: float | None,
    ) -> _Reply:
        wait_s = None if timeout_s is None else timeout_s + SLACK_S
        target = _target(path, query)
        connection = self._connections.take() or self._connected(wait_s)
        self._busy.append(connection)
        reply = _Reply(connection, self._end)
        try:
            if self._aborted:
                raise NodeUnreachable("the call was broken off")
            try:
                connection.request(method, target, data, headers, wait_s)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the node answered early and stopped reading: its answer says why
            reply.begin()
        except BaseException:
            reply.close()
            raise
        return reply

    def _end(self, connection: Connection, reusable: bool) -> None:
        if connection in self._busy:
            self._busy.remove(connection)
        if reusable and not self._aborted:
            self._connections.keep(connection)
        else:
            connection.close()

    def _connected(self, timeout_s: float | None) -> Connection:
        connection = Connection(self.home)
        try:
            self._connect(connection, timeout_s)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, connection: Connection, timeout_s: float | None) -> None:
        try:
            connection.connect(timeout_s)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise NodeUnreachable(f"no node runs on the home {self.home.path}") from error
        except PermissionError as error:
            raise NotPermitted(
                f"the home {self.home.path} belongs to another user", "give a --home of your own"
            ) from error
        except OSError as error:
            raise NodeUnreachable(
                f"the node on {self.home.path} cannot be reached ({error.strerror or error})"
            ) from error


class _PastTheEnd(Exception):
    """The range asked for begins at or after the end."""


class _Reply:
    """The answer on a connection; its I/O errors come out as typed ones."""

    def __init__(self, connection: Connection, end: Callable[[Connection, bool], None]) -> None:
        """`end` is given the connection, and whether it can be used again."""
        self._connection = connection
        self._end = end
        self._answer: Answer | None = None

    def begin(self) -> None:
        self._answer = answer = self._guarded(self._connection.answer)
        if answer.status == 416:
            raise _PastTheEnd
        if answer.status >= 400:
            _result(_json(self.read()))
            raise NodeUnreachable(f"the node answered with HTTP status {answer.status}")

    def read(self, count: int | None = None) -> bytes:
        answer = self._answer
        assert answer is not None
        return self._guarded(lambda: answer.read(count))

    def readline(self) -> bytes:
        answer = self._answer
        assert answer is not None
        return self._guarded(answer.read_line)

    def finish(self) -> None:
        """Reads the mark behind the last line, so that the connection can be used again."""
        assert self._answer is not None
        with suppress(OSError, NoHttp):  # what was asked for is here
            self._answer.finish()

    def close(self) -> None:
        whole = self._answer is not None and self._answer.whole
        self._end(self._connection, whole and self._connection.reusable)

    def _guarded(self, io: Callable[[], R]) -> R:
        try:
            return io()
        except TimeoutError as error:
            raise TimedOut("the node did not answer in time") from error
        except (OSError, NoHttp, ValueError) as error:
            raise NodeUnreachable(
                "the connection to the node broke before its answer was whole",
                "see `gossipcache node status` and the node's log",
            ) from error


def task_path(cid: str, *parts: str) -> str:
    """The path of a task, or of something of it, in the control API.

    Raises `UsageError` if no task can have this cid.
    """
    checked_name(cid, "")
    return "/".join(("/v1/tasks", quote(cid, safe=""), *parts))


def _target(path: str, query: Fields | None) -> str:
    given = {name: _query_text(value) for name, value in _given(query or {}).items()}
    try:
        return f"{path}?{urlencode(given)}" if given else path
    except UnicodeEncodeError as error:
        raise UsageError(f"{error.object!a} is not valid Unicode text") from error


def _given(fields: Fields) -> dict[str, object]:
    """What was asked for; a None, a false or an empty text is the default and is left out."""
    return {
        name: value
        for name, value in fields.items()
        if value is not None and value is not False and value != ""
    }


def _query_text(value: object) -> str:
    return "true" if value is True else str(value)


def _parts(reply: _Reply, count: int) -> Iterator[bytes]:
    while count:
        part = reply.read(min(count, COPY_BYTES))
        if not part:
            raise NodeUnreachable("the node ended in the middle of its answer")
        count -= len(part)
        yield part


def _last_line(reply: _Reply, on_progress: OnProgress | None) -> dict[str, Any]:
    while True:
        line = _line(reply)
        if "progress" not in line:
            result = _result(line)
            reply.finish()
            return result
        if on_progress is not None:
            on_progress(line["progress"])


def _line(reply: _Reply) -> dict[str, Any]:
    text = reply.readline()
    if not text.endswith(b"\n"):
        raise NodeUnreachable(
            "the node ended while it worked on this", "start it again and repeat the command"
        )
    return _json(text)


def _json(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise NodeUnreachable(
            "what answers on the control socket is no gossipcache node"
        ) from error
    if not isinstance(value, dict):
        raise NodeUnreachable("what answers on the control socket is no gossipcache node")
    return value


def error_of(fields: Mapping[str, object]) -> GossipcacheError:
    """An error as the node told it."""
    return from_code(
        str(fields.get("code")), str(fields.get("message")), str(fields.get("hint") or "")
    )


def _result(line: dict[str, Any]) -> dict[str, Any]:
    """The result in `line`, or the error in it raised."""
    error = line.get("error")
    if isinstance(error, dict):
        raise error_of(error)
    result = line.get("result")
    if not isinstance(result, dict):
        raise NodeUnreachable("the node gave an answer without a result")
    return result
