"""The thin client of a running node: HTTP over its Unix socket, standard library only.

Every call has a connection of its own; closing it (also by Ctrl-C) cancels the work in the node.
Errors of the node are raised as the classes of `gossipcache.errors`.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from gossipcache.errors import (
    NodeUnreachable,
    NotPermitted,
    TimedOut,
    UsageError,
    from_code,
)
from gossipcache.home import Home, socket_name
from gossipcache.ids import task_id_of

Fields = Mapping[str, object]
R = TypeVar("R")
OnProgress = Callable[[dict[str, Any]], None]

JSON_TYPE = "application/json"
OCTETS_TYPE = "application/octet-stream"
FRAMED_TYPE = "application/vnd.gossipcache.framed"
SLACK_S = 5.0
"""How much longer than the node's own time limit the client waits for its answer."""
MAX_LINE_BYTES = 16 * 2**20
COPY_BYTES = 1024 * 1024


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, home: Home, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._home = home

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        with socket_name(self._home.control_path) as name:
            self.sock.connect(name)


class ControlClient:
    """Calls the node that runs on `home`. Safe to use from several threads."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._open: list[_UnixConnection] = []
        self._aborted = False

    def abort(self) -> None:
        """Breaks off the calls that other threads are in; they raise `NodeUnreachable`, as does
        every later call."""
        self._aborted = True
        for connection in list(self._open):
            if connection.sock is not None:
                try:
                    connection.sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def is_listening(self) -> bool:
        """Whether a node listens on the home's socket."""
        connection = _UnixConnection(self.home, SLACK_S)
        try:
            connection.connect()
        except OSError:
            return False
        finally:
            connection.close()
        return True

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

    def upload(
        self,
        path: str,
        *,
        query: Fields,
        parts: Iterable[bytes],
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """The same with `parts` as the content, sent as they come."""
        headers = {"Content-Type": OCTETS_TYPE, "Transfer-Encoding": "chunked"}
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
        connection = _UnixConnection(self.home, wait_s)
        self._open.append(connection)
        reply = _Reply(connection, self._open)
        try:
            self._connect(connection)
            if self._aborted:
                raise NodeUnreachable("the call was broken off")
            try:
                connection.request(
                    method, _target(path, query), data, dict(headers),
                    encode_chunked="Transfer-Encoding" in headers,
                )  # fmt: skip
            except (BrokenPipeError, ConnectionResetError):
                pass  # the node answered early and stopped reading: its answer says why
            reply.begin()
        except BaseException:
            reply.close()
            raise
        return reply

    def _connect(self, connection: _UnixConnection) -> None:
        try:
            connection.connect()
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

    def __init__(self, connection: _UnixConnection, register: list[_UnixConnection]) -> None:
        self._connection = connection
        self._register = register
        self._response: http.client.HTTPResponse | None = None

    def begin(self) -> None:
        self._response = self._guarded(self._connection.getresponse)
        if self._response.status == 416:
            raise _PastTheEnd
        if self._response.status >= 400:
            _result(_json(self.read()))
            raise NodeUnreachable(f"the node answered with HTTP status {self._response.status}")

    def read(self, count: int | None = None) -> bytes:
        response = self._response
        assert response is not None
        return self._guarded(lambda: response.read(count))

    def readline(self) -> bytes:
        response = self._response
        assert response is not None
        return self._guarded(lambda: response.readline(MAX_LINE_BYTES))

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
        self._connection.close()
        if self._connection in self._register:
            self._register.remove(self._connection)

    def _guarded(self, io: Callable[[], R]) -> R:
        try:
            return io()
        except TimeoutError as error:
            raise TimedOut("the node did not answer in time") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NodeUnreachable(
                "the connection to the node broke before its answer was whole",
                "see `gossipcache node status` and the node's log",
            ) from error


def task_path(cid: str, *parts: str) -> str:
    """The path of a task, or of something of it, in the control API.

    Raises `UsageError` if no task can have this cid.
    """
    task_id_of(cid, "")
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
            return _result(line)
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


def _result(line: dict[str, Any]) -> dict[str, Any]:
    """The result in `line`, or the error in it raised."""
    error = line.get("error")
    if isinstance(error, dict):
        raise from_code(
            str(error.get("code")), str(error.get("message")), str(error.get("hint") or "")
        )
    result = line.get("result")
    if not isinstance(result, dict):
        raise NodeUnreachable("the node gave an answer without a result")
    return result
