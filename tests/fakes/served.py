"""A fake node behind the real control API, in a thread of its own, for synchronous clients."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from gossipcache.control.serving import ControlServer, HttpPort
from gossipcache.home import Home, RunningNode
from tests.fakes.node import FakeNode


class Served:
    """The running fake; `on_loop` calls into its event loop."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.node = FakeNode()
        self.stopped = threading.Event()
        self._ready = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()

    def run(self, http: HttpPort | None) -> None:
        trio.run(self._main, http)

    async def _main(self, http: HttpPort | None) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self.home.locked(), self._scope:
            async with trio.open_nursery() as nursery:
                server = ControlServer(self.home, self.node, self._scope.cancel)
                await nursery.start(server.serve, http)
                self.home.write_running(RunningNode(os.getpid(), "foreground", None, None))
                self._ready.set()
        self.stopped.set()

    def on_loop(self, call: Callable[[], object]) -> None:
        assert self._token is not None
        trio.from_thread.run_sync(call, trio_token=self._token)

    def wait_for(self, event: trio.Event) -> None:
        """Waits, from another thread, for an event of the fake."""
        assert self._token is not None

        async def wait() -> None:
            with trio.fail_after(10):
                await event.wait()

        trio.from_thread.run(wait, trio_token=self._token)

    def start(self, http: HttpPort | None) -> threading.Thread:
        thread = threading.Thread(target=self.run, args=(http,))
        thread.start()
        assert self._ready.wait(10)
        return thread

    def stop(self) -> None:
        if not self.stopped.is_set():
            self.on_loop(self._scope.cancel)


@contextmanager
def served(home: Home, http: HttpPort | None = None) -> Iterator[Served]:
    """Serves a fake node on `home`."""
    home.prepare()
    fake = Served(home)
    thread = fake.start(http)
    try:
        yield fake
    finally:
        fake.stop()
        thread.join(10)
        assert not thread.is_alive()
