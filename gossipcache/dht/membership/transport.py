"""Messages as sealed datagrams: what membership sends and receives, and others by its side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import trio

from gossipcache.cluster import Cluster
from gossipcache.env import DatagramRefused, Datagrams, Env
from gossipcache.errors import IntegrityError, ProtocolError
from gossipcache.ids import Address
from gossipcache.messages.gossip import Datagram
from gossipcache.metrics import Metrics
from gossipcache.wire import Message, decode, encode

M = TypeVar("M", bound=Message)

_MAX_RECEIVED_BYTES = 2048
_RECEIVE_RETRY_S = 0.01


class Transport:
    """The datagrams of one node."""

    def __init__(self, env: Env, cluster: Cluster, metrics: Metrics) -> None:
        self._env, self._cluster, self._metrics = env, cluster, metrics
        self._kinds: Any = Datagram
        self._hearers: dict[type, Callable[[Any], None]] = {}
        self.datagrams: Datagrams | None = None
        """None while the node has no network: what is sent then is lost."""

    def hear(self, kind: type[M], handler: Callable[[M], None]) -> None:
        """Names who takes messages of `kind`, which membership does not know."""
        self._hearers[kind] = handler
        self._kinds |= kind

    def send(self, address: Address, message: Message) -> None:
        """Sends `message`, or loses it."""
        if self.datagrams is None:
            return
        data = self._cluster.seal(encode(message), self._env.entropy)
        self._metrics.count("datagrams_sent")
        self._metrics.count("datagram_bytes_sent", len(data))
        try:
            self.datagrams.send_to(data, address)
        except OSError:
            self._metrics.count("datagram_errors")

    async def receive(self, datagrams: Datagrams) -> tuple[Datagram, Address]:
        """The next message for membership, and where it came from; others go to their hearers.

        Raises `DatagramRefused`.
        """
        while True:
            try:
                data, source = await datagrams.receive()
            except DatagramRefused:
                raise
            except OSError:
                self._metrics.count("datagram_errors")
                await trio.sleep(_RECEIVE_RETRY_S)
                continue
            message = self._opened(data)
            if message is None:
                continue
            if (handler := self._hearers.get(type(message))) is None:
                return message, source
            handler(message)

    def _opened(self, data: bytes) -> Any:
        self._metrics.count("datagrams_received")
        try:
            if len(data) > _MAX_RECEIVED_BYTES:
                raise ProtocolError("a datagram that is too large")
            return decode(self._cluster.open(data), self._kinds)
        except IntegrityError:
            self._metrics.count("datagrams_unsealed")
        except ProtocolError:
            self._metrics.count("datagrams_malformed")
        return None
