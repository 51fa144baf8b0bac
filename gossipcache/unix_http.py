"""HTTP/1.1 (RFC 9112) over a node's Unix socket, as far as its own client needs it.

Connections are kept and used again (`Connections`), for a call to a node that runs beside the
caller costs little more than the connection. Standard library only, and little of that:
`http.client` would bring the parser of e-mails into every command.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from gossipcache.home import Home, socket_name

if TYPE_CHECKING:
    from io import BufferedReader

MAX_LINE_BYTES = 16 * 2**20
MAX_HEAD_LINE_BYTES = 64 * 1024
MAX_HEADERS = 100
MAX_KEPT = 8
KEEP_S = 30.0
"""A connection is not used again after it was idle so long; a node closes it after 60 s."""


class NoHttp(Exception):
    """What came is no answer in HTTP/1.1, or ended before it was whole."""


class Connection:
    """One connection, for one request at a time."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._socket: socket.socket | None = None
        self._reading: BufferedReader | None = None
        self.reusable = True
        """Whether the other side takes another request once its answer has been read."""
        self.idle_since = 0.0

    def connect(self, timeout_s: float | None) -> None:
        """Raises `OSError`."""
        connected = self._socket = socket.socket(socket.AF_UNIX)
        connected.settimeout(timeout_s)
        with socket_name(self._home.control_path) as name:
            connected.connect(name)
        self._reading = connected.makefile("rb")

    def is_fresh(self) -> bool:
        """Whether the other side still waits for a request."""
        if self._socket is None or time.monotonic() - self.idle_since > KEEP_S:
            return False
        try:
            self._socket.settimeout(0)
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def request(
        self,
        method: str,
        target: str,
        body: bytes | Iterable[bytes] | None,
        headers: Mapping[str, str],
        timeout_s: float | None,
    ) -> None:
        """Sends a request; a body in parts goes out as they come. `timeout_s` is the longest
        pause from now on. Raises `OSError`."""
        assert self._socket is not None
        self._socket.settimeout(timeout_s)
        self.reusable = False
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if isinstance(body, bytes):
            lines.append(f"Content-Length: {len(body)}")
        elif body is not None:
            lines.append("Transfer-Encoding: chunked")
        head = "\r\n".join((*lines, "", "")).encode("ascii")
        if body is None or isinstance(body, bytes):
            self._socket.sendall(head + (body or b""))
        else:
            self._socket.sendall(head)
            for part in body:
                if part:
                    self._socket.sendall(b"%x\r\n%b\r\n" % (len(part), part))
            self._socket.sendall(b"0\r\n\r\n")
        self.reusable = True

    def answer(self) -> Answer:
        """The head of what comes back. Raises `OSError`, `NoHttp`."""
        assert self._reading is not None
        while True:
            answer = Answer(self._reading)
            if answer.status >= 200:
                self.reusable = self.reusable and not answer.closes
                return answer

    def shut_down(self) -> None:
        """Ends what another thread does with it."""
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self) -> None:
        """A second call does nothing."""
        for end in (self._reading, self._socket):
            if end is not None:
                end.close()


class Answer:
    """The answer to a request: its status, and its body as it arrives."""

    def __init__(self, reading: BufferedReader) -> None:
        self._reading = reading
        words = _head_line(reading).split(b" ", 2)
        if len(words) < 2 or words[0] != b"HTTP/1.1" or not words[1].isdigit():
            raise NoHttp("a status line of another kind")
        self.status = int(words[1])
        headers = _headers(reading)
        self.closes = headers.get(b"connection", b"").lower() == b"close"
        self._chunked = headers.get(b"transfer-encoding", b"").lower() == b"chunked"
        self._left = 0
        """Bytes of the body, or of its present chunk, that are still to come."""
        self.whole = False
        """Whether all of the body has been read."""
        if self.status < 200:
            return
        if not self._chunked:
            length = headers.get(b"content-length", b"")
            if not length.isdigit():
                raise NoHttp("an answer of unknown length")
            self._left = int(length)
            self.whole = self._left == 0

    def read(self, count: int | None = None) -> bytes:
        """All that is left, or up to `count` bytes; b"" at the end. Raises `OSError`, `NoHttp`."""
        if count is None:
            return b"".join(iter(lambda: self.read(MAX_LINE_BYTES), b""))
        if not self._more():
            return b""
        return self._taken(self._reading.read(min(count, self._left)))

    def read_line(self) -> bytes:
        """A line with its end; without one where the body ends. Raises `OSError`, `NoHttp`."""
        line = b""
        while not line.endswith(b"\n") and self._more():
            line += self._taken(self._reading.readline(min(self._left, MAX_LINE_BYTES)))
            if len(line) > MAX_LINE_BYTES:
                raise NoHttp("a line that is too long")
        return line

    def _more(self) -> bool:
        """Whether bytes of the body are to come; begins the next chunk where one has ended."""
        if self._chunked and not self._left and not self.whole:
            size = _head_line(self._reading).partition(b";")[0]
            try:
                self._left = int(size, 16)
            except ValueError as error:
                raise NoHttp("a chunk of unknown length") from error
            if self._left == 0:
                _headers(self._reading)
                self.whole = True
        return self._left > 0

    def _taken(self, data: bytes) -> bytes:
        if not data:
            raise NoHttp("the answer ended early")
        self._left -= len(data)
        if self._left == 0:
            if not self._chunked:
                self.whole = True
            elif _head_line(self._reading):
                raise NoHttp("a chunk longer than it said")
        return data

    def finish(self) -> None:
        """Reads the end mark behind content that has been read."""
        if not self.whole and not self._left:
            self._more()


class Connections:
    """Connections to the node of one home that wait to be used again. Safe in threads; after a
    fork the child makes connections of its own."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._idle: list[Connection] = []
        self._process = os.getpid()

    def take(self) -> Connection | None:
        """One that is still good, if any is kept."""
        if self._process != os.getpid():
            self._idle, self._process = [], os.getpid()
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if connection.is_fresh():
                return connection
            connection.close()
        return None

    def keep(self, connection: Connection) -> None:
        """Takes back one whose last answer has been read to its end."""
        if len(self._idle) >= MAX_KEPT or self._process != os.getpid():
            connection.close()
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)

    def close(self) -> None:
        """Closes those that are idle."""
        while self._idle:
            self._idle.pop().close()

    def __del__(self) -> None:
        self.close()


def _head_line(reading: BufferedReader) -> bytes:
    line = reading.readline(MAX_HEAD_LINE_BYTES)
    if not line.endswith(b"\r\n"):
        raise NoHttp("the answer ended early")
    return line[:-2]


def _headers(reading: BufferedReader) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for _ in range(MAX_HEADERS):
        line = _head_line(reading)
        if not line:
            return found
        name, _, value = line.partition(b":")
        found[name.strip().lower()] = value.strip()
    raise NoHttp("too many headers")
