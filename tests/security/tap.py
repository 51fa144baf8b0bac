"""A wire tap: what nodes send to an address goes through here, and is kept."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Tap:
    """Hands on datagrams and connections from its own port to the one of a node."""

    def __init__(self) -> None:
        self.datagrams: list[bytes] = []
        self.stream_bytes = bytearray()
        self.target: tuple[str, int] | None = None
        """The node behind it; until it is set, all is dropped."""
        self._closed = False
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._datagrams.bind(("127.0.0.1", self.port))
        for work in (self._pass_datagrams, self._accept):
            threading.Thread(target=work, daemon=True).start()

    def _pass_datagrams(self) -> None:
        # Sent on from here: the node answers to the address that the sender signed.
        with suppress(OSError):
            while not self._closed:
                data, _source = self._datagrams.recvfrom(65536)
                self.datagrams.append(data)
                if self.target is not None:
                    self._datagrams.sendto(data, self.target)

    def _accept(self) -> None:
        with suppress(OSError):
            while not self._closed:
                inner, _source = self._listener.accept()
                if self.target is None:
                    inner.close()
                    continue
                outer = socket.create_connection(self.target)
                self._open += [inner, outer]
                for source, sink in ((inner, outer), (outer, inner)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.stream_bytes += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Ends it and all that goes through it."""
        self._closed = True
        for each in (self._listener, self._datagrams, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextmanager
def tapped() -> Iterator[Tap]:
    """A tap, closed at the end."""
    tap = Tap()
    try:
        yield tap
    finally:
        tap.close()
