"""The control API on its listeners: the home's Unix socket, and a TCP address if asked for."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import trio

from gossipcache.control.api import ControlApi
from gossipcache.control.backend import Backend
from gossipcache.control.gate import TokenGate
from gossipcache.control.http import Exchange, HttpServer
from gossipcache.errors import UsageError
from gossipcache.home import Home, socket_name
from gossipcache.ids import Address

BACKLOG = 128
FIRST_REQUEST_S = 30.0
"""So long a node that idles waits at least for whoever started it to ask for something."""


@dataclass(frozen=True, slots=True)
class HttpPort:
    """Where the control API listens on TCP, and the token it asks for."""

    address: Address
    token: str


class ControlServer:
    """Serves a node's control API until cancelled."""

    def __init__(self, home: Home, node: Backend, stop: Callable[[], None]) -> None:
        self._home = home
        self._api = ControlApi(node, stop)
        self.http_address: Address | None = None

    async def serve(
        self,
        http: HttpPort | None,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listens; the node must hold the home's lock. Raises `UsageError` if `http` is taken."""
        local = HttpServer(self._api.handle, self._api.fail)
        try:
            async with trio.open_nursery() as nursery:
                if http is not None:
                    await self._start_tcp(nursery, http)
                listener = _listen_unix(self._home)
                await nursery.start(partial(local.serve, listener, is_local=True))
                task_status.started()
        finally:
            self._home.control_path.unlink(missing_ok=True)

    async def wait_idle(self, idle_s: float) -> None:
        """Returns when no request has run for `idle_s` seconds."""
        with trio.move_on_after(FIRST_REQUEST_S):
            await self._api.called.wait()
        while True:
            if self._api.requests_running:
                self._api.last_request = trio.current_time()
            end = self._api.last_request + idle_s
            if trio.current_time() >= end:
                return
            await trio.sleep_until(end)

    async def _start_tcp(self, nursery: trio.Nursery, http: HttpPort) -> None:
        listener, address = await _listen_tcp(http.address)
        self.http_address = address
        gate = TokenGate(http.token, address)

        async def guarded(exchange: Exchange) -> None:
            gate.check(exchange.request)
            await self._api.handle(exchange)

        remote = HttpServer(guarded, self._api.fail)
        await nursery.start(partial(remote.serve, listener, is_local=False))


def _listen_unix(home: Home) -> trio.SocketListener:
    home.control_path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    try:
        with socket_name(home.control_path) as name:
            listening.bind(name)
        os.chmod(home.control_path, 0o600)
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


async def _listen_tcp(address: Address) -> tuple[trio.SocketListener, Address]:
    try:
        listener, *others = await trio.open_tcp_listeners(address.port, host=address.host)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {address} for HTTP ({error.strerror})", "give another --http"
        ) from error
    for other in others:
        await other.aclose()
    return listener, Address(address.host, int(listener.socket.getsockname()[1]))
